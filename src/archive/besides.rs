//! What a restore does to things that aren't objects of its backup: it adds to a service account that is there already,
//! gives a released volume back to its claim, makes EBS volumes. Each such deed is written down before it is done, in a
//! file of its own, so that `undo` can take it back, also of a restore that was killed.

use super::Error;
use super::manifest::data_key;
use crate::id::{Attempt, BackupId, Digest};
use crate::resource::{ObjectName, check_namespace, check_object_name};
use crate::rules::accounts::Added;
use crate::rules::claims::Remembered;
use serde::{Deserialize, Serialize};

/// Bytes such a file may have.
pub const BESIDES_LIMIT: u64 = 256 * 1024;
/// The folder of an attempt in which they are.
const FOLDER: &str = "besides/";

/// One deed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "deed", rename_all = "camelCase")]
pub enum Besides {
    /// A service account gets what it lacks.
    #[serde(rename_all = "camelCase")]
    Added {
        /// Which.
        account: ObjectName,
        /// Its uid.
        uid: String,
        /// What it gets.
        added: Added,
    },
    /// A released PersistentVolume forgets its claim's uid.
    #[serde(rename_all = "camelCase")]
    GivenBack {
        /// The volume.
        volume: String,
        /// Its uid.
        uid: String,
        /// The claim that may have it.
        claim: ObjectName,
        /// What it remembered of that claim.
        was: Remembered,
    },
    /// An EBS volume is made. Written down when it has an id, before anything refers to it.
    MadeVolume(MadeVolume),
}

/// An EBS volume that a restore made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeVolume {
    /// `vol-…`.
    pub id: String,
    /// Where it is.
    pub region: String,
    /// GiB.
    pub gib: u64,
    /// The PersistentVolume that stands for it.
    pub volume: String,
    /// The claim that gets it.
    pub claim: ObjectName,
}

impl Besides {
    /// The file in which an attempt notes it, as key and JSON. The same deed has the same key.
    ///
    /// # Errors
    /// None that a deed can cause.
    pub fn file(&self, id: &BackupId, attempt: &Attempt) -> Result<(String, Vec<u8>), Error> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Compress(error.into()))?;
        let digest = Digest::of(&bytes).to_string();
        Ok((data_key(id, attempt, &format!("{FOLDER}{}.json", &digest[..16])), bytes))
    }

    /// Whether a key is that of such a file.
    pub fn is_key(key: &str) -> bool {
        key.rsplit_once('/')
            .is_some_and(|(folder, file)| format!("{folder}/").ends_with(FOLDER) && file.ends_with(".json"))
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is none, or names what can't be a name: names go into URLs.
    pub fn read(key: &str, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |why: String| Error::damaged(format!("`{key}`"), why);
        let deed: Self =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("column {}", error.column())))?;
        let checked = |name: &ObjectName| {
            name.namespace.as_deref().map_or(Ok(()), check_namespace).and_then(|()| check_object_name(&name.name))
        };
        let names = match &deed {
            Self::Added { account, .. } => checked(account),
            Self::GivenBack { volume, claim, .. } | Self::MadeVolume(MadeVolume { volume, claim, .. }) => {
                checked(claim).and_then(|()| check_object_name(volume))
            }
        };
        names.map_err(|error| damaged(format!("it names what can't be a name: {error}")))?;
        Ok(deed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deeds_are_read_as_they_were_written_and_names_are_checked() {
        let (id, attempt) = (BackupId::parse("restore-1").unwrap(), Attempt::parse("a1").unwrap());
        let claim = ObjectName::new(Some("shop"), "data");
        let made = |volume: &str| {
            let made = MadeVolume {
                id: "vol-1".into(),
                region: "r".into(),
                gib: 4,
                volume: volume.into(),
                claim: claim.clone(),
            };
            Besides::MadeVolume(made)
        };
        let added = Added { image_pull_secrets: ["a".to_owned()].into(), ..Added::default() };
        let was = Remembered { uid: "u".into(), resource_version: None };
        let all = [
            Besides::Added { account: ObjectName::new(Some("shop"), "default"), uid: "u".into(), added },
            Besides::GivenBack { volume: "pv".into(), uid: "u".into(), claim: claim.clone(), was },
            made("pv"),
        ];
        for deed in all {
            let (key, bytes) = deed.file(&id, &attempt).unwrap();
            assert!(key.starts_with("data/restore-1/a1/besides/") && Besides::is_key(&key), "{key}");
            assert_eq!(Besides::read(&key, &bytes).unwrap(), deed);
        }
        assert!(Besides::read("k", &serde_json::to_vec(&made("../x")).unwrap()).is_err());
        assert!(!Besides::is_key("data/restore-1/a1/plan.json"));
    }
}
