//! The stored logs of runs that are no backups: of restores, and of what failed, until they are swept. A backup's own is named by its
//! manifest.

use super::Error;
use crate::archive::manifest::{DATA, parts_of_data_key};
use crate::id::BackupId;
use crate::store::{Listed, Store};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes of a log that are read.
pub const LOG_LIMIT: u64 = 64 * 1024 * 1024;
/// Ids named in an error.
const NAMED: usize = 5;

/// The logs of all attempts of the run of this name, or whose name begins so, oldest first; `None` where there is none. No manifest
/// tells their digests.
///
/// # Errors
/// The bucket's; [`Error::NotFound`] where it is the beginning of several names.
pub async fn find(store: &dyn Store, beginning: &str) -> Result<Option<(BackupId, Vec<Bytes>)>, Error> {
    let mut runs = BTreeMap::<BackupId, Vec<Listed>>::new();
    for object in store.list(&format!("{DATA}{beginning}")).await? {
        if let Some((id, _, "log.jsonl.zst")) = parts_of_data_key(&object.key) {
            runs.entry(id).or_default().push(object);
        }
    }
    if runs.keys().any(|id| id.as_str() == beginning) {
        runs.retain(|id, _| id.as_str() == beginning);
    }
    if runs.len() > 1 {
        let names: Vec<String> = runs.keys().take(NAMED).map(|id| format!("`{id}`")).collect();
        return Err(Error::NotFound(format!("`{beginning}` means more than one run: {}", names.join(", "))));
    }
    let Some((id, mut logs)) = runs.pop_first() else { return Ok(None) };
    logs.sort_by_key(|log| log.modified);
    let mut stored = Vec::new();
    for log in logs {
        stored.push(store.get(&log.key, LOG_LIMIT).await?);
    }
    Ok(Some((id, stored)))
}
