//! Writes down what a restore does besides its objects, before it does it; and reads that again.

use super::Error;
use crate::archive::besides::{BESIDES_LIMIT, Besides};
use crate::id::{Attempt, BackupId};
use crate::store::{self, Store};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

/// Files read at once.
const AT_ONCE: usize = 16;

/// Where an attempt writes it down.
#[derive(Clone, Copy)]
pub struct Journal<'a> {
    /// Where the restore's record will be.
    pub store: &'a dyn Store,
    /// The restore.
    pub id: &'a BackupId,
    /// The attempt.
    pub attempt: &'a Attempt,
}

impl Journal<'_> {
    /// Notes what is about to be done. To note the same twice is fine.
    ///
    /// # Errors
    /// The bucket's; then it must not be done.
    pub async fn note(&self, deed: &Besides) -> Result<(), Error> {
        let (key, bytes) = deed.file(self.id, self.attempt)?;
        match self.store.create(&key, Bytes::from(bytes)).await {
            Err(store::Error::Exists { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}

/// What all attempts of a restore did besides, or were about to; each deed once.
///
/// # Errors
/// The bucket's; [`Error::Archive`] where a file is damaged.
pub async fn read(store: &dyn Store, id: &BackupId) -> Result<Vec<Besides>, Error> {
    let listed = store.list(&format!("data/{id}/")).await?;
    let keys = listed.into_iter().map(|object| object.key).filter(|key| Besides::is_key(key));
    let reads = stream::iter(keys).map(|key| async move {
        let bytes = store.get(&key, BESIDES_LIMIT).await?;
        Ok::<_, Error>(Besides::read(&key, &bytes)?)
    });
    let mut found: Vec<Besides> = Vec::new();
    for deed in reads.buffered(AT_ONCE).try_collect::<Vec<_>>().await? {
        if !found.contains(&deed) {
            found.push(deed);
        }
    }
    Ok(found)
}
