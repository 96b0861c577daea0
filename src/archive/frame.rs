//! Frames: some MiB of tar entries of one kind, compressed on their own, so that any of them can be read without the
//! others and all cores can work on them.

use super::encoders::{Encoders, ROOM};
use super::{Error, path};
use crate::id::Digest;
use crate::resource::Kind;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io;

/// Bytes of tar at which a frame is closed. A larger object gets a frame of its own.
pub const FRAME_TARGET: usize = 2 * 1024 * 1024;
/// Bytes of tar beyond which a reader refuses a frame.
pub const FRAME_LIMIT: u64 = 256 * 1024 * 1024;
/// Bytes up to which a frame grows as it is filled. Beyond, it gets a buffer with room for the whole.
const SMALL: usize = 64 * 1024;
/// Everything in a tar file fills whole blocks of this many bytes.
const BLOCK: usize = 512;
/// The blocks that end a tar file. Stock tar ignores what follows them, so they stand behind the last frame only.
const TAR_END: usize = 2 * BLOCK;

/// What is known of an object when it is added to a frame.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// `None` for cluster-scoped objects.
    pub namespace: Option<&'a str>,
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.uid`; empty where there is none.
    pub uid: &'a str,
    /// `metadata.resourceVersion`; empty where there is none.
    pub resource_version: &'a str,
    /// The object's JSON as the API server sent it.
    pub json: &'a [u8],
    /// Whether `apiVersion` and `kind` must be put in front, as in items of built-in lists.
    pub lacks_type: bool,
}

/// The line of an object in the index.
#[derive(Serialize, Deserialize)]
pub(super) struct ObjectLine<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) ns: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) name: std::borrow::Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(super) uid: std::borrow::Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub(super) rv: std::borrow::Cow<'a, str>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A frame that is being filled.
pub struct FrameBuilder {
    kind: Kind,
    type_prefix: Vec<u8>,
    encoders: Encoders,
    /// What the headers of all entries have in common.
    header: tar::Header,
    /// `None` as long as it is empty.
    tar: Option<Vec<u8>>,
    lines: Vec<u8>,
    objects: u64,
}

/// A frame that is filled and not yet compressed.
pub struct FilledFrame {
    kind: Kind,
    encoders: Encoders,
    tar: Vec<u8>,
    lines: Vec<u8>,
    objects: u64,
}

/// A compressed frame with its lines of the index.
pub struct Frame {
    /// The kind of all its objects.
    pub kind: Kind,
    /// The zstd frame.
    pub bytes: Bytes,
    /// The digest of `bytes`.
    pub sha256: Digest,
    /// Bytes of tar inside.
    pub tar_size: u64,
    /// Objects inside.
    pub objects: u64,
    /// Their lines of the index.
    pub lines: Vec<u8>,
}

impl FrameBuilder {
    /// An empty frame for objects of a kind.
    pub fn new(kind: &Kind, encoders: &Encoders) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let type_prefix =
            format!("{{\"apiVersion\":{},\"kind\":{},", quoted(&kind.api_version()), quoted(&kind.kind)).into_bytes();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        Self {
            kind: kind.clone(),
            type_prefix,
            encoders: encoders.clone(),
            header,
            tar: None,
            lines: Vec::new(),
            objects: 0,
        }
    }

    /// Adds an object. Its JSON must begin with `{`; the caller has parsed it.
    pub fn push(&mut self, object: &Object<'_>) -> Result<(), Error> {
        // what is put in front, and the object without what that replaces
        let (prefix, rest): (&[u8], &[u8]) = match object.json {
            [b'{', rest @ ..] if object.lacks_type => (&self.type_prefix, rest),
            whole => (&[], whole),
        };
        let size = prefix.len() + rest.len();
        let path = path::object_path(&self.kind, object.namespace, object.name);
        let tar = self.tar.get_or_insert_default();
        if tar.len() + size > SMALL && tar.capacity() < ROOM {
            let begun = std::mem::replace(tar, self.encoders.buffer());
            tar.extend_from_slice(&begun);
        }
        append_header(tar, self.header.clone(), &path, size)?;
        let offset = tar.len();
        tar.extend_from_slice(prefix);
        tar.extend_from_slice(rest);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        let line = ObjectLine {
            ns: object.namespace.map(Into::into),
            name: object.name.into(),
            uid: object.uid.into(),
            rv: object.resource_version.into(),
            offset: offset as u64,
            size: size as u64,
        };
        serde_json::to_writer(&mut self.lines, &line).map_err(|source| Error::Compress(source.into()))?;
        self.lines.push(b'\n');
        self.objects += 1;
        Ok(())
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.tar.is_none()
    }

    /// Whether it holds enough to be closed.
    pub fn is_full(&self) -> bool {
        self.tar.as_ref().is_some_and(|tar| tar.len() >= FRAME_TARGET)
    }

    /// Closes it and leaves an empty one of the same kind; `None` when it is empty.
    pub fn take(&mut self) -> Result<Option<FilledFrame>, Error> {
        let Some(tar) = self.tar.take() else { return Ok(None) };
        Ok(Some(FilledFrame {
            kind: self.kind.clone(),
            encoders: self.encoders.clone(),
            tar,
            lines: std::mem::take(&mut self.lines),
            objects: std::mem::take(&mut self.objects),
        }))
    }
}

/// Appends the header of an entry. `tar::Builder` would do, and copy each object twice on its way through a `Read`.
fn append_header(tar: &mut Vec<u8>, mut header: tar::Header, path: &str, size: usize) -> Result<(), Error> {
    if header.set_path(path).is_err() {
        // a path that is too long for the header goes in front of it, in an entry of its own
        header.set_size(0);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header, path, io::empty()).map_err(Error::Compress)?;
        let headers = builder.into_inner().map_err(Error::Compress)?;
        tar.extend_from_slice(&headers[..headers.len() - TAR_END - BLOCK]);
    }
    header.set_size(size as u64);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    Ok(())
}

impl FilledFrame {
    /// Compresses and hashes: the CPU's share of a backup, for a thread of its own.
    pub fn compress(self) -> Result<Frame, Error> {
        let bytes = self.encoders.compress(&self.tar)?;
        let tar_size = self.tar.len() as u64;
        self.encoders.keep(self.tar);
        Ok(Frame {
            sha256: Digest::of(&bytes),
            bytes,
            tar_size,
            kind: self.kind,
            objects: self.objects,
            lines: self.lines,
        })
    }
}

/// The last frame of `objects.tar.zst`: the blocks that end a tar file.
pub fn end_of_archive() -> Result<Bytes, Error> {
    Encoders::default().compress(&[0; TAR_END])
}

/// Where a frame stands, as the index says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FrameEntry {
    /// The kind of all its objects.
    pub kind: Kind,
    /// Where it begins in `objects.tar.zst`.
    pub offset: u64,
    /// Its bytes there.
    pub size: u64,
    /// Its bytes decompressed.
    pub tar_size: u64,
    /// The digest of its compressed bytes.
    pub sha256: Digest,
    /// Objects inside.
    pub objects: u64,
}

impl FrameEntry {
    /// Checks the frame's bytes against length and digest, and decompresses them, at most to the stated length.
    ///
    /// # Errors
    /// [`Error::Damaged`] when anything disagrees.
    pub fn open(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.check(bytes)?;
        let damaged = |why: String| Error::damaged(self.describe(), why);
        let limit = usize::try_from(self.tar_size).map_err(|_| damaged("its size is not possible".to_owned()))?;
        let tar = zstd::bulk::decompress(bytes, limit).map_err(|error| damaged(error.to_string()))?;
        if tar.len() != limit {
            return Err(damaged(format!("it decompresses to {} bytes, the index says {limit}", tar.len())));
        }
        Ok(tar)
    }

    /// Checks the frame's bytes against length and digest, without decompressing them.
    ///
    /// # Errors
    /// [`Error::Damaged`] when they disagree.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Error> {
        let damaged = |why: String| Error::damaged(self.describe(), why);
        if bytes.len() as u64 != self.size {
            return Err(damaged(format!("it has {} bytes, the index says {}", bytes.len(), self.size)));
        }
        let found = Digest::of(bytes);
        if found != self.sha256 {
            return Err(damaged(format!("its SHA-256 is {found}, the index says {}", self.sha256)));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        format!("the frame of `{}` at byte {}", self.kind, self.offset)
    }

    /// The JSON of an object in an opened frame.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the index points outside the frame.
    pub fn object<'a>(&self, tar: &'a [u8], offset: u64, size: u64) -> Result<&'a [u8], Error> {
        let range = usize::try_from(offset).ok().zip(usize::try_from(size).ok());
        range
            .and_then(|(offset, size)| tar.get(offset..offset.checked_add(size)?))
            .ok_or_else(|| Error::damaged(self.describe(), "the index points outside of it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Kind {
        Kind {
            group: String::new(),
            version: "v1".into(),
            kind: "Pod".into(),
            resource: "pods".into(),
            namespaced: true,
        }
    }

    fn object<'a>(name: &'a str, json: &'a str) -> Object<'a> {
        Object {
            namespace: Some("shop"),
            name,
            uid: "u",
            resource_version: "7",
            json: json.as_bytes(),
            lacks_type: true,
        }
    }

    fn sealed(objects: &[Object<'_>]) -> (FrameEntry, Frame) {
        let mut builder = FrameBuilder::new(&pods(), &Encoders::default());
        objects.iter().for_each(|object| builder.push(object).unwrap());
        let frame = builder.take().unwrap().unwrap().compress().unwrap();
        let entry = FrameEntry {
            kind: pods(),
            offset: 0,
            size: frame.bytes.len() as u64,
            tar_size: frame.tar_size,
            sha256: frame.sha256,
            objects: frame.objects,
        };
        (entry, frame)
    }

    #[test]
    fn objects_come_back_byte_for_byte_with_type_in_front() {
        let (long, odd) = ("n".repeat(253), "{ \"metadata\" : {} , \"big\":1e400,\"spec\":{\"a\":1.0}}");
        let with_type = Object { lacks_type: false, ..object("typed", "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}") };
        let (entry, frame) = sealed(&[object("a", odd), object(&long, "{\"data\":null}"), with_type]);
        let tar = entry.open(&frame.bytes).unwrap();
        let found: Vec<String> = String::from_utf8(frame.lines)
            .unwrap()
            .lines()
            .map(|line| {
                let line: ObjectLine<'_> = serde_json::from_str(line).unwrap();
                let json = entry.object(&tar, line.offset, line.size).unwrap();
                String::from_utf8(json.to_vec()).unwrap()
            })
            .collect();
        let front = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",";
        let expected = [
            format!("{front}{}", &odd[1..]),
            format!("{front}\"data\":null}}"),
            "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}".into(),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn tar_reads_paths_of_any_length() {
        let front = "resources/pods/namespaces/shop/".len() + ".json".len();
        let names: Vec<String> = [1, 99, 100, 101, 156, 250].map(|path| "n".repeat(path.max(front + 1) - front)).into();
        let objects: Vec<_> = names.iter().map(|name| object(name, "{\"spec\":{}}")).collect();
        let (entry, frame) = sealed(&objects);
        let mut tar = entry.open(&frame.bytes).unwrap();
        tar.extend([0; TAR_END]);
        let mut archive = tar::Archive::new(&*tar);
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                io::Read::read_to_string(&mut entry, &mut content).unwrap();
                (entry.path().unwrap().to_str().unwrap().to_owned(), content)
            })
            .collect();
        let content = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"spec\":{}}".to_owned();
        let expected = names.iter().map(|name| (path::object_path(&pods(), Some("shop"), name), content.clone()));
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn a_damaged_frame_is_refused() {
        let (entry, frame) = sealed(&[object("a", "{\"spec\":{}}")]);
        for position in 0..frame.bytes.len() {
            let mut bytes = frame.bytes.to_vec();
            bytes[position] ^= 1;
            assert!(matches!(entry.open(&bytes), Err(Error::Damaged { .. })), "bit flipped at {position}");
        }
        assert!(entry.open(&frame.bytes[..frame.bytes.len() - 1]).is_err());
        assert!(entry.object(&[0; 10], 5, 6).is_err());
        assert!(entry.object(&[0; 10], u64::MAX, 6).is_err());
    }

    #[test]
    fn a_frame_that_decompresses_to_more_than_it_says_is_refused() {
        let bytes = Encoders::default().compress(&vec![0; 1 << 20]).unwrap();
        let entry = FrameEntry {
            kind: pods(),
            offset: 0,
            size: bytes.len() as u64,
            tar_size: 1024,
            sha256: Digest::of(&bytes),
            objects: 1,
        };
        assert!(matches!(entry.open(&bytes), Err(Error::Damaged { .. })));
    }
}
