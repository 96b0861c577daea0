//! What a location has of one backup, and its removal: the manifest first, so that what is listed is whole, then its data.
//! Before that a mark is written: data without a manifest is otherwise left alone for a day, since its worker may live, and
//! a deletion that was killed must go on at once.

use super::{Error, catalog};
use crate::archive;
use crate::archive::manifest::{Manifest, data_key, manifest_key};
use crate::archive::record::record_key;
use crate::id::{Attempt, BackupId};
use crate::store::{self, Listed, Store};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeSet;

/// The file among an attempt's data that marks the backup as one that is being deleted.
const MARK: &str = "deleted.json";
/// Bytes of a mark that are read.
const MARK_LIMIT: u64 = 16 * 1024 * 1024;

/// What a location has of an id.
#[derive(Debug)]
pub struct Held {
    /// The backup.
    pub id: BackupId,
    /// Its manifest, where it can be read.
    pub manifest: Option<Manifest>,
    /// Bytes of the manifest, where it is there.
    pub manifest_size: Option<u64>,
    /// Its data, of all attempts, without marks.
    pub data: Vec<Listed>,
    /// What deletions that were begun have noted.
    pub marks: Vec<Bytes>,
    marked: BTreeSet<String>,
}

impl Held {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.manifest_size.is_none() && self.data.is_empty() && self.marked.is_empty()
    }

    /// Whether a deletion of it was begun.
    pub fn is_marked(&self) -> bool {
        !self.marked.is_empty()
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        self.data.iter().map(|object| object.size).sum::<u64>() + self.manifest_size.unwrap_or_default()
    }

    /// Bodies in all, without marks.
    pub fn bodies(&self) -> u64 {
        self.data.len() as u64 + u64::from(self.manifest_size.is_some())
    }

    /// When the last of its data was written.
    pub fn newest(&self) -> Option<Timestamp> {
        self.data.iter().map(|object| object.modified).max()
    }
}

/// Looks what a location has of an id.
///
/// # Errors
/// The bucket's; [`Error::Archive`] for a manifest that a newer version wrote: what belongs to it is not known here.
/// [`Error::NotFound`] for a restore.
pub async fn look(store: &dyn Store, id: &BackupId) -> Result<Held, Error> {
    let key = manifest_key(id);
    let listed = store.list(&key).await?;
    let manifest_size = listed.iter().find(|object| object.key == key).map(|object| object.size);
    let manifest = match manifest_size {
        None => None,
        Some(_) => match catalog::manifest(store, id).await {
            Ok(manifest) => Some(manifest),
            Err(Error::Archive(archive::Error::Damaged { .. }) | Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        },
    };
    if manifest_size.is_none() {
        let record = record_key(id);
        if store.list(&record).await?.iter().any(|object| object.key == record) {
            return Err(Error::NotFound(format!("`{id}` is a restore on record, not a backup")));
        }
    }
    let listed = store.list(&format!("data/{id}/")).await?;
    let (marked, data): (Vec<Listed>, Vec<Listed>) = listed.into_iter().partition(|object| is_mark(id, &object.key));
    let mut marks = Vec::new();
    for mark in &marked {
        marks.push(store.get(&mark.key, MARK_LIMIT).await?);
    }
    let marked = marked.into_iter().map(|object| object.key).collect();
    Ok(Held { id: id.clone(), manifest, manifest_size, data, marks, marked })
}

/// Whether a key is that of a mark.
pub(super) fn is_mark(id: &BackupId, key: &str) -> bool {
    let inner = key.strip_prefix(&format!("data/{id}/")).and_then(|rest| rest.strip_suffix(&format!("/{MARK}")));
    inner.is_some_and(|attempt| Attempt::parse(attempt).is_ok())
}

/// Begins a deletion: from the mark on it can be gone on with, and then there is no backup any more. Answers with the keys
/// of all marks.
///
/// # Errors
/// The bucket's.
pub async fn begin(store: &dyn Store, held: &Held, attempt: &Attempt, note: Bytes) -> Result<BTreeSet<String>, Error> {
    let mut marks = held.marked.clone();
    if held.manifest_size.is_some() {
        let mark = data_key(&held.id, attempt, MARK);
        if marks.insert(mark.clone()) {
            match store.create(&mark, note).await {
                Ok(()) | Err(store::Error::Exists { .. }) => (),
                Err(error) => return Err(error.into()),
            }
        }
        store.delete(&manifest_key(&held.id)).await?;
    }
    Ok(marks)
}

/// Removes the data, unfinished uploads too.
///
/// # Errors
/// The bucket's.
pub async fn data(store: &dyn Store, held: &Held) -> Result<(), Error> {
    for upload in store.pending_uploads(&format!("data/{}/", held.id)).await? {
        store.abort_upload(&upload).await?;
    }
    for object in &held.data {
        store.delete(&object.key).await?;
    }
    Ok(())
}

/// Ends a deletion: its marks go.
///
/// # Errors
/// The bucket's.
pub async fn end(store: &dyn Store, marks: BTreeSet<String>) -> Result<(), Error> {
    for mark in marks {
        store.delete(&mark).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mark_of_an_attempt_is_one() {
        let id = BackupId::parse("shop-1").unwrap();
        assert!(is_mark(&id, "data/shop-1/a1/deleted.json"));
        for other in ["data/shop-1/deleted.json", "data/shop-1/a/b/deleted.json", "data/shop-2/a1/deleted.json"] {
            assert!(!is_mark(&id, other), "{other}");
        }
    }
}
