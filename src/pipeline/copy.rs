//! Files of a backup on their way to another location: compared with their digests as they pass.

use super::{Error, upload::FileUpload};
use crate::archive;
use crate::archive::manifest::File;
use crate::store::{self, Store};

/// Bytes that are read at once.
const RANGE: u64 = 8 << 20;

/// Copies a file under another key. `moved` hears of every piece.
///
/// # Errors
/// The bucket's; [`Error::Archive`] where the file is not what its digest says: then the copy is worth nothing.
pub async fn file(
    from: &dyn Store,
    to: &dyn Store,
    file: &File,
    key: String,
    mut moved: impl FnMut(u64),
) -> Result<File, Error> {
    let mut copy = FileUpload::begin(to, key).await?;
    let mut at = 0;
    while at < file.size {
        let end = (at + RANGE).min(file.size);
        let read = match from.get_range(&file.key, at..end).await {
            Ok(bytes) => copy.write(bytes).await,
            Err(store::Error::NotFound { place }) => {
                Err(archive::Error::damaged(format!("`{place}`"), "it is not there").into())
            }
            Err(store::Error::Integrity { place, why }) => {
                Err(archive::Error::damaged(format!("`{place}`"), why).into())
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = read {
            copy.abort().await;
            return Err(error);
        }
        moved(end - at);
        at = end;
    }
    let written = copy.finish().await?;
    if written.sha256 != file.sha256 {
        let why = format!("its SHA-256 is {}, and was {} when it was written", written.sha256, file.sha256);
        return Err(archive::Error::damaged(format!("`{}`", file.key), why).into());
    }
    Ok(written)
}
