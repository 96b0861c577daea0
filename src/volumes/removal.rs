//! Volumes that a restore made, when it is undone. One is the restore's when its tags say so: what a record names without
//! them is somebody else's, also where the record is forged.

use super::life::{Named, Regions};
use super::restore::RESTORE;
use super::{Ec2, Error};
use crate::id::BackupId;
use crate::report::Events;
use crate::rules::marks::MANAGED;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a volume may take until it is detached, once its PersistentVolume is gone: the driver needs seconds, a machine
/// that hangs 6 minutes, until Kubernetes detaches by force.
const DETACHED: Duration = Duration::from_secs(420);
/// Between two tries.
const POLL: Duration = Duration::from_secs(3);
/// After which a person is told what is waited for.
const PATIENT: Duration = Duration::from_secs(10);

/// What EC2 has of a volume that a restore says it has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there, and the restore's.
    Ours,
    /// It isn't there.
    Gone,
    /// It isn't the restore's: the reason.
    Foreign(String),
}

/// Asks EC2 for volumes; answers in their order.
///
/// # Errors
/// The first region's that can't be asked.
pub async fn look(regions: &mut Regions, restore: &BackupId, volumes: &[Named]) -> Result<Vec<Standing>, Error> {
    let (mut ours, mut there) = (BTreeSet::new(), BTreeSet::new());
    let mut by_region = BTreeMap::<&str, Vec<String>>::new();
    volumes.iter().for_each(|one| by_region.entry(&one.region).or_default().push(one.id.clone()));
    for (region, ids) in by_region {
        let ec2 = regions.get(region).await?;
        let tags: [(&str, &[String]); 2] = [(RESTORE, &[restore.to_string()]), (MANAGED, &["true".to_owned()])];
        ours.extend(ec2.volumes_tagged(&tags).await?.into_iter().map(|volume| volume.id));
        there.extend(ec2.volumes(&ids).await?.into_iter().map(|(volume, _)| volume.id));
    }
    let standing = |one: &Named| match (there.contains(&one.id), ours.contains(&one.id)) {
        (false, _) => Standing::Gone,
        (true, true) => Standing::Ours,
        (true, false) => {
            Standing::Foreign(format!("it has no tag `{RESTORE}={restore}`, so it may be somebody else's"))
        }
    };
    Ok(volumes.iter().map(standing).collect())
}

/// Removes a volume once it is detached. Fine when there is none.
///
/// # Errors
/// EC2's, and when it stays attached.
pub async fn remove(ec2: &Ec2, id: &str, events: &Events) -> Result<(), Error> {
    let (begun, mut told) = (Instant::now(), false);
    loop {
        let error = match ec2.delete_volume(id).await {
            Err(error) if matches!(error.code(), Some("VolumeInUse" | "IncorrectState")) => error,
            other => return other,
        };
        if begun.elapsed() > DETACHED {
            return Err(Error::Setting(format!(
                "volume `{id}` is still attached after {} s: {error}\nhint: whatever uses it must go first; then undo again",
                DETACHED.as_secs()
            )));
        }
        if !told && begun.elapsed() > PATIENT {
            told = true;
            events.note(format!("waiting until volume `{id}` is detached"));
        }
        sleep(POLL).await;
    }
}
