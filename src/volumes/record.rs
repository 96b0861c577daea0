//! What a backup notes of a saved volume: enough to make the same volume again, anywhere.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A claim's data, and where it was saved; a line of `report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeCopy {
    /// The claim's namespace.
    pub namespace: String,
    /// The claim.
    pub claim: String,
    /// The PersistentVolume it was bound to.
    pub volume: String,
    /// How it was saved.
    pub method: Method,
    /// The volume that was saved.
    pub source: EbsVolume,
    /// Its snapshot.
    pub snapshot: Snapshot,
}

/// How a volume was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// By a snapshot in EBS.
    EbsSnapshot,
}

/// An EBS volume, as DescribeVolumes tells it. Nothing of this but the encryption is in a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EbsVolume {
    /// `vol-…`.
    pub id: String,
    /// `gp3`, `io2`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// GiB.
    pub gib: u64,
    /// Operations a second, where the type lets one choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// MiB a second, where the type lets one choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
    /// The key it is encrypted with; `None` where it isn't encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// The availability zone's name.
    pub zone: String,
    /// Its id, which is the same in every account.
    #[serde(default)]
    pub zone_id: String,
    /// Whether several machines may attach it.
    #[serde(default)]
    pub multi_attach: bool,
    /// The tags by which CSI drivers' policies know the volumes of their cluster.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_tags: BTreeMap<String, String>,
    /// All of its tags, of which a policy may choose some for its snapshot.
    #[serde(skip)]
    pub tags: BTreeMap<String, String>,
    /// The machine it is attached to, where it is one.
    #[serde(skip)]
    pub attached_to: Option<String>,
}

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Its data is on its way; it can't be restored yet.
    #[default]
    Pending,
    /// It can be restored.
    Completed,
    /// It holds nothing.
    Error,
    /// It lies in the Recycle Bin.
    Recoverable,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Recoverable => "recoverable",
        })
    }
}

/// An EBS snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// `snap-…`.
    pub id: String,
    /// The region it is in.
    pub region: String,
    /// How far it was when the backup was committed.
    pub state: State,
    /// The instant it is of.
    pub started_at: Timestamp,
    /// Bytes of all blocks that were ever written to the volume, where EC2 told, as it does of completed ones: what a restore has
    /// to read, and not what this snapshot added to earlier ones (EC2 API Reference, Snapshot).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_bytes: Option<u64>,
    /// The account that owns it; empty where EC2 didn't tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// The machine whose volumes were taken in one call, and so are of one instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub together_on: Option<String>,
    /// Whether the filesystem was frozen while it was begun.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
    /// Why it wasn't, where that was asked for.
    #[serde(skip)]
    pub unfrozen: Option<String>,
    /// The volume it is of.
    #[serde(skip)]
    pub volume: String,
    /// As EC2 puts it, such as `37%`; empty at first.
    #[serde(skip)]
    pub progress: String,
    /// Why it ended in error, where EC2 told.
    #[serde(skip)]
    pub message: String,
    /// The worker's try that made it, by its tag.
    #[serde(skip)]
    pub attempt: String,
    /// The backup it belongs to, by its tag.
    #[serde(skip)]
    pub backup: String,
    /// Where that backup is, by its tag.
    #[serde(skip)]
    pub location: String,
    /// Of a copy: the snapshot that it is of, by its tag.
    #[serde(skip)]
    pub copy_of: String,
    /// GiB of the volume it is of.
    #[serde(skip)]
    pub gib: u64,
    /// The key it is encrypted with; `None` where it isn't encrypted.
    #[serde(skip)]
    pub kms_key: Option<String>,
}

impl Snapshot {
    /// What else it may mean that EC2 doesn't list it, for the middle of a sentence.
    pub(super) fn or_unshared(&self) -> String {
        match self.account.as_str() {
            "" => String::new(),
            account => format!(", or account `{account}` doesn't share it any more"),
        }
    }

    /// By which the older of two of one volume is told, the same way by everybody.
    pub(super) fn age(&self) -> (Timestamp, &str) {
        (self.started_at, &self.id)
    }
}
