//! Snapshots after the backup: which there are of one, what holds them, and that they go. A snapshot counts as a backup's
//! when its tags say so, the backup's id and its location: what a report names without such tags is somebody else's, also
//! where the report was copied to another bucket or forged.

use super::record::{Snapshot, State, VolumeCopy};
use super::snapshot::{APPEARS, CLUSTER, GRACE};
use super::{Ec2, Error, Place};
use crate::aws::Access;
use crate::cluster::Cluster;
use crate::config::Location;
use crate::id::BackupId;
use crate::report::Events;
use crate::rules::marks::ID;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Snapshots that are removed at once.
const AT_ONCE: usize = 8;
/// Characters that the name of a region may have.
const REGION_LIMIT: usize = 32;

/// A snapshot, or a volume, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Named {
    /// The region.
    pub region: String,
    /// `snap-…` or `vol-…`.
    pub id: String,
}

/// EC2 in all the regions that a backup's snapshots may be in.
#[derive(Debug, Default)]
pub struct Regions {
    home: Option<String>,
    access: Access,
    open: BTreeMap<String, Ec2>,
}

impl Regions {
    /// Where the cluster's machines are, and whatever else is asked for. Outside of AWS there is no home.
    ///
    /// # Errors
    /// [`Error::Setting`] where the nodes can't be listed.
    pub async fn of(cluster: &Cluster) -> Result<Self, Error> {
        let home = match Place::of(cluster).await?.region {
            Some(region) => Some(region),
            None => Ec2::told_region().await,
        };
        Ok(Self { home, ..Self::default() })
    }

    /// The same, looked for when it is needed first.
    ///
    /// # Errors
    /// As [`Regions::of`].
    pub async fn once<'a>(found: &'a mut Option<Self>, cluster: &Cluster) -> Result<&'a mut Self, Error> {
        let regions = match found.take() {
            Some(regions) => regions,
            None => Self::of(cluster).await?,
        };
        Ok(found.insert(regions))
    }

    /// EC2 with the credentials of a second location.
    pub fn of_other(location: &Location) -> Self {
        Self { access: Access::other(location), ..Self::default() }
    }

    /// With clients that are there already, the first of them at home.
    pub fn with(clients: impl IntoIterator<Item = Ec2>) -> Self {
        let mut regions = Self::default();
        for client in clients {
            regions.home.get_or_insert_with(|| client.region().to_owned());
            regions.open.insert(client.region().to_owned(), client);
        }
        regions
    }

    /// The region of the cluster.
    pub fn home(&self) -> Option<&str> {
        self.home.as_deref()
    }

    /// EC2 in a region. Its name may come from a report and becomes part of a host's name.
    ///
    /// # Errors
    /// [`Error::Setting`] for what can't be a region, and where there is no way to EC2.
    pub async fn get(&mut self, region: &str) -> Result<Ec2, Error> {
        if let Some(open) = self.open.get(region) {
            return Ok(open.clone());
        }
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || region.len() > REGION_LIMIT || !region.bytes().all(is_name) {
            return Err(Error::Setting(format!("`{}` is not a region", region.escape_debug())));
        }
        let client = Ec2::open_with(region, &self.access).await?;
        self.open.insert(region.to_owned(), client.clone());
        Ok(client)
    }
}

/// Whether a snapshot can go with its backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Free,
    /// EC2 would refuse: the reason.
    Held(String),
    /// It isn't the backup's: the reason.
    Foreign(String),
}

/// A snapshot that a backup names, or that names the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub name: Named,
    /// As EC2 has it.
    pub snapshot: Snapshot,
    /// Whether it can go.
    pub standing: Standing,
}

/// Finds the snapshots of a backup: those that carry its tags, at home, in the regions of those that it names and in `others`, and
/// those that it names and that are there. `location` is what the tag says of it.
///
/// # Errors
/// The first region's that can't be asked.
pub async fn of_backup(
    regions: &mut Regions,
    id: &BackupId,
    location: &str,
    named: &[Named],
    others: &BTreeSet<String>,
    events: &Events,
) -> Result<Vec<Kept>, Error> {
    let of_named = named.iter().map(|one| one.region.clone());
    let all: BTreeSet<String> = regions.home.iter().cloned().chain(of_named).chain(others.iter().cloned()).collect();
    let mut found = Vec::new();
    for region in all {
        let ec2 = regions.get(&region).await?;
        let mut listed = ec2.snapshots(ID, id.as_str()).await?;
        let here = named.iter().filter(|one| one.region == region);
        let unlisted = here.filter(|one| !listed.iter().any(|listed| listed.id == one.id));
        let unlisted: Vec<String> = unlisted.map(|one| one.id.clone()).collect();
        if !unlisted.is_empty() {
            listed.extend(ec2.snapshots_by_id(&unlisted).await?);
        }
        let ids: Vec<String> = listed.iter().map(|snapshot| snapshot.id.clone()).collect();
        let held = holds(&ec2, &ids, events).await?;
        for snapshot in listed {
            // in the Recycle Bin it is deleted already, and goes in its time
            if snapshot.state == State::Recoverable {
                continue;
            }
            let standing = standing(&snapshot, id, location, held.get(&snapshot.id));
            // a copy of the same id for another location is none of this backup's business
            if matches!(standing, Standing::Foreign(_)) && !named.iter().any(|one| one.id == snapshot.id) {
                continue;
            }
            found.push(Kept { name: Named { region: region.clone(), id: snapshot.id.clone() }, snapshot, standing });
        }
    }
    Ok(found)
}

/// Why a snapshot isn't a backup's own, by its tags.
pub(super) fn foreign(snapshot: &Snapshot, id: &BackupId, location: &str) -> Option<String> {
    match standing(snapshot, id, location, None) {
        Standing::Foreign(why) => Some(why),
        Standing::Free | Standing::Held(_) => None,
    }
}

fn standing(snapshot: &Snapshot, id: &BackupId, location: &str, held: Option<&String>) -> Standing {
    match held {
        _ if snapshot.backup != id.as_str() => {
            Standing::Foreign(format!("it has no tag `{ID}={id}`, so it may be somebody else's"))
        }
        _ if snapshot.location != location => Standing::Foreign(format!(
            "its tag says that it belongs to the backup in {}, which may need it",
            snapshot.location.escape_debug()
        )),
        Some(why) => Standing::Held(why.clone()),
        None => Standing::Free,
    }
}

/// What holds these snapshots: locks and images. The rights to ask that are optional: EC2 refuses at the deletion, too.
async fn holds(ec2: &Ec2, ids: &[String], events: &Events) -> Result<BTreeMap<String, String>, Error> {
    let mut held = BTreeMap::new();
    if ids.is_empty() {
        return Ok(held);
    }
    for asked in [ec2.images(ids).await, ec2.locks(ids).await] {
        match asked {
            Ok(found) => held.extend(found),
            Err(error @ Error::Forbidden { .. }) => {
                events.note(format!("what holds snapshots is not known beforehand: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(held)
}

/// Removes snapshots, or with `try_out` only asks EC2 whether it would. Answers for each in their order.
///
/// # Errors
/// What would be the same for each of them.
pub async fn remove(
    regions: &mut Regions,
    snapshots: &[Named],
    try_out: bool,
) -> Result<Vec<Result<(), Error>>, Error> {
    let mut calls = Vec::new();
    for one in snapshots {
        calls.push((regions.get(&one.region).await?, one.id.clone()));
    }
    let removed = stream::iter(calls).map(|(ec2, id)| async move {
        match try_out {
            true => ec2.may_delete_snapshot(&id).await,
            false => ec2.delete_snapshot(&id).await,
        }
    });
    Ok(removed.buffered(AT_ONCE).collect().await)
}

/// Which snapshots are nobody's.
#[derive(Clone, Copy, Debug)]
pub struct Nobodys<'a> {
    /// The uid of the cluster whose runs made them.
    pub cluster_uid: &'a str,
    /// Where their backups were to be, as their tag says it.
    pub location: &'a str,
    /// The backups that are there.
    pub backups: &'a BTreeSet<BackupId>,
    /// Ids whose deletion was begun.
    pub abandoned: &'a BTreeSet<BackupId>,
    /// The time: what is younger than a day may be a worker's that lives.
    pub now: Timestamp,
}

/// The snapshots of one region that are no backup's.
///
/// # Errors
/// EC2's.
pub async fn orphans(ec2: &Ec2, which: Nobodys<'_>) -> Result<Vec<Snapshot>, Error> {
    let before = which.now.checked_sub(GRACE).unwrap_or(Timestamp::MIN);
    let mut listed = ec2.snapshots(CLUSTER, which.cluster_uid).await?;
    listed.retain(|one| {
        let Ok(id) = BackupId::parse(&one.backup) else { return false };
        let nobodys = one.started_at < before || which.abandoned.contains(&id);
        one.location == which.location && one.state != State::Recoverable && !which.backups.contains(&id) && nobodys
    });
    Ok(listed)
}

/// What EC2 has of the snapshots of a backup, in the order of its volumes. `None`: it is gone.
///
/// # Errors
/// The first region's that can't be asked.
pub async fn states(regions: &mut Regions, copies: &[VolumeCopy]) -> Result<Vec<Option<Snapshot>>, Error> {
    let mut ids = BTreeMap::<&str, Vec<String>>::new();
    for copy in copies {
        ids.entry(&copy.snapshot.region).or_default().push(copy.snapshot.id.clone());
    }
    let mut found = BTreeMap::new();
    for (region, ids) in ids {
        let listed = regions.get(region).await?.snapshots_by_id(&ids).await?;
        found.extend(listed.into_iter().map(|snapshot| (snapshot.id.clone(), snapshot)));
    }
    Ok(copies.iter().map(|copy| found.get(&copy.snapshot.id).cloned()).collect())
}

/// Whether a volume can be made of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Soundness {
    /// It can.
    Sound,
    /// Not now: the rest of a sentence about it.
    Unsure(String),
    /// It can't: the rest of a sentence about it.
    Lost(String),
}

/// Judges a snapshot by what EC2 has of it: its state in a word, and whether it can be restored.
pub fn judge(copy: &VolumeCopy, found: Option<&Snapshot>, now: Timestamp) -> (String, Soundness) {
    let Some(found) = found else {
        let young =
            now.duration_since(copy.snapshot.started_at) < SignedDuration::try_from(APPEARS).unwrap_or_default();
        return match young {
            true => ("unlisted".to_owned(), Soundness::Unsure("is so new that EC2 doesn't list it yet".to_owned())),
            false => (
                "missing".to_owned(),
                Soundness::Lost(format!("is gone{}; perhaps the Recycle Bin has it", copy.snapshot.or_unshared())),
            ),
        };
    };
    let state = match (found.state, found.progress.as_str()) {
        (State::Pending, progress) if !progress.is_empty() => format!("pending {progress}"),
        (state, _) => state.to_string(),
    };
    let soundness = match found.state {
        State::Error if found.message.is_empty() => Soundness::Lost("ended in error".to_owned()),
        State::Error => Soundness::Lost(format!("ended in error: {}", found.message)),
        State::Recoverable => {
            let way = format!("aws ec2 restore-snapshot-from-recycle-bin --snapshot-id {}", found.id);
            Soundness::Lost(format!("lies in the Recycle Bin; `{way}` gets it back"))
        }
        _ if found.gib != 0 && found.gib != copy.source.gib => {
            let (is, was) = (found.gib, copy.source.gib);
            Soundness::Lost(format!("is of a volume of {is} GiB, and the backup's has {was} GiB"))
        }
        State::Pending => Soundness::Unsure(format!("is still {state}; it can be restored once it is completed")),
        State::Completed => Soundness::Sound,
    };
    (state, soundness)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_region_from_a_report_is_not_a_host() {
        for bad in ["", "evil.example/", "eu-central-1.evil", "EU", &"x".repeat(33)] {
            assert!(matches!(Regions::default().get(bad).await, Err(Error::Setting(_))), "{bad}");
        }
    }

    #[test]
    fn only_a_completed_snapshot_of_the_right_size_can_be_restored() {
        let now: Timestamp = "2026-11-20T11:00:00Z".parse().unwrap();
        let copy: VolumeCopy = serde_json::from_value(serde_json::json!({
            "namespace": "shop", "claim": "db", "volume": "pv", "method": "ebs-snapshot",
            "source": {"id": "vol-1", "type": "gp3", "gib": 4, "zone": "a"},
            "snapshot": {"id": "snap-1", "region": "r", "state": "completed", "startedAt": "2026-11-20T10:00:00Z"}
        }))
        .unwrap();
        let there = Snapshot { gib: 4, state: State::Completed, ..Snapshot::default() };
        let with = |state, progress: &str| Snapshot { state, progress: progress.to_owned(), ..there.clone() };
        let lost = |text: &str| Soundness::Lost(text.to_owned());
        assert_eq!(judge(&copy, Some(&there), now), ("completed".into(), Soundness::Sound));
        let (state, soundness) = judge(&copy, Some(&with(State::Pending, "37%")), now);
        assert!(state == "pending 37%" && matches!(soundness, Soundness::Unsure(_)), "{soundness:?}");
        assert_eq!(judge(&copy, Some(&with(State::Error, "")), now), ("error".into(), lost("ended in error")));
        let shrunk = Snapshot { gib: 3, ..there.clone() };
        for found in [Some(&shrunk), Some(&with(State::Recoverable, "")), None] {
            assert!(matches!(judge(&copy, found, now).1, Soundness::Lost(_)), "{found:?}");
        }
        let begun = copy.snapshot.started_at;
        assert!(matches!(judge(&copy, None, begun).1, Soundness::Unsure(_)), "EC2 lists new ones late");
    }

    #[test]
    fn tags_say_whose_a_snapshot_is() {
        let id = BackupId::parse("shop-1").unwrap();
        let of = |backup: &str, location: &str, held: Option<&str>| {
            let snapshot = Snapshot { backup: backup.into(), location: location.into(), ..Snapshot::default() };
            standing(&snapshot, &id, "s3://b/p", held.map(str::to_owned).as_ref())
        };
        assert_eq!(of("shop-1", "s3://b/p", None), Standing::Free);
        assert_eq!(of("shop-1", "s3://b/p", Some("it is locked")), Standing::Held("it is locked".into()));
        for (backup, location) in [("", "s3://b/p"), ("shop-2", "s3://b/p"), ("shop-1", "s3://b/q"), ("shop-1", "")] {
            assert!(matches!(of(backup, location, Some("x")), Standing::Foreign(_)), "{backup} {location}");
        }
    }
}
