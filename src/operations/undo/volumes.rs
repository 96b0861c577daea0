//! EBS volumes that a restore made, with the PersistentVolumes that stand for them: they go when their claim is named, and
//! are named otherwise.

use super::{Named, Part};
use crate::archive::besides::MadeVolume;
use crate::cluster::discover::Discovery;
use crate::cluster::object::State;
use crate::id::BackupId;
use crate::pipeline::undo::{Made, Removal, Undo};
use crate::report::one_line;
use crate::resource::{Kind, ObjectName};
use crate::volumes::life::{Named as Volume, Regions};
use crate::volumes::removal::{self, Standing};
use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Volumes looked at or removed at once.
const AT_ONCE: usize = 16;
/// How long a claim may take to go once it is deleted: as long as pods take to stop that are deleted with it.
pub(super) const CLAIM_GOES: Duration = Duration::from_secs(180);
/// How long a PersistentVolume may take after its claim.
const VOLUME_GOES: Duration = Duration::from_secs(120);
/// Claims named in a command.
const TOLD: usize = 10;
/// What EBS volumes are called where objects have their kind.
pub const EBS: &str = "ebs-volumes";

/// One of them.
struct One {
    made: MadeVolume,
    /// Whether its claim is there.
    has_claim: bool,
    /// Its PersistentVolume, where that is there.
    uid: Option<String>,
    volume: Removal,
    ebs: Removal,
}

/// Those that the undo is about.
pub(super) struct Volumes {
    restore: BackupId,
    claims: Kind,
    volumes: Kind,
    all: Vec<One>,
    notes: Vec<String>,
}

/// What a PersistentVolume's name stands for now.
enum Found {
    Nothing,
    Ours(String),
    Another,
}

fn volume(made: &MadeVolume) -> Volume {
    Volume { region: made.region.clone(), id: made.id.clone() }
}

fn pv(made: &MadeVolume) -> ObjectName {
    ObjectName::new(None, &made.volume)
}

/// Whether the arguments mean one of these: the volume, its claim, or a namespace that goes with all that is in it.
fn is_asked(made: &MadeVolume, named: &Named<'_>, goes: &impl Fn(&ObjectName) -> bool) -> bool {
    named.has("persistentvolumes", &made.volume)
        || named.has("persistentvolumeclaims", &made.claim.name)
        || (named.is_some() && goes(&made.claim))
}

/// Decides what becomes of them. `goes` says whether this undo removes a claim. Writes nothing.
pub(super) async fn decide(
    undo: &Undo<'_>,
    restore: &BackupId,
    recorded: Vec<MadeVolume>,
    named: &Named<'_>,
    goes: impl Fn(&ObjectName) -> bool,
    discovery: &Discovery,
) -> anyhow::Result<Volumes> {
    let kind =
        |key: &str| discovery.get(key).map(|served| served.kind.clone()).context("the API server serves no volumes");
    let (claims, volumes) = (kind("persistentvolumeclaims")?, kind("persistentvolumes")?);
    let about: Vec<MadeVolume> =
        recorded.into_iter().filter(|made| !named.is_some() || is_asked(made, named, &goes)).collect();
    let kinds = (&claims, &volumes);
    let looks = stream::iter(about.clone()).map(|made| async move {
        let has_claim = undo.cluster.get(kinds.0, &made.claim).await?.is_some();
        anyhow::Ok((has_claim, found(undo, kinds.1, &made).await?))
    });
    let looked: Vec<(bool, Found)> = looks.buffered(AT_ONCE).try_collect().await?;
    // EC2 is asked only where something depends on it
    let unknown = |(_, (_, found)): &(&MadeVolume, &(bool, Found))| named.is_some() || !matches!(found, Found::Ours(_));
    let asked: Vec<Volume> = about.iter().zip(&looked).filter(unknown).map(|(made, _)| volume(made)).collect();
    let (standing, notes) = match look(undo, restore, &asked).await {
        Ok(standing) => (standing, Vec::new()),
        Err(error) => (BTreeMap::new(), vec![format!("EC2 can't be asked for the volumes: {}", one_line(error))]),
    };
    let all = about.into_iter().zip(looked).map(|(made, (has_claim, found))| {
        let stands = standing.get(&made.id);
        let (volume, ebs) = match named.is_some() {
            true if has_claim && !goes(&made.claim) => {
                let why =
                    format!("the claim `{}` has it: name `persistentvolumeclaim/{}`", made.claim, made.claim.name);
                (Removal::Refused(why.clone()), Removal::Refused(why))
            }
            true => asked_for(&found, stands),
            false => spared(&found, stands),
        };
        let uid = if let Found::Ours(uid) = found { Some(uid) } else { None };
        One { made, has_claim, uid, volume, ebs }
    });
    Ok(Volumes { restore: restore.clone(), claims, volumes, all: all.collect(), notes })
}

/// What becomes of PersistentVolume and EBS volume that are to go.
fn asked_for(found: &Found, stands: Option<&Standing>) -> (Removal, Removal) {
    let volume = match found {
        Found::Nothing => Removal::Gone,
        Found::Ours(_) => Removal::Delete,
        Found::Another => Removal::Kept("it stands for another EBS volume by now".to_owned()),
    };
    let ebs = match stands {
        Some(Standing::Gone) => Removal::Gone,
        Some(Standing::Foreign(why)) => Removal::Refused(why.clone()),
        // where EC2 can't be asked now, it is asked again before anything goes
        Some(Standing::Ours) | None => Removal::Delete,
    };
    (volume, ebs)
}

/// What is said of those that stay.
fn spared(found: &Found, stands: Option<&Standing>) -> (Removal, Removal) {
    let kept = |what: &str| Removal::Kept(format!("its data would go along: it is removed when {what} is named"));
    match (found, stands) {
        (Found::Ours(_), _) => (kept("its claim"), kept("its claim")),
        (_, Some(Standing::Gone)) => (Removal::Gone, Removal::Gone),
        (_, Some(Standing::Foreign(why))) => (Removal::Gone, Removal::Kept(why.clone())),
        (_, Some(Standing::Ours) | None) => (Removal::Gone, kept("its PersistentVolume")),
    }
}

async fn found(undo: &Undo<'_>, kind: &Kind, made: &MadeVolume) -> anyhow::Result<Found> {
    let Some(json) = undo.cluster.get(kind, &pv(made)).await? else { return Ok(Found::Nothing) };
    let live: Value = serde_json::from_slice(&json).context("reading a PersistentVolume")?;
    let is_its = live.pointer("/spec/csi/volumeHandle").and_then(Value::as_str) == Some(&made.id);
    Ok(if is_its { Found::Ours(State::of(&live).uid) } else { Found::Another })
}

/// How EBS volumes stand, by id.
async fn look(
    undo: &Undo<'_>,
    restore: &BackupId,
    volumes: &[Volume],
) -> Result<BTreeMap<String, Standing>, crate::volumes::Error> {
    if volumes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut regions = Regions::of(undo.cluster).await?;
    let standing = removal::look(&mut regions, restore, volumes).await?;
    Ok(volumes.iter().map(|volume| volume.id.clone()).zip(standing).collect())
}

impl Volumes {
    /// Whether an argument means one of them.
    pub(super) fn are_meant(&self, arg: &Named<'_>) -> bool {
        let is_meant = |one: &One| {
            arg.has("persistentvolumes", &one.made.volume) || arg.has("persistentvolumeclaims", &one.made.claim.name)
        };
        self.all.iter().any(is_meant)
    }

    /// What is deleted.
    pub(super) fn deeds(&self) -> impl Iterator<Item = String> {
        self.all.iter().flat_map(|one| {
            let (made, uid) = (&one.made, one.uid.as_deref().unwrap_or_default());
            let volume = format!("delete {} {} {uid}", self.volumes, made.volume);
            let ebs = format!("delete {EBS} {}", made.id);
            [(&one.volume, volume), (&one.ebs, ebs)]
                .into_iter()
                .filter_map(|(removal, deed)| (*removal == Removal::Delete).then_some(deed))
        })
    }

    /// The plan in words.
    pub(super) fn planned(&self) -> Part {
        let mut part = Part { notes: self.notes.clone(), ..Part::default() };
        for one in &self.all {
            part.removal(&self.volumes.key(), &pv(&one.made), &one.volume);
            part.removal(EBS, &ObjectName::new(None, &one.made.id), &one.ebs);
        }
        part.notes.extend(self.spared());
        part
    }

    /// What stays, and the command that removes it.
    fn spared(&self) -> Option<String> {
        let stays: Vec<&One> = self.all.iter().filter(|one| matches!(one.ebs, Removal::Kept(_))).collect();
        let (volumes, gib) = (stays.len(), stays.iter().map(|one| one.made.gib).sum::<u64>());
        let name = |one: &&One| match one.has_claim {
            true => format!("persistentvolumeclaim/{}", one.made.claim.name),
            false => format!("persistentvolume/{}", one.made.volume),
        };
        let names: BTreeSet<String> = stays.iter().map(name).collect();
        let told = names.iter().take(TOLD).cloned().collect::<Vec<_>>().join(" ");
        let more = if names.len() > TOLD { " …" } else { "" };
        let (stay, them) = if volumes == 1 {
            ("EBS volume that the restore made stays", "it")
        } else {
            ("EBS volumes that the restore made stay", "them")
        };
        let restore = &self.restore;
        (volumes > 0).then(|| {
            format!(
                "{volumes} {stay}, with data ({gib} GiB): `kubectl backup undo {restore} {told}{more}` removes {them}"
            )
        })
    }

    /// Removes what is to go: when the claim is gone the PersistentVolume, and when that is gone and detached the volume.
    pub(super) async fn carry_out(self, undo: &Undo<'_>) -> Part {
        let mut part = Part { notes: self.spared().into_iter().collect(), ..Part::default() };
        let all = &self;
        let objects = stream::iter(0..self.all.len()).map(|at| all.remove_object(undo, &all.all[at])).buffered(AT_ONCE);
        let objects: Vec<Result<(), String>> = objects.collect().await;
        let pairs = || self.all.iter().zip(&objects);
        let chosen = pairs().filter(|(one, result)| one.ebs == Removal::Delete && result.is_ok());
        let mut removed = self.remove_ebs(undo, chosen.map(|(one, _)| volume(&one.made)).collect()).await;
        for (one, result) in pairs() {
            let (name, ebs) = (pv(&one.made), ObjectName::new(None, &one.made.id));
            part.removed(&self.volumes.key(), &name, &one.volume, result.clone().err());
            let failed = match result {
                Ok(()) => removed.remove(&one.made.id).and_then(Result::err),
                Err(_) => Some(format!("its PersistentVolume `{}` is still there", one.made.volume)),
            };
            part.removed(EBS, &ebs, &one.ebs, failed);
        }
        part
    }

    async fn remove_object(&self, undo: &Undo<'_>, one: &One) -> Result<(), String> {
        if [&one.volume, &one.ebs].iter().all(|removal| **removal != Removal::Delete) {
            return Ok(());
        }
        undo.gone(&self.claims, &one.made.claim, None, CLAIM_GOES).await?;
        if let (Removal::Delete, Some(uid)) = (&one.volume, &one.uid) {
            let made = Made { kind: self.volumes.clone(), name: pv(&one.made), uid: uid.clone(), named: true };
            undo.delete(&made).await?;
            undo.gone(&self.volumes, &made.name, Some(uid), VOLUME_GOES).await?;
        }
        Ok(())
    }

    /// Removes EBS volumes, each once it is detached, and only after EC2 said once more whose they are.
    async fn remove_ebs(&self, undo: &Undo<'_>, volumes: Vec<Volume>) -> BTreeMap<String, Result<(), String>> {
        let failed = |error: crate::volumes::Error| {
            let why = one_line(error);
            volumes.iter().map(|volume| (volume.id.clone(), Err(why.clone()))).collect()
        };
        if volumes.is_empty() {
            return BTreeMap::new();
        }
        let mut regions = match Regions::of(undo.cluster).await {
            Ok(regions) => regions,
            Err(error) => return failed(error),
        };
        let standing = match removal::look(&mut regions, &self.restore, &volumes).await {
            Ok(standing) => standing,
            Err(error) => return failed(error),
        };
        let mut removals = Vec::new();
        for (volume, standing) in volumes.iter().zip(standing) {
            removals.push((volume.id.clone(), standing, regions.get(&volume.region).await));
        }
        let removals = stream::iter(removals).map(|(id, standing, ec2)| async move {
            let removed = match (standing, ec2) {
                (Standing::Gone, _) => Ok(()),
                (Standing::Foreign(why), _) => Err(why),
                (Standing::Ours, Ok(ec2)) => removal::remove(&ec2, &id, undo.events).await.map_err(one_line),
                (Standing::Ours, Err(error)) => Err(one_line(error)),
            };
            (id, removed)
        });
        removals.buffer_unordered(AT_ONCE).collect().await
    }
}
