//! Volumes from snapshots, before the first object of a restore is written: either all that were planned are there and
//! ready, or none is left and the restore ends. Which snapshots can't be used is known when it is planned ([`examine`]).
//! Those of other claims the CSI driver makes ([`super::import`]).
//!
//! A volume takes nothing but data and encryption from its snapshot, so all else is said again. Its tags are those by which
//! the CSI driver's IAM policies know its own: without them a volume binds and is never attached.

use super::ask::{NewVolume, VALUES, VolumeState};
use super::record::{EbsVolume, VolumeCopy};
use super::{Ec2, Error};
use crate::id::{BackupId, Digest};
use crate::report::Events;
use crate::rules::marks::{ID, MANAGED};
use crate::rules::volumes::import::Import;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

mod examine;

pub use examine::{Examined, examine, examine_with};

/// Volumes that are made at once.
const AT_ONCE: usize = 16;
/// How long new volumes may take until they can be attached: EC2 needs seconds.
const READY: Duration = Duration::from_secs(300);
/// How long a volume may be unknown after it was made.
const APPEARS: Duration = Duration::from_secs(60);
/// Between two looks at new volumes.
const POLL: Duration = Duration::from_secs(2);
/// How long EC2 may take until it lists a volume whose making wasn't confirmed.
const LISTS: Duration = Duration::from_secs(5);
/// How long a volume may take until it can be removed, and between two tries.
const REMOVING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));
/// The restore that made a volume.
pub const RESTORE: &str = "kubectl-backup/restore";
/// The PersistentVolume, as the CSI driver notes it.
const NAME: &str = "CSIVolumeName";

/// Which volumes a restore makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Data {
    /// All that can be made; the claims of others wait.
    #[default]
    Restore,
    /// All, or nothing is restored.
    All,
    /// None.
    Skip,
}

/// What may differ from the volumes that were saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    /// Which volumes are made.
    pub data: Data,
    /// Where volumes of a zone go.
    pub map_zone: BTreeMap<String, String>,
    /// Another type.
    pub volume_type: Option<String>,
    /// Other operations a second.
    pub iops: Option<u32>,
    /// Another key.
    pub kms_key: Option<String>,
    /// Whether the CSI driver is kept from making any: all are made here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_import: bool,
}

impl Options {
    /// The flag that no CSI driver could follow, where there is one.
    pub fn keeps_from_import(&self) -> Option<&'static str> {
        let given = [
            (self.no_import, "`--import-snapshots=false` is given"),
            (self.volume_type.is_some(), "`--volume-type` is given"),
            (self.iops.is_some(), "`--iops` is given"),
            (self.kms_key.is_some(), "`--kms-key` is given"),
            (!self.map_zone.is_empty(), "`--map-zone` is given"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, flag)| flag)
    }

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
    /// The zone to make it in; empty until that is known.
    pub zone: String,
    /// Who makes it.
    pub way: Way,
}

/// Who makes the volume of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The restore, for this reason.
    Made(String),
    /// The CSI driver, of a snapshot that is imported as a VolumeSnapshot.
    Filled(Import),
}

impl Wish {
    /// What is told of it before it happens.
    pub fn note(&self, options: &Options) -> String {
        let (copy, volume) = (&self.copy, options.applied(&self.copy.source));
        let why = match &self.way {
            Way::Filled(import) => {
                return format!(
                    "`persistentvolumeclaims` `{}/{}`: `{}` makes a volume of at least {} GiB as storage class `{}` says, from \
                     snapshot `{}` of {}, which is imported",
                    self.namespace,
                    copy.claim,
                    import.driver,
                    volume.gib,
                    import.class,
                    copy.snapshot.id,
                    copy.snapshot.started_at
                );
            }
            Way::Made(why) => why,
        };
        let zone = if self.zone.is_empty() { String::new() } else { format!(" in `{}`", self.zone) };
        format!(
            "`persistentvolumeclaims` `{}/{}`: a new {} volume of {} GiB is made{zone} from snapshot `{}` of {} (not imported: \
             {why})",
            self.namespace, copy.claim, volume.kind, volume.gib, copy.snapshot.id, copy.snapshot.started_at
        )
    }

    /// What tells it from another volume for the same claim.
    pub fn digest(&self) -> Digest {
        let told = match &self.way {
            Way::Made(_) => serde_json::json!([self.copy, self.zone]),
            Way::Filled(import) => serde_json::json!([self.copy, import.driver, import.class, import.mode]),
        };
        Digest::of(told.to_string().as_bytes())
    }
}

/// A volume that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// For what, and where.
    pub wish: Wish,
    /// `vol-…`.
    pub id: String,
}

/// What making volumes needs.
pub struct Request<'a> {
    /// The restore.
    pub id: &'a BackupId,
    /// The backup, and the cluster it is of.
    pub backup: (&'a BackupId, &'a str),
    /// The uid of the target.
    pub cluster_uid: &'a str,
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

/// Makes volumes, and waits until they can be attached, unless it is cancelled. After an error none is left.
///
/// # Errors
/// The first that went wrong, or [`Error::Cancelled`].
pub async fn make(
    ec2: Ec2,
    request: &Request<'_>,
    wishes: Vec<Wish>,
    cancelled: impl Future<Output = ()>,
) -> Result<Volumes, Error> {
    let (bound, wishes) = earlier(&ec2, request, wishes).await?;
    let mut made = Vec::new();
    let all = async {
        make_all(&ec2, request, &wishes, &mut made).await?;
        wait(&ec2, &made).await
    };
    let ready = tokio::select! {
        biased;
        result = all => result,
        () = cancelled => Err(Error::Cancelled),
    };
    if let Err(error) = ready {
        take_back(&ec2, request, &wishes, made, &error).await;
        return Err(error);
    }
    made.iter().for_each(|one| {
        let Wish { zone, copy, .. } = &one.wish;
        request.events.note(format!("volume `{}` in `{zone}` is made of `{}`", one.id, copy.snapshot.id));
    });
    made.extend(bound);
    Ok(Volumes { ec2, made })
}

async fn make_all(ec2: &Ec2, request: &Request<'_>, wishes: &[Wish], made: &mut Vec<Made>) -> Result<(), Error> {
    let making = stream::iter(wishes.to_vec()).map(|wish| async move {
        let id = make_one(ec2, request, &wish).await;
        id.map(|id| Made { wish, id })
    });
    let mut making = std::pin::pin!(making.buffer_unordered(AT_ONCE));
    let mut failed = None;
    while let Some(result) = making.next().await {
        match result {
            Ok(one) => made.push(one),
            // what is in flight is waited for, so that nothing appears behind our back
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Removes what was made, as far as that is known, and what may have been made without an answer.
async fn take_back(ec2: &Ec2, request: &Request<'_>, wishes: &[Wish], made: Vec<Made>, error: &Error) {
    let mut ids: Vec<String> = made.into_iter().map(|one| one.id).collect();
    if matches!(error, Error::Cancelled | Error::Unavailable { unsure: true, .. }) {
        sleep(LISTS).await;
        let names: Vec<String> = wishes.iter().map(|wish| wish.volume.clone()).collect();
        for names in names.chunks(VALUES) {
            match ec2.volumes_tagged(&[(RESTORE, &[request.id.to_string()]), (NAME, names)]).await {
                Ok(found) => ids.extend(found.into_iter().map(|volume| volume.id)),
                Err(error) => {
                    tracing::warn!(%error, "volumes of this restore may be left, tagged `{RESTORE}={}`", request.id);
                }
            }
        }
    }
    ids.sort();
    ids.dedup();
    remove(ec2, &ids, request.events).await;
}

/// Sets aside what an earlier try of this restore has made and given a PersistentVolume already.
async fn earlier(ec2: &Ec2, request: &Request<'_>, wishes: Vec<Wish>) -> Result<(Vec<Made>, Vec<Wish>), Error> {
    if wishes.iter().all(|wish| wish.there.is_none()) {
        return Ok((Vec::new(), wishes));
    }
    let ours = ec2.volumes_tagged(&[(RESTORE, &[request.id.to_string()])]).await?;
    let (mut made, mut open) = (Vec::new(), Vec::new());
    for mut wish in wishes {
        match ours.iter().find(|volume| wish.there.as_deref() == Some(&volume.id)) {
            Some(volume) => {
                wish.volume.clone_from(&wish.copy.volume);
                wish.zone.clone_from(&volume.zone);
                made.push(Made { wish, id: volume.id.clone() });
            }
            None => open.push(wish),
        }
    }
    Ok((made, open))
}

async fn make_one(ec2: &Ec2, request: &Request<'_>, wish: &Wish) -> Result<String, Error> {
    let copy = &wish.copy;
    let like = request.options.applied(&copy.source);
    let tags = tags(request, wish);
    // the same for every try of this restore, and for no other
    let token = Digest::of(format!("{} {}/{}", request.id, wish.namespace, copy.claim).as_bytes()).to_string();
    let token: String = token.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let new = NewVolume { snapshot: &copy.snapshot.id, like: &like, zone: &wish.zone, tags: &tags, token: &token };
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
        (ID, backup.as_str()),
        (super::snapshot::CLUSTER, request.cluster_uid),
        (MANAGED, "true"),
        (RESTORE, request.id.as_str()),
        ("ebs.csi.aws.com/cluster", "true"),
        (NAME, &wish.volume),
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

async fn remove(ec2: &Ec2, ids: &[String], events: &Events) {
    for id in ids {
        match remove_one(ec2, id).await {
            Ok(()) => events.note(format!("volume `{id}` is removed again")),
            Err(error) => tracing::warn!(%error, volume = id, "a volume that nothing uses is left"),
        }
    }
}

/// Removes a volume; one that is still being made can't be removed yet.
async fn remove_one(ec2: &Ec2, id: &str) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match ec2.delete_volume(id).await {
            Err(error) if error.code() == Some("IncorrectState") && begun.elapsed() < REMOVING.0 => {
                sleep(REMOVING.1).await;
            }
            other => return other,
        }
    }
}

impl Volumes {
    /// The region they are in.
    pub fn region(&self) -> &str {
        self.ec2.region()
    }

    /// Removes the volumes for which no PersistentVolume was written.
    pub async fn remove_unused(&self, is_used: impl Fn(&Made) -> bool, events: &Events) {
        let unused: Vec<String> = self.made.iter().filter(|one| !is_used(one)).map(|one| one.id.clone()).collect();
        remove(&self.ec2, &unused, events).await;
    }
}
