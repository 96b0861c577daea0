//! Removes what runs left behind that never became a backup: attempts and unfinished uploads that are older than a day
//! and that no manifest names.

use super::{Error, catalog, delete};
use crate::archive::manifest::{BACKUPS, DATA, id_of_key, parts_of_data_key};
use crate::archive::record::{RESTORES, begun_key, record_key};
use crate::id::{Attempt, BackupId};
use crate::store::Store;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How long garbage is left alone: longer than any Job may take ([`LONGEST_RUN`]); other runs look whether their data is
/// there before they commit.
///
/// [`LONGEST_RUN`]: crate::config::LONGEST_RUN
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// What one attempt left.
struct Left {
    newest: Timestamp,
    keys: Vec<String>,
    bytes: u64,
}

/// Sweeps a location.
///
/// # Errors
/// The bucket's; what is left then is swept by the next run.
pub async fn garbage(store: &dyn Store, now: Timestamp) -> Result<(), Error> {
    let before = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
    for upload in store.pending_uploads(DATA).await? {
        if upload.initiated < before {
            store.abort_upload(&upload).await?;
        }
    }
    // presence is asked by LIST: with rights limited to a prefix S3 may answer 403 to a GET of what isn't there
    let committed: BTreeSet<BackupId> = store.list(BACKUPS).await?.iter().filter_map(|o| id_of_key(&o.key)).collect();
    let restored: BTreeSet<String> = store.list(RESTORES).await?.into_iter().map(|object| object.key).collect();
    for (id, attempts) in attempts(store).await? {
        let is_restore = restored.contains(&record_key(&id)) || restored.contains(&begun_key(&id));
        if is_restore || attempts.values().all(|left| left.newest >= before) {
            continue;
        }
        let named = match committed.contains(&id) {
            true => match catalog::manifest(store, &id).await {
                Ok(manifest) => Some(manifest.attempt),
                Err(_) => continue, // a manifest that can't be read protects all of its data
            },
            false => None,
        };
        for (attempt, left) in attempts {
            if named.as_ref() != Some(&attempt) && left.newest < before {
                for key in &left.keys {
                    store.delete(key).await?;
                }
            }
        }
    }
    Ok(())
}

/// Data of an id that is no backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// When the last of it was written.
    pub newest: Timestamp,
    /// How many keys.
    pub keys: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether a deletion of it was begun: then nobody works on it.
    pub marked: bool,
}

/// Data of ids that are no backups and no restores on record, and the ids of the backups. What is younger than a day is
/// left out, since its worker may still be at it.
///
/// # Errors
/// The bucket's.
pub async fn orphans(
    store: &dyn Store,
    now: Timestamp,
) -> Result<(BTreeMap<BackupId, Orphan>, BTreeSet<BackupId>), Error> {
    let before = now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
    let mut orphans = BTreeMap::new();
    // data first: a backup that is committed in between is in the second list
    let found = attempts(store).await?;
    let committed: BTreeSet<BackupId> = store.list(BACKUPS).await?.iter().filter_map(|o| id_of_key(&o.key)).collect();
    let restored: BTreeSet<String> = store.list(RESTORES).await?.into_iter().map(|object| object.key).collect();
    for (id, attempts) in found {
        if committed.contains(&id) || restored.contains(&record_key(&id)) {
            continue;
        }
        let all = || attempts.values();
        let orphan = Orphan {
            newest: all().map(|left| left.newest).max().unwrap_or(now),
            keys: all().map(|left| left.keys.len() as u64).sum(),
            bytes: all().map(|left| left.bytes).sum(),
            marked: all().any(|left| left.keys.iter().any(|key| delete::is_mark(&id, key))),
        };
        if orphan.marked || orphan.newest < before {
            orphans.insert(id, orphan);
        }
    }
    Ok((orphans, committed))
}

/// All data keys, by backup and attempt. Keys of another shape are not ours to touch.
async fn attempts(store: &dyn Store) -> Result<BTreeMap<BackupId, BTreeMap<Attempt, Left>>, Error> {
    let mut found = BTreeMap::<BackupId, BTreeMap<Attempt, Left>>::new();
    for object in store.list(DATA).await? {
        let Some((id, attempt, _)) = parts_of_data_key(&object.key) else { continue };
        let left = found.entry(id).or_default().entry(attempt);
        let left = left.or_insert_with(|| Left { newest: object.modified, keys: Vec::new(), bytes: 0 });
        left.newest = left.newest.max(object.modified);
        left.bytes += object.size;
        left.keys.push(object.key);
    }
    Ok(found)
}
