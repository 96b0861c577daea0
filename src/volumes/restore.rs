//! Volumes from snapshots, before the first object of a restore is written: either all of them are there and ready, or
//! none is left and the restore ends.
//!
//! A volume takes nothing but data and encryption from its snapshot, so all else is said again. Its tags are those by which
//! the CSI driver's IAM policies know its own: without them a volume binds and is never attached.

use super::ask::{NewVolume, VolumeState};
use super::record::{EbsVolume, State, VolumeCopy};
use super::{Ec2, Error, Place};
use crate::cluster::Cluster;
use crate::id::{BackupId, Digest};
use crate::report::Events;
use crate::rules::volumes::{Zone, zone_for};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Volumes that are made at once.
const AT_ONCE: usize = 16;
/// How long new volumes may take until they can be attached: EC2 needs seconds.
const READY: Duration = Duration::from_secs(300);
/// How long a volume may be unknown after it was made.
const APPEARS: Duration = Duration::from_secs(60);
/// Between two looks at new volumes.
const POLL: Duration = Duration::from_secs(2);
/// The restore that made a volume.
pub const RESTORE: &str = "kubectl-backup/restore";

/// What may differ from the volumes that were saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// Make no volumes.
    pub skip: bool,
    /// Where volumes of a zone go.
    pub map_zone: BTreeMap<String, String>,
    /// Another type.
    pub volume_type: Option<String>,
    /// Other operations a second.
    pub iops: Option<u32>,
    /// Another key.
    pub kms_key: Option<String>,
}

impl Options {
    /// The volume to make instead of one that was saved.
    fn applied(&self, source: &EbsVolume) -> EbsVolume {
        let mut volume = source.clone();
        if let Some(kind) = &self.volume_type
            && *kind != source.kind
        {
            volume.kind.clone_from(kind);
            // what one type has another refuses, or calls too little
            volume.throughput = None;
            volume.iops = matches!(kind.as_str(), "io1" | "io2").then(|| source.iops.unwrap_or(3000));
            volume.multi_attach &= matches!(kind.as_str(), "io1" | "io2");
        }
        volume.iops = self.iops.or(volume.iops);
        volume.kms_key_id = self.kms_key.clone().or(volume.kms_key_id);
        volume
    }
}

/// A volume that a restore needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What was saved.
    pub copy: VolumeCopy,
    /// The claim's namespace in the target.
    pub namespace: String,
    /// The PersistentVolume that will stand for it.
    pub volume: String,
    /// The EBS volume of the one that has the saved name in the target, where there is one.
    pub there: Option<String>,
}

impl Wish {
    /// What is told of it before it happens.
    pub fn note(&self, options: &Options) -> String {
        let (copy, volume) = (&self.copy, options.applied(&self.copy.source));
        format!(
            "`persistentvolumeclaims` `{}/{}`: a new {} volume of {} GiB is made from snapshot `{}` of {}",
            self.namespace, copy.claim, volume.kind, volume.gib, copy.snapshot.id, copy.snapshot.started_at
        )
    }
}

/// A volume that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// For what.
    pub wish: Wish,
    /// `vol-…`.
    pub id: String,
    /// Where it is.
    pub zone: String,
}

/// What making volumes needs.
pub struct Request<'a> {
    /// The restore.
    pub id: &'a BackupId,
    /// The backup, and the cluster it is of.
    pub backup: (&'a BackupId, &'a str),
    /// The uid of the target.
    pub cluster_uid: &'a str,
    /// The target.
    pub cluster: &'a Cluster,
    /// What may differ.
    pub options: &'a Options,
    /// Where to tell what happens.
    pub events: &'a Events,
}

/// Volumes that were made, until their PersistentVolumes are written.
#[derive(Debug)]
pub struct Volumes {
    ec2: Ec2,
    /// What was made.
    pub made: Vec<Made>,
}

/// Makes volumes, and waits until they can be attached. After an error none is left.
///
/// # Errors
/// The first that went wrong.
pub async fn make(request: &Request<'_>, wishes: Vec<Wish>) -> Result<Volumes, Error> {
    let place = Place::of(request.cluster).await?;
    let ec2 = place.ec2().await?;
    make_with(ec2, &place, request, wishes).await
}

/// The same with a client that is there already.
///
/// # Errors
/// The first that went wrong.
pub async fn make_with(ec2: Ec2, place: &Place, request: &Request<'_>, wishes: Vec<Wish>) -> Result<Volumes, Error> {
    let (bound, wishes) = earlier(&ec2, request, wishes).await?;
    check(&ec2, request, &wishes).await?;
    let zones = zones(&ec2, place).await?;
    let mut zoned = Vec::new();
    for wish in wishes {
        let source = Zone { name: wish.copy.source.zone.clone(), id: wish.copy.source.zone_id.clone() };
        let (zone, note) = zone_for(&source, &zones, &request.options.map_zone).map_err(Error::Setting)?;
        note.into_iter().for_each(|note| request.events.note(note));
        zoned.push((wish, zone));
    }
    let ec2 = &ec2;
    let making = stream::iter(zoned).map(|(wish, zone)| async move {
        let id = make_one(ec2, request, &wish, &zone).await;
        id.map(|id| Made { wish, id, zone })
    });
    let results: Vec<Result<Made, Error>> = making.buffer_unordered(AT_ONCE).collect().await;
    let (mut made, mut failed) = (Vec::new(), None);
    for result in results {
        match result {
            Ok(one) => made.push(one),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let ready = match failed {
        Some(error) => Err(error),
        None => wait(ec2, &made).await,
    };
    if let Err(error) = ready {
        remove(ec2, made.iter(), request.events).await;
        return Err(error);
    }
    made.iter().for_each(|one| {
        request.events.note(format!("volume `{}` in `{}` is made of `{}`", one.id, one.zone, one.wish.copy.snapshot.id))
    });
    made.extend(bound);
    Ok(Volumes { ec2: ec2.clone(), made })
}

/// Sets aside what an earlier try of this restore has made and given a PersistentVolume already.
async fn earlier(ec2: &Ec2, request: &Request<'_>, wishes: Vec<Wish>) -> Result<(Vec<Made>, Vec<Wish>), Error> {
    if wishes.iter().all(|wish| wish.there.is_none()) {
        return Ok((Vec::new(), wishes));
    }
    let ours = ec2.volumes_tagged(RESTORE, request.id.as_str()).await?;
    let (mut made, mut open) = (Vec::new(), Vec::new());
    for mut wish in wishes {
        match ours.iter().find(|volume| wish.there.as_deref() == Some(&volume.id)) {
            Some(volume) => {
                wish.volume.clone_from(&wish.copy.volume);
                made.push(Made { wish, id: volume.id.clone(), zone: volume.zone.clone() });
            }
            None => open.push(wish),
        }
    }
    Ok((made, open))
}

/// Whether the snapshots can be used at all.
async fn check(ec2: &Ec2, request: &Request<'_>, wishes: &[Wish]) -> Result<(), Error> {
    let listed = ec2.snapshots(super::snapshot::ID, request.backup.0.as_str()).await?;
    for Wish { copy, .. } in wishes {
        let (id, region) = (&copy.snapshot.id, &copy.snapshot.region);
        let claim = format!("{}/{}", copy.namespace, copy.claim);
        if region != ec2.region() {
            return Err(Error::Setting(format!(
                "the snapshot `{id}` of claim `{claim}` is in region `{region}`, and the cluster in `{}`\nhint: copy it with \
                 `aws ec2 copy-snapshot`, or leave volumes out with `--volumes=skip`",
                ec2.region()
            )));
        }
        let state = listed.iter().find(|listed| listed.id == *id).map(|listed| (listed.state, &listed.progress));
        let why = match state {
            Some((State::Pending, progress)) => {
                format!("is still pending ({progress})\nhint: wait until EC2 says `completed`")
            }
            Some((State::Error, _)) => {
                "ended in error, and holds nothing\nhint: `--volumes=skip` leaves volumes out".to_owned()
            }
            Some((State::Recoverable, _)) => {
                "lies in the Recycle Bin\nhint: aws ec2 restore-snapshot-from-recycle-bin".to_owned()
            }
            // one that was copied has other tags; CreateVolume tells if it isn't there
            Some((State::Completed, _)) | None => continue,
        };
        return Err(Error::Setting(format!("the snapshot `{id}` of claim `{claim}` {why}")));
    }
    Ok(())
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

async fn make_one(ec2: &Ec2, request: &Request<'_>, wish: &Wish, zone: &str) -> Result<String, Error> {
    let copy = &wish.copy;
    let like = request.options.applied(&copy.source);
    let tags = tags(request, wish);
    // the same for every try of this restore, and for no other
    let token = Digest::of(format!("{} {}/{}", request.id, wish.namespace, copy.claim).as_bytes()).to_string();
    let token: String = token.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let new = NewVolume { snapshot: &copy.snapshot.id, like: &like, zone, tags: &tags, token: &token };
    ec2.create_volume(&new).await
}

fn tags(request: &Request<'_>, wish: &Wish) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    let (backup, of_cluster) = request.backup;
    if of_cluster == request.cluster_uid {
        tags.extend(wish.copy.source.driver_tags.clone());
    }
    let claim = &wish.copy.claim;
    let known = [
        (super::snapshot::ID, backup.as_str()),
        (super::snapshot::CLUSTER, request.cluster_uid),
        (super::snapshot::MANAGED, "true"),
        (RESTORE, request.id.as_str()),
        ("ebs.csi.aws.com/cluster", "true"),
        ("CSIVolumeName", &wish.volume),
        ("kubernetes.io/created-for/pv/name", &wish.volume),
        ("kubernetes.io/created-for/pvc/name", claim),
        ("kubernetes.io/created-for/pvc/namespace", &wish.namespace),
    ];
    tags.extend(known.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    tags
}

/// Waits until all can be attached.
async fn wait(ec2: &Ec2, made: &[Made]) -> Result<(), Error> {
    let ids: Vec<String> = made.iter().map(|one| one.id.clone()).collect();
    let begun = Instant::now();
    loop {
        let found: BTreeMap<String, VolumeState> =
            ec2.volumes(&ids).await?.into_iter().map(|(volume, state)| (volume.id, state)).collect();
        let mut waiting = None;
        for id in &ids {
            match found.get(id) {
                Some(VolumeState::Ready) => (),
                // EC2 makes the volume first and asks for the key later
                None if begun.elapsed() > APPEARS => {
                    let why = "it vanished after it was made\nhint: the role may lack rights for its KMS key: kms:CreateGrant, \
                               kms:Decrypt, kms:GenerateDataKeyWithoutPlaintext";
                    return Err(Error::Setting(format!("volume `{id}`: {why}")));
                }
                Some(VolumeState::Error) => {
                    return Err(Error::Setting(format!(
                        "volume `{id}` ended in error\nhint: its KMS key may not be usable"
                    )));
                }
                Some(VolumeState::Creating) | None => waiting = Some(id),
            }
        }
        let Some(id) = waiting else { return Ok(()) };
        if begun.elapsed() > READY {
            return Err(Error::Setting(format!("volume `{id}` is not available after {} s", READY.as_secs())));
        }
        sleep(POLL).await;
    }
}

async fn remove<'a>(ec2: &Ec2, made: impl Iterator<Item = &'a Made>, events: &Events) {
    for one in made {
        match ec2.delete_volume(&one.id).await {
            Ok(()) => events.note(format!("volume `{}` is removed again", one.id)),
            Err(error) => tracing::warn!(%error, volume = one.id, "a volume that nothing uses is left"),
        }
    }
}

impl Volumes {
    /// Removes the volumes for which no PersistentVolume was written.
    pub async fn remove_unused(&self, is_used: impl Fn(&Made) -> bool, events: &Events) {
        remove(&self.ec2, self.made.iter().filter(|one| !is_used(one)), events).await;
    }
}
