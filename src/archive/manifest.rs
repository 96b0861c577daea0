//! The manifest: what a backup is, in one small file that is written last. Its presence is the backup.

use super::Error;
use crate::id::{Attempt, BackupId, Digest};
use crate::report::Outcome;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
pub const FORMAT: &str = "kubectl-backup/1";
/// Bytes a manifest may have.
pub const MANIFEST_LIMIT: u64 = 1024 * 1024;
/// What all manifests' keys begin with. One LIST of it is the set of backups.
pub const BACKUPS: &str = "backups/";

/// The manifest of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// What a reader must know to read this; nothing so far.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The backup's name.
    pub id: BackupId,
    /// Whose data it names.
    pub attempt: Attempt,
    /// The cluster that was backed up.
    pub cluster: ClusterIdentity,
    /// What was asked for.
    pub scope: Scope,
    /// The namespaces that were saved, where the scope is namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// What narrowed it besides, in the words of the command line, for people; absent where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<String>,
    /// Of a safety backup, the restore that made it of what it was about to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_of: Option<BackupId>,
    /// Of a copy: the location that it was copied from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<String>,
    /// When the worker began.
    pub started_at: Timestamp,
    /// When everything but this manifest was stored.
    pub ended_at: Timestamp,
    /// `Complete` or `Partial`.
    pub outcome: Outcome,
    /// At which instant the objects were read.
    pub consistency: Consistency,
    /// The sums.
    pub counts: Counts,
    /// The data.
    pub files: Files,
    /// What wrote it, with its version.
    pub tool: String,
}

/// What tells a cluster from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterIdentity {
    /// The uid of its namespace `kube-system`.
    pub uid: String,
    /// The API server's version, as it says itself.
    pub version: String,
}

/// What a backup was asked to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// Some namespaces, and the cluster-scoped objects that they need.
    Namespaces,
    /// Everything.
    Cluster,
}

/// At which instant the objects were read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consistency {
    /// The etcd revision of all kinds but the unpinned ones; `None` where none was pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The kinds that were listed as they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpinned: Vec<Unpinned>,
    /// Seconds between the first and the last thing read, snapshots of volumes included; 0 when everything is at one
    /// revision and there are none.
    pub skew_seconds: f64,
}

/// A kind that was not read at the backup's revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpinned {
    /// The kind's key.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// The revision that its list stated; empty where it stated none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
}

/// The sums of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Objects saved.
    pub objects: u64,
    /// Their bytes of JSON, before compression.
    pub bytes: u64,
    /// Problems in the report.
    pub problems: u64,
    /// Omissions in the report.
    pub omissions: u64,
    /// Volumes whose data is saved.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub volumes: u64,
    /// Bytes that they can hold.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub volume_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The data of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// `objects.tar.zst`.
    pub objects: File,
    /// `index.jsonl.zst`.
    pub index: File,
    /// `report.json`.
    pub report: File,
    /// `log.jsonl.zst`.
    pub log: File,
}

/// One stored file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its key below the location's prefix.
    pub key: String,
    /// Its bytes as stored.
    pub size: u64,
    /// The digest of its bytes as stored.
    pub sha256: Digest,
}

/// The key of a backup's manifest.
pub fn manifest_key(id: &BackupId) -> String {
    format!("{BACKUPS}{id}.json")
}

/// The id that a manifest's key names; `None` for other keys.
pub fn id_of_key(key: &str) -> Option<BackupId> {
    BackupId::parse(key.strip_prefix(BACKUPS)?.strip_suffix(".json")?).ok()
}

/// What all data keys begin with.
pub const DATA: &str = "data/";

/// The key of a data file of an attempt.
pub fn data_key(id: &BackupId, attempt: &Attempt, name: &str) -> String {
    format!("{DATA}{id}/{attempt}/{name}")
}

/// The run, the attempt and the file's name that a data key tells; `None` where it is of another shape.
pub fn parts_of_data_key(key: &str) -> Option<(BackupId, Attempt, &str)> {
    let mut segments = key.strip_prefix(DATA)?.splitn(3, '/');
    let id = BackupId::parse(segments.next()?).ok()?;
    Some((id, Attempt::parse(segments.next()?).ok()?, segments.next()?))
}

/// The names of the data files, in the order of [`Files`].
pub const FILE_NAMES: [&str; 4] = ["objects.tar.zst", "index.jsonl.zst", "report.json", "log.jsonl.zst"];

impl Manifest {
    /// Reads a manifest that stood at the key of this id.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`] and [`Error::UnknownRequirement`] for one that a newer version wrote,
    /// [`Error::Damaged`] for anything else that is not a manifest of this id.
    pub fn read(id: &BackupId, bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            #[serde(default)]
            requires: Vec<String>,
        }
        let what = || format!("the manifest of `{id}`");
        let damaged = |error: serde_json::Error| Error::damaged(what(), error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(damaged)?;
        if head.format != FORMAT {
            return Err(Error::UnknownFormat(head.format));
        }
        if let Some(unknown) = head.requires.into_iter().next() {
            return Err(Error::UnknownRequirement(unknown));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        if manifest.id != *id {
            return Err(Error::damaged(what(), format!("it names the backup `{}`", manifest.id)));
        }
        let files = &manifest.files;
        for (file, name) in [&files.objects, &files.index, &files.report, &files.log].into_iter().zip(FILE_NAMES) {
            if file.key != data_key(id, &manifest.attempt, name) {
                return Err(Error::damaged(what(), format!("it names `{}` as its {name}", file.key)));
            }
        }
        Ok(manifest)
    }

    /// The bytes to store: JSON that people can read.
    ///
    /// # Errors
    /// None that a manifest can cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|error| Error::Compress(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn id() -> BackupId {
        BackupId::parse("shop-20261120-100000-k3fa").unwrap()
    }

    fn manifest() -> Value {
        let file =
            |name: &str| json!({"key": format!("data/{}/a1/{name}", id()), "size": 1, "sha256": Digest::of(b"")});
        json!({
            "format": FORMAT, "requires": [], "id": id(), "attempt": "a1", "cluster": {"uid": "u", "version": "v1.36.3"},
            "scope": "namespaces", "namespaces": ["shop"], "startedAt": "2026-11-20T10:00:00Z", "endedAt": "2026-11-20T10:00:02Z",
            "outcome": "Complete", "consistency": {"revision": "7", "skewSeconds": 0.0},
            "counts": {"objects": 1, "bytes": 2, "problems": 0, "omissions": 0},
            "files": {"objects": file("objects.tar.zst"), "index": file("index.jsonl.zst"), "report": file("report.json"), "log": file("log.jsonl.zst")},
            "tool": "kubectl-backup 0.1.0"
        })
    }

    fn read(value: &Value) -> Result<Manifest, Error> {
        Manifest::read(&id(), value.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_comes_back_and_unknown_fields_are_ignored() {
        let mut value = manifest();
        value["newer"] = json!({"x": 1});
        let manifest = read(&value).unwrap();
        assert_eq!(Manifest::read(&id(), &manifest.to_bytes().unwrap()).unwrap(), manifest);
    }

    #[test]
    fn what_is_not_for_this_reader_is_refused() {
        let with = |pointer: &str, new: Value| {
            let mut value = manifest();
            *value.pointer_mut(pointer).unwrap() = new;
            read(&value).unwrap_err().to_string()
        };
        assert!(with("/format", json!("kubectl-backup/2")).contains("format `kubectl-backup/2`"));
        assert!(with("/requires", json!(["age"])).contains("requires `age`"));
        assert!(with("/id", json!("other-20261120-100000-k3fa")).contains("names the backup `other-"));
        assert!(with("/files/index/key", json!("data/other/a1/index.jsonl.zst")).contains("names `data/other"));
        assert!(with("/attempt", json!("../x")).contains("damaged"));
        assert!(with("/files/objects/sha256", json!("abc")).contains("SHA-256"));
        assert!(Manifest::read(&id(), b"{\"format\"").is_err());
    }

    #[test]
    fn only_manifests_have_manifest_keys() {
        assert_eq!(id_of_key(&manifest_key(&id())), Some(id()));
        for other in ["backups/", "backups/x.txt", "backups/A.json", "backups/a/b.json", "data/a.json"] {
            assert_eq!(id_of_key(other), None, "{other}");
        }
    }
}
