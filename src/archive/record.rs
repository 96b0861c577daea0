//! The record of a restore: what it was, where its report is, and which backup has what it changed. Written last.

use super::Error;
use super::manifest::{FORMAT, File, data_key};
use crate::id::{Attempt, BackupId, Digest};
use crate::report::Outcome;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes a record may have.
pub const RECORD_LIMIT: u64 = 64 * 1024;
/// What all records' keys begin with.
pub const RESTORES: &str = "restores/";

/// `restores/<id>.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// [`FORMAT`].
    pub format: String,
    /// The restore's name.
    pub id: BackupId,
    /// Whose data it names.
    pub attempt: Attempt,
    /// The uid of the cluster that was restored into.
    pub cluster: String,
    /// The backup that was restored.
    pub backup: BackupId,
    /// The backup of what the restore was about to change; absent where it changed nothing that existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<BackupId>,
    /// The plan that was carried out.
    pub plan_digest: Digest,
    /// When the worker began.
    pub started_at: Timestamp,
    /// When the last object was written.
    pub ended_at: Timestamp,
    /// `Complete` or `Partial`.
    pub outcome: Outcome,
    /// Objects made.
    pub created: u64,
    /// Objects replaced.
    pub updated: u64,
    /// Objects deleted and made anew.
    pub recreated: u64,
    /// `report.json`: what became of each object, with the uid of what was written.
    pub report: File,
    /// `log.jsonl.zst`.
    pub log: File,
}

/// The key of a restore's record.
pub fn record_key(id: &BackupId) -> String {
    format!("{RESTORES}{id}.json")
}

/// The restore whose record has this key.
pub fn id_of_record(key: &str) -> Option<BackupId> {
    BackupId::parse(key.strip_prefix(RESTORES)?.strip_suffix(".json")?).ok()
}

impl Record {
    /// Reads the record of a restore.
    ///
    /// # Errors
    /// What is no record of this format, or names files that aren't its own.
    pub fn read(id: &BackupId, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |why: String| Error::damaged(format!("the record of `{id}`"), why);
        let record: Self = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if record.format != FORMAT {
            return Err(Error::UnknownFormat(record.format));
        }
        let own = |file: &File, name: &str| file.key == data_key(id, &record.attempt, name);
        if record.id != *id || !own(&record.report, "report.json") || !own(&record.log, "log.jsonl.zst") {
            return Err(damaged("it names another restore, or another's files".to_owned()));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_record_names_its_own_files_only() {
        let id = BackupId::parse("restore-1").unwrap();
        let file = |name: &str| json!({"key": format!("data/{id}/a1/{name}"), "size": 1, "sha256": Digest::of(b"")});
        let record = json!({
            "format": FORMAT, "id": id, "attempt": "a1", "cluster": "u", "backup": "shop-1", "planDigest": Digest::of(b""),
            "startedAt": "2026-11-20T10:00:00Z", "endedAt": "2026-11-20T10:00:02Z", "outcome": "Complete", "newer": 1,
            "created": 1, "updated": 0, "recreated": 0, "report": file("report.json"), "log": file("log.jsonl.zst"),
        });
        let read = |record: &Value| Record::read(&id, record.to_string().as_bytes());
        assert_eq!(read(&record).unwrap().safety, None);
        for (at, other) in [
            ("/format", json!("kubectl-backup/2")),
            ("/id", json!("restore-2")),
            ("/report/key", json!("data/restore-2/a1/report.json")),
            ("/attempt", json!("../x")),
        ] {
            let mut record = record.clone();
            *record.pointer_mut(at).unwrap() = other;
            assert!(read(&record).is_err(), "{at}");
        }
        assert_eq!(id_of_record(&record_key(&id)), Some(id));
        assert_eq!(id_of_record("restores/a/b.json"), None);
    }
}
