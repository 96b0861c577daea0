//! Files of a backup on their way to another location: compared with their digests as they pass.

use super::{Error, upload::FileUpload};
use crate::archive;
use crate::archive::manifest::File;
use crate::store::{self, PART_SIZE, Store};
use bytes::Bytes;

/// Bytes that are read at once, while as many are written.
const RANGE: u64 = PART_SIZE as u64;

/// Copies a file under another key. `moved` hears of every piece.
///
/// # Errors
/// The bucket's; [`Error::Archive`] where the file is not what its digest says: then the copy is worth nothing.
pub async fn file(
    from: &dyn Store,
    to: &dyn Store,
    file: &File,
    key: String,
    moved: impl FnMut(u64),
) -> Result<File, Error> {
    let mut copy = FileUpload::begin(to, key).await?;
    if let Err(error) = pieces(from, file, &mut copy, moved).await {
        copy.abort().await;
        return Err(error);
    }
    let written = copy.finish().await?;
    if written.sha256 != file.sha256 {
        let why = format!("its SHA-256 is {}, and was {} when it was written", written.sha256, file.sha256);
        return Err(archive::Error::damaged(format!("`{}`", file.key), why).into());
    }
    Ok(written)
}

/// Writes all pieces of a file. While one is written the next is read.
async fn pieces(from: &dyn Store, file: &File, copy: &mut FileUpload, mut moved: impl FnMut(u64)) -> Result<(), Error> {
    let (mut piece, mut at) = (read(from, file, 0).await?, 0);
    while !piece.is_empty() {
        let size = piece.len() as u64;
        at += size;
        let write = copy.write(piece);
        ((), piece) = tokio::try_join!(write, read(from, file, at))?;
        moved(size);
    }
    Ok(())
}

/// A piece of a file; an empty one behind its end.
async fn read(from: &dyn Store, file: &File, at: u64) -> Result<Bytes, Error> {
    let end = (at + RANGE).min(file.size);
    if at >= end {
        return Ok(Bytes::new());
    }
    from.get_range(&file.key, at..end).await.map_err(|error| match error {
        store::Error::NotFound { place } => archive::Error::damaged(format!("`{place}`"), "it is not there").into(),
        store::Error::Integrity { place, why } => archive::Error::damaged(format!("`{place}`"), why).into(),
        error => error.into(),
    })
}
