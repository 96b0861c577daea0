//! The record of a restore: what it was, where its report is, and which backup has what it changed. Written last; what is
//! known before the first write is written then, so that a restore that never ended can be undone, too.

use super::Error;
use super::manifest::{FORMAT, File, data_key};
use crate::id::{Attempt, BackupId, Digest};
use crate::report::Outcome;
use crate::resource::check_namespace;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes a record may have.
pub const RECORD_LIMIT: u64 = 64 * 1024;
/// How the keys end that say that a restore has begun.
const BEGUN: &str = ".begun.json";
/// How the keys end that say that a restore is undone.
const UNDONE: &str = ".undone.json";
/// What all records' keys begin with.
pub const RESTORES: &str = "restores/";

/// `restores/<id>.json`, and without the end `restores/<id>.begun.json`.
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
    /// The plan that was carried out.
    pub plan_digest: Digest,
    /// When the worker began.
    pub started_at: Timestamp,
    /// The namespace of its Job, which bears the restore's name; absent where it had none (`--local`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_namespace: Option<String>,
    /// How it ended; absent where it didn't, or is still going on.
    #[serde(flatten)]
    pub end: Option<End>,
}

/// How a restore ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// The backup of what the restore was about to change; absent where it changed nothing that existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety: Option<BackupId>,
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

/// A line of `creates.jsonl.zst`: an object that an attempt was about to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// The kind's key.
    pub kind: String,
    /// The namespace in the target; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ns: Option<String>,
    /// The name.
    pub name: String,
}

/// The file of an attempt that names what it was about to create.
pub const CREATES: &str = "creates.jsonl.zst";

/// The key under which is noted that a restore has begun to write.
pub fn begun_key(id: &BackupId) -> String {
    format!("{RESTORES}{id}{BEGUN}")
}

/// The restore that this key says has begun.
pub fn id_of_begun(key: &str) -> Option<BackupId> {
    BackupId::parse(key.strip_prefix(RESTORES)?.strip_suffix(BEGUN)?).ok()
}

/// `restores/<id>.undone.json`: a restore is undone, all of it but what is spared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undone {
    /// [`FORMAT`].
    pub format: String,
    /// The restore.
    pub id: BackupId,
    /// The run that undid it.
    pub undo: BackupId,
    /// When it was done with that.
    pub undone_at: Timestamp,
}

/// The key under which is noted that a restore is undone.
pub fn undone_key(id: &BackupId) -> String {
    format!("{RESTORES}{id}{UNDONE}")
}

/// The restore that this key says is undone.
pub fn id_of_undone(key: &str) -> Option<BackupId> {
    BackupId::parse(key.strip_prefix(RESTORES)?.strip_suffix(UNDONE)?).ok()
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
    /// Reads the record of a restore that has ended.
    ///
    /// # Errors
    /// What is no record of this format, or names files that aren't its own.
    pub fn read(id: &BackupId, bytes: &[u8]) -> Result<Self, Error> {
        let record = Self::read_begun(id, bytes)?;
        let own = |file: &File, name: &str| file.key == data_key(id, &record.attempt, name);
        let is_own = |end: &End| own(&end.report, "report.json") && own(&end.log, "log.jsonl.zst");
        if record.end.as_ref().is_some_and(is_own) {
            return Ok(record);
        }
        Err(damaged(id, "it tells of no end, or names another's files"))
    }

    /// Reads what was noted when a restore began.
    ///
    /// # Errors
    /// What is no record of this format.
    pub fn read_begun(id: &BackupId, bytes: &[u8]) -> Result<Self, Error> {
        let record: Self = serde_json::from_slice(bytes).map_err(|error| damaged(id, &error.to_string()))?;
        if record.format != FORMAT {
            return Err(Error::UnknownFormat(record.format));
        }
        // it goes into URLs
        if record.job_namespace.as_deref().is_some_and(|namespace| check_namespace(namespace).is_err()) {
            return Err(damaged(id, "the namespace of its Job can't be one"));
        }
        if record.id == *id { Ok(record) } else { Err(damaged(id, "it names another restore")) }
    }
}

fn damaged(id: &BackupId, why: &str) -> Error {
    Error::damaged(format!("the record of `{id}`"), why)
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
            "jobNamespace": "kb", "created": 1, "updated": 0, "recreated": 0, "report": file("report.json"), "log": file("log.jsonl.zst"),
        });
        let read = |record: &Value| Record::read(&id, record.to_string().as_bytes());
        assert_eq!(read(&record).unwrap().end.unwrap().safety, None);
        for (at, other) in [
            ("/format", json!("kubectl-backup/2")),
            ("/id", json!("restore-2")),
            ("/report/key", json!("data/restore-2/a1/report.json")),
            ("/attempt", json!("../x")),
            ("/jobNamespace", json!("../x")),
        ] {
            let mut record = record.clone();
            *record.pointer_mut(at).unwrap() = other;
            assert!(read(&record).is_err(), "{at}");
        }
        let mut begun = record.clone();
        begun.as_object_mut().unwrap().remove("endedAt");
        assert!(read(&begun).is_err(), "without its end");
        let begun = Record::read_begun(&id, begun.to_string().as_bytes()).unwrap();
        assert_eq!((begun.end, id_of_begun(&begun_key(&id))), (None, Some(id.clone())));
        assert_eq!(id_of_record(&begun_key(&id)), None);
        assert_eq!((id_of_record(&undone_key(&id)), id_of_begun(&undone_key(&id))), (None, None));
        assert_eq!(id_of_undone(&undone_key(&id)), Some(id.clone()));
        assert_eq!(id_of_record(&record_key(&id)), Some(id));
        assert_eq!(id_of_record("restores/a/b.json"), None);
    }
}
