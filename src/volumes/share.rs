//! Snapshots shared with another account, which can then make volumes of them, or copies of its own. Whoever owns them shares
//! them, and only those that carry the tags of the backup. One that is encrypted with the account's default key can't be shared; one
//! that is with another key is of use to those only who may use that key, too (EBS User Guide, "Share a snapshot").

use super::Error;
use super::life::{self, Named, Regions, foreign};
use super::record::{Snapshot, VolumeCopy};
use super::snapshot::{APPEARS, POLL};
use crate::id::BackupId;
use tokio::time::{Instant, sleep};

/// A backup's snapshots, as the account has them that owns them. `location` is what their tag has to say of it.
///
/// # Errors
/// EC2's; [`Error::Setting`] where one is gone, or isn't the backup's.
pub async fn owned(
    regions: &mut Regions,
    id: &BackupId,
    location: &str,
    volumes: &[VolumeCopy],
) -> Result<Vec<Snapshot>, Error> {
    let found = life::states(regions, volumes).await?;
    let owned = volumes.iter().zip(found).map(|(copy, found)| {
        let name = &copy.snapshot.id;
        let Some(found) = found else {
            return Err(Error::Setting(format!("snapshot `{name}` can't be shared: it is not there any more")));
        };
        match foreign(&found, id, location) {
            Some(why) => Err(Error::Setting(format!("snapshot `{name}` is not shared: {why}"))),
            None => Ok(found),
        }
    });
    owned.collect()
}

/// The snapshots of a backup that an account can't use, since it neither owns nor is lent them.
///
/// # Errors
/// EC2's.
pub async fn unseen(regions: &mut Regions, volumes: &[VolumeCopy]) -> Result<Vec<VolumeCopy>, Error> {
    let found = life::states(regions, volumes).await?;
    Ok(volumes.iter().zip(found).filter(|(_, found)| found.is_none()).map(|(copy, _)| copy.clone()).collect())
}

/// Waits until an account sees what was shared with it.
///
/// # Errors
/// EC2's; [`Error::Setting`] after two minutes.
pub async fn seen(regions: &mut Regions, volumes: &[VolumeCopy]) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        let unseen = unseen(regions, volumes).await?;
        let Some(first) = unseen.first() else { return Ok(()) };
        if begun.elapsed() > APPEARS {
            let (id, seconds) = (&first.snapshot.id, APPEARS.as_secs());
            let text = format!(
                "snapshot `{id}` is shared, and those who are to copy it don't see it after {seconds} s\n\
                 hint: is the account that it is shared with the one of their role or keys?"
            );
            return Err(Error::Setting(text));
        }
        sleep(POLL.0).await;
    }
}

/// Shares snapshots with an account: all or none.
///
/// # Errors
/// The first that can't be shared.
pub async fn share(regions: &mut Regions, snapshots: &[Named], account: &str) -> Result<(), Error> {
    for (at, one) in snapshots.iter().enumerate() {
        let shared = async { regions.get(&one.region).await?.set_shared(&one.id, account, true).await };
        let Err(error) = shared.await else { continue };
        let begun = at + usize::from(matches!(error, Error::Unavailable { .. }));
        for (left, error) in end(regions, &snapshots[..begun], account).await {
            tracing::warn!(%error, snapshot = left.id, account, "a snapshot is still shared");
        }
        return Err(explained(error, one, account));
    }
    Ok(())
}

/// What to do about a snapshot that can't be shared.
fn explained(error: Error, snapshot: &Named, account: &str) -> Error {
    if error.code() != Some("OperationNotPermitted") {
        return error;
    }
    Error::Setting(format!(
        "snapshot `{}` can't be shared with account `{account}`: {error}\n\
         hint: what is encrypted with the account's default key (aws/ebs) can't be. Copy the backup within its account with a key of \
         your own first (`copy --to ANOTHER --copy-to-region {} --kms-key KEY`), let account `{account}` use that key, and copy from there",
        snapshot.id, snapshot.region
    ))
}

/// Ends the sharing of snapshots with an account. Answers with those of which that can't be said, and why.
pub async fn end(regions: &mut Regions, snapshots: &[Named], account: &str) -> Vec<(Named, Error)> {
    let mut left = Vec::new();
    for one in snapshots {
        let ended = async { regions.get(&one.region).await?.set_shared(&one.id, account, false).await };
        if let Err(error) = ended.await {
            left.push((one.clone(), error));
        }
    }
    left
}
