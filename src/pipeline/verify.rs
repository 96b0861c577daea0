//! Whether a backup is still what its manifest says: the keys and sizes of its files, or every byte of them.

use super::Error;
use crate::archive::manifest::{FILE_NAMES, File, Manifest};
use crate::id::DigestBuilder;
use crate::store::{self, Store};
use std::collections::BTreeMap;

/// Bytes that are read at once.
const RANGE: u64 = 8 << 20;

/// What is wrong with a file of a backup; nothing, where it is as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Which of the files.
    pub name: &'static str,
    /// Bytes that were read.
    pub read: u64,
    /// What is wrong.
    pub damage: Option<String>,
}

/// Compares keys and sizes with one LIST, and with `bytes` the digest of each file that has its size.
///
/// # Errors
/// The bucket's. Damage is in the answer.
pub async fn files(
    store: &dyn Store,
    manifest: &Manifest,
    bytes: bool,
    mut read_so_far: impl FnMut(u64),
) -> Result<Vec<Checked>, Error> {
    let listed = store.list(&format!("data/{}/{}/", manifest.id, manifest.attempt)).await?;
    let sizes: BTreeMap<&str, u64> = listed.iter().map(|object| (object.key.as_str(), object.size)).collect();
    let files = &manifest.files;
    let files = [&files.objects, &files.index, &files.report, &files.log];
    let (mut checked, mut sum) = (Vec::new(), 0);
    for (file, name) in files.into_iter().zip(FILE_NAMES) {
        let mut one = Checked { name, read: 0, damage: None };
        one.damage = match sizes.get(file.key.as_str()) {
            None => Some("it is not there".to_owned()),
            Some(size) if *size != file.size => Some(format!("it has {size} bytes, and had {}", file.size)),
            Some(_) if bytes => {
                let damage = reread(store, file, |read| {
                    one.read += read;
                    sum += read;
                    read_so_far(sum);
                });
                damage.await?
            }
            Some(_) => None,
        };
        checked.push(one);
    }
    Ok(checked)
}

/// Reads a file again, and compares its digest.
async fn reread(store: &dyn Store, file: &File, mut read: impl FnMut(u64)) -> Result<Option<String>, Error> {
    let mut digest = DigestBuilder::default();
    let mut from = 0;
    while from < file.size {
        let to = (from + RANGE).min(file.size);
        let bytes = match store.get_range(&file.key, from..to).await {
            Ok(bytes) => bytes,
            Err(store::Error::Integrity { why, .. }) => return Ok(Some(why)),
            Err(store::Error::NotFound { .. }) => return Ok(Some("it is not there".to_owned())),
            Err(error) => return Err(error.into()),
        };
        read(bytes.len() as u64);
        // a thread of its own: hashing 8 MiB takes long enough to keep others waiting
        let hashed = tokio::task::spawn_blocking(move || {
            digest.update(&bytes);
            digest
        });
        digest = hashed.await.map_err(|error| Error::Thread(error.to_string()))?;
        from = to;
    }
    let found = digest.finish();
    let differs = || format!("its SHA-256 is {found}, and was {} when it was written", file.sha256);
    Ok((found != file.sha256).then(differs))
}
