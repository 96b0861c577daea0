//! Before a restore: which snapshots can be used, and where the volumes made of them go. Writes nothing.

use super::super::record::{Snapshot, State, VolumeCopy};
use super::super::{Ec2, Error, Place};
use super::{Options, Way, Wish};
use crate::cluster::Cluster;
use crate::id::BackupId;
use crate::rules::marks::ID;
use crate::rules::volumes::{Zone, zone_for};
use std::collections::BTreeSet;

/// What a restore can make of saved volumes.
#[derive(Debug)]
pub struct Examined {
    /// The client for it.
    pub ec2: Ec2,
    /// The volumes that can be made, each with its zone; that of others is up to the CSI driver.
    pub wishes: Vec<Wish>,
    /// Those that can't, with the reason.
    pub unusable: Vec<(Wish, String)>,
    /// What is worth a word.
    pub notes: BTreeSet<String>,
}

/// Asks the nodes for their zones and EC2 for the snapshots of a backup.
///
/// # Errors
/// What concerns all volumes: no credentials, no right to look, a zone that was asked for and has no nodes.
pub async fn examine(
    cluster: &Cluster,
    backup: &BackupId,
    options: &Options,
    wishes: Vec<Wish>,
) -> Result<Examined, Error> {
    let place = Place::of(cluster).await?;
    let ec2 = place.ec2().await?;
    examine_with(ec2, &place, backup, options, wishes).await
}

/// The same with a client that is there already.
///
/// # Errors
/// The same.
pub async fn examine_with(
    ec2: Ec2,
    place: &Place,
    backup: &BackupId,
    options: &Options,
    wishes: Vec<Wish>,
) -> Result<Examined, Error> {
    let snapshots = snapshots(&ec2, backup, &wishes).await?;
    let is_made = |wish: &Wish| matches!(wish.way, Way::Made(_));
    let zones = if wishes.iter().any(is_made) { zones(&ec2, place).await? } else { Vec::new() };
    let (mut usable, mut unusable, mut notes) = (Vec::new(), Vec::new(), BTreeSet::new());
    for mut wish in wishes {
        if let Some(why) = why_not(&wish.copy, ec2.region(), &snapshots) {
            unusable.push((wish, why));
            continue;
        }
        if !is_made(&wish) {
            usable.push(wish);
            continue;
        }
        let source = Zone { name: wish.copy.source.zone.clone(), id: wish.copy.source.zone_id.clone() };
        let (zone, note) = zone_for(&source, &zones, &options.map_zone).map_err(Error::Setting)?;
        wish.zone = zone;
        notes.extend(note);
        usable.push(wish);
    }
    Ok(Examined { ec2, wishes: usable, unusable, notes })
}

/// The snapshots of a backup, as EC2 has them now: by its tag in one list, and by id where that lacks some, as it does of
/// copies, which have other tags.
async fn snapshots(ec2: &Ec2, backup: &BackupId, wishes: &[Wish]) -> Result<Vec<Snapshot>, Error> {
    let mut found = ec2.snapshots(ID, backup.as_str()).await?;
    let here = wishes.iter().map(|wish| &wish.copy.snapshot).filter(|one| one.region == ec2.region());
    let missing = here.filter(|one| !found.iter().any(|found| found.id == one.id)).map(|one| one.id.clone());
    let missing: Vec<String> = missing.collect();
    found.extend(ec2.snapshots_by_id(&missing).await?);
    Ok(found)
}

/// Why no volume can be made of a snapshot, in words.
fn why_not(copy: &VolumeCopy, region: &str, snapshots: &[Snapshot]) -> Option<String> {
    let (id, of) = (&copy.snapshot.id, &copy.snapshot.region);
    if of != region {
        return Some(format!(
            "its snapshot `{id}` is in region `{of}`, and the cluster in `{region}`; `kubectl backup copy --copy-to-region {region}` takes it there"
        ));
    }
    let Some(found) = snapshots.iter().find(|found| found.id == *id) else {
        let or = copy.snapshot.or_unshared();
        return Some(format!("its snapshot `{id}` is not in EC2 any more: somebody has removed it{or}"));
    };
    match found.state {
        State::Completed => None,
        State::Pending => {
            let progress = if found.progress.is_empty() { "0%" } else { &found.progress };
            Some(format!("its snapshot `{id}` is still pending ({progress})"))
        }
        State::Error => Some(format!("its snapshot `{id}` ended in error, and holds nothing")),
        State::Recoverable => Some(format!(
            "its snapshot `{id}` lies in the Recycle Bin; `aws ec2 restore-snapshot-from-recycle-bin` brings it back"
        )),
    }
}

/// The zones with nodes, each with its id.
async fn zones(ec2: &Ec2, place: &Place) -> Result<Vec<Zone>, Error> {
    let mut zones: Vec<Zone> = place.zones.iter().cloned().collect();
    if zones.iter().any(|zone| zone.id.is_empty()) {
        let known = ec2.zones().await?;
        for zone in &mut zones {
            if let Some(known) = known.iter().find(|known| known.name == zone.name) {
                zone.id.clone_from(&known.id);
            }
        }
    }
    zones.dedup();
    Ok(zones)
}
