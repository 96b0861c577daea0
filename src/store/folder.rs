//! A folder as a store: a file per key. A body is written to a temporary file beside its place and hard-linked there
//! once it is on the disk, so that a key has its whole body or none, and a second writer is told, as with S3's
//! `If-None-Match`. Temporary files are the pending uploads. Backups hold Secrets: only their owner may read them.

use super::{Error, Listed, PendingUpload, Store, Upload, key};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How a temporary file's name begins and ends: `.NAME.RANDOM.tmp`.
const TEMPORARY: (&str, &str) = (".", ".tmp");

/// How often a folder is made anew because somebody removed it, empty as it was, before its first file came.
const FOLDER_ATTEMPTS: u32 = 8;

/// A folder with a file per key.
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The store in a folder, which is made with the first key.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, key: &str) -> Result<PathBuf, Error> {
        key::check(key)?;
        Ok(self.root.join(key))
    }

    /// Runs what blocks where it may.
    async fn blocking<T: Send + 'static>(
        &self,
        deed: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        blocking(&self.root, deed).await
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    deed: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(deed).await {
        Ok(result) => result,
        Err(ended) => Err(failed("work in", path)(io::Error::other(ended))),
    }
}

/// Names the deed and the file in an error.
fn failed(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { deed, path, source }
}

fn place(path: &Path) -> String {
    path.display().to_string()
}

#[async_trait]
impl Store for Folder {
    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<(), Error> {
        let path = self.path(key)?;
        let root = self.root.clone();
        self.blocking(move || {
            let mut file = Temporary::beside(&root, &path)?;
            file.write(&body)?;
            file.become_body()
        })
        .await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let path = self.path(key)?;
        self.blocking(move || {
            let file = open(&path)?;
            let mut body = Vec::new();
            file.take(limit.saturating_add(1)).read_to_end(&mut body).map_err(failed("read", &path))?;
            if body.len() as u64 > limit {
                return Err(Error::TooLarge { place: place(&path), limit });
            }
            Ok(body.into())
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let path = self.path(key)?;
        self.blocking(move || {
            let mut file = open(&path)?;
            let mut body = Vec::new();
            let wanted = range.end.saturating_sub(range.start);
            file.seek(SeekFrom::Start(range.start)).map_err(failed("read", &path))?;
            file.take(wanted).read_to_end(&mut body).map_err(failed("read", &path))?;
            if body.len() as u64 != wanted {
                let why = format!("bytes {}..{} were asked for and {} came", range.start, range.end, body.len());
                return Err(Error::Integrity { place: place(&path), why });
            }
            Ok(body.into())
        })
        .await
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        let path = self.path(key)?;
        self.blocking(move || open(&path)?.metadata().map(|file| file.len()).map_err(failed("read", &path))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let found = self.files(prefix).await?;
        let mut listed = Vec::new();
        for file in found.into_iter().filter(|file| !is_hidden(&file.name) && file.key().starts_with(prefix)) {
            listed.push(Listed { key: file.key(), size: file.size, modified: file.modified });
        }
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let (root, path) = (self.root.clone(), self.path(key)?);
        self.blocking(move || remove(&root, &path)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        let (root, path) = (self.root.clone(), self.path(key)?);
        let file = self.blocking(move || Temporary::beside(&root, &path)).await?;
        Ok(Box::new(FolderUpload { file: Some(file), writing: None }))
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, Error> {
        let found = self.files(prefix).await?;
        let pending = found.into_iter().filter_map(|file| {
            let key = format!("{}{}", file.folder, body_name(&file.name)?);
            key.starts_with(prefix).then_some(PendingUpload { key, initiated: file.modified, id: file.name })
        });
        Ok(pending.collect())
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<(), Error> {
        let path = self.path(&upload.key)?;
        if body_name(&upload.id).is_none_or(|name| path.file_name().is_none_or(|file| file != name)) {
            return Err(Error::Key { key: upload.id.clone(), why: "it is not a pending upload of this key" });
        }
        let (root, path) = (self.root.clone(), path.with_file_name(&upload.id));
        self.blocking(move || remove(&root, &path)).await
    }
}

impl Folder {
    /// All files in and below the folder in which keys with this prefix are.
    async fn files(&self, prefix: &str) -> Result<Vec<Found>, Error> {
        key::check_prefix(prefix)?;
        let folder = prefix.rfind('/').map_or("", |at| &prefix[..=at]).to_owned();
        let root = self.root.clone();
        self.blocking(move || {
            let mut found = Vec::new();
            walk(&root, folder, &mut found)?;
            Ok(found)
        })
        .await
    }
}

/// A file met on a walk.
struct Found {
    /// The folder, relative to the root: empty, or ends with `/`.
    folder: String,
    name: String,
    size: u64,
    modified: Timestamp,
}

impl Found {
    fn key(&self) -> String {
        format!("{}{}", self.folder, self.name)
    }
}

/// Collects the files below a folder. Links aren't followed: they lead out. What goes while we look is not there.
fn walk(root: &Path, folder: String, found: &mut Vec<Found>) -> Result<(), Error> {
    let mut waiting = vec![folder];
    while let Some(folder) = waiting.pop() {
        let path = root.join(&folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(failed("list", &path)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &path))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("list", &entry.path())(error)),
            };
            if meta.is_dir() && !is_hidden(&name) {
                waiting.push(format!("{folder}{name}/"));
            } else if meta.is_file() {
                let time = meta.modified().map_err(failed("list", &path))?;
                let modified = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
                found.push(Found { folder: folder.clone(), name, size: meta.len(), modified });
            }
        }
    }
    Ok(())
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// The name that a temporary file's body is to have.
fn body_name(temporary: &str) -> Option<&str> {
    let inner = temporary.strip_prefix(TEMPORARY.0)?.strip_suffix(TEMPORARY.1)?;
    inner.rsplit_once('.').map(|(name, _)| name)
}

fn open(path: &Path) -> Result<File, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Err(Error::NotFound { place: place(path) }),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let meta = file.metadata().map_err(failed("read", path))?;
    if meta.is_file() { Ok(file) } else { Err(Error::NotFound { place: place(path) }) }
}

/// Whether there is no such file, or what should be its folder is a file.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether somebody may have removed the empty folder while we made it (which is then "there" for the one call and not
/// for the next), or before its first file came.
fn is_race(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
}

/// Removes a file, if it is there, and the folders that are empty without it.
fn remove(root: &Path, path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(failed("remove", path)(error)),
    }
    let emptied = path.ancestors().skip(1).take_while(|folder| *folder != root);
    // The first that isn't empty ends it.
    let _ = emptied.map(fs::remove_dir).find(io::Result::is_err);
    Ok(())
}

/// A file that has no key yet. Goes when it is dropped.
struct Temporary {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    written: u64,
}

impl Temporary {
    fn beside(root: &Path, path: &Path) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(root);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let temporary = folder.join(format!("{}{name}.{:016x}{}", TEMPORARY.0, fastrand::u64(..), TEMPORARY.1));
            match make_folder(folder).and_then(|()| private().open(&temporary)) {
                Ok(file) => return Ok(Self { file, temporary, path: path.to_owned(), written: 0 }),
                Err(error) if attempts < FOLDER_ATTEMPTS && is_race(&error) => {}
                Err(error) => return Err(failed("create a file in", folder)(error)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(failed("write", &self.temporary))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its key, unless something has it. The bytes are on the disk before, and the name after.
    fn become_body(self) -> Result<(), Error> {
        self.file.sync_all().map_err(failed("write", &self.temporary))?;
        fs::hard_link(&self.temporary, &self.path).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::Exists { place: place(&self.path) },
            _ => failed("create", &self.path)(error),
        })?;
        match self.path.parent() {
            Some(folder) => sync_folder(folder).map_err(failed("write", folder)),
            None => Ok(()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What can't be removed is a pending upload, which is swept.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(unix)]
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Opens a new file, for its owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// A body being written to a folder.
struct FolderUpload {
    /// Gone after an error.
    file: Option<Temporary>,
    /// A write that is going on in a thread.
    writing: Option<tokio::task::JoinHandle<Result<Temporary, Error>>>,
}

impl FolderUpload {
    /// The file, once nothing is being written to it: the caller of a write may have gone away, the write goes on.
    async fn at_rest(&mut self) -> Result<Temporary, Error> {
        let Some(writing) = &mut self.writing else { return self.file.take().ok_or_else(Self::ended) };
        let ended = writing.await;
        self.writing = None;
        ended.unwrap_or_else(|ended| Err(failed("write", Path::new("upload"))(io::Error::other(ended))))
    }

    fn ended() -> Error {
        failed("write", Path::new("upload"))(io::Error::other("an error has ended it"))
    }
}

#[async_trait]
impl Upload for FolderUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut file = self.at_rest().await?;
        self.writing = Some(tokio::task::spawn_blocking(move || file.write(&bytes).map(|()| file)));
        self.file = Some(self.at_rest().await?);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, Error> {
        let file = self.at_rest().await?;
        let path = file.path.clone();
        blocking(&path.clone(), move || {
            let written = file.written;
            file.become_body()?;
            let there = fs::metadata(&path).map_err(failed("read", &path))?.len();
            if there != written {
                let why = format!("{written} bytes were written and {there} are there");
                return Err(Error::Integrity { place: place(&path), why });
            }
            Ok(written)
        })
        .await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        let Ok(file) = self.at_rest().await else { return Ok(()) };
        let path = file.temporary.clone();
        blocking(&path.clone(), move || {
            drop(file);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed("remove", &path)(error)),
                Ok(_) => Err(failed("remove", &path)(io::Error::other("it is still there"))),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests;
