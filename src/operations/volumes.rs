//! What backups and restores do about volumes at their ends.

use super::Context;
use super::backup::Standing;
use super::restore::{DryRun, RestoreTask};
use crate::archive::manifest::{BACKUPS, Manifest, id_of_key};
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::cluster::object::Created;
use crate::id::{BackupId, Digest};
use crate::pipeline::Error;
use crate::pipeline::adapt::Adaptation;
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::Plan;
use crate::report::{Events, Problem, one_line};
use crate::resource::{Kind, ObjectName};
use crate::rules::verdict::{Skip, Verdict};
use crate::rules::volumes::restored::{self, NewVolume, Restored};
use crate::store::Store;
use crate::volumes::Ec2;
use crate::volumes::record::VolumeCopy;
use crate::volumes::restore::{self, Data, Wish};
use crate::volumes::snapshot::Snapshots;
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Characters that the value of a tag in AWS may have.
const TAG_VALUE: usize = 256;
/// How long removing what a failed run has made may take; the worker cleans up for 40 s at most.
pub(super) const CLEANING: Duration = Duration::from_secs(20);

/// After a backup: snapshots that no backup names go.
pub(super) async fn settle(
    result: &anyhow::Result<Standing>,
    snapshots: &Snapshots<'_>,
    store: &dyn Store,
    now: Timestamp,
) {
    let ids = |copies: Vec<VolumeCopy>| copies.into_iter().map(|copy| copy.snapshot.id).collect::<BTreeSet<_>>();
    let settling = async {
        match result {
            Ok(standing) if standing.ours => {
                snapshots.remove_extras(&ids(snapshots.ended().copies)).await;
                match store.list(BACKUPS).await {
                    Ok(listed) => {
                        let backups = listed.iter().filter_map(|object| id_of_key(&object.key)).collect();
                        snapshots.sweep(&backups, now).await;
                    }
                    Err(error) => tracing::warn!(%error, "snapshots of runs that were killed may be left"),
                }
            }
            Ok(standing) => match copies(store, &standing.manifest).await {
                Ok(copies) => snapshots.remove_extras(&ids(copies)).await,
                Err(error) => tracing::warn!("snapshots that no backup names may be left: {error:#}"),
            },
            // the backup may stand, and need them
            Err(error) if matches!(error.downcast_ref::<Error>(), Some(Error::Unsure { .. })) => (),
            Err(_) => snapshots.discard().await,
        }
    };
    if tokio::time::timeout(CLEANING, settling).await.is_err() {
        tracing::warn!("snapshots of this run may be left: removing them took too long");
    }
}

/// What the tag of snapshots says of a location.
pub(super) fn tag_of(store: &dyn Store) -> String {
    store.describe().chars().take(TAG_VALUE).collect()
}

/// The saved volumes of a backup.
///
/// # Errors
/// The bucket's, and a report that isn't the one that the manifest names.
pub(super) async fn copies(store: &dyn Store, manifest: &Manifest) -> anyhow::Result<Vec<VolumeCopy>> {
    if manifest.counts.volumes == 0 {
        return Ok(Vec::new());
    }
    Ok(super::read::report(store, manifest).await?.volumes)
}

/// Where a restore makes volumes.
pub(super) struct Target<'a> {
    pub(super) cluster: &'a Cluster,
    /// What it serves.
    pub(super) discovery: &'a Discovery,
    /// What tells it from others.
    pub(super) uid: &'a str,
}

impl Target<'_> {
    /// The kind of PersistentVolumes.
    fn volumes(&self) -> anyhow::Result<&Kind> {
        let served = self.discovery.get("persistentvolumes").context("the API server serves no PersistentVolumes")?;
        Ok(&served.kind)
    }
}

/// The volumes that a restore has to make.
pub(super) struct Wishes<'a> {
    id: &'a BackupId,
    options: &'a restore::Options,
    ec2: Option<Ec2>,
    wishes: Vec<Wish>,
    /// Those that can't be made: the claim waits for a volume of this name.
    unusable: Vec<Wish>,
    /// Why they can't.
    pub(super) problems: Vec<Problem>,
    /// What a person should see of it beforehand.
    pub(super) notes: Vec<String>,
}

/// New volumes, and who refers to them.
pub(super) struct NewVolumes {
    /// For the objects on their way.
    pub(super) new: Restored,
    volumes: Option<restore::Volumes>,
}

impl<'a> Wishes<'a> {
    /// Finds the claims that are to be created and whose data was saved.
    pub(super) async fn find(
        task: &'a RestoreTask,
        backup: &Backup,
        plan: &Plan,
        id: &'a BackupId,
        store: &dyn Store,
    ) -> anyhow::Result<Self> {
        let options = &task.volumes;
        let copies = if options.data == Data::Skip { Vec::new() } else { copies(store, &backup.manifest).await? };
        let entries = backup.index.entries();
        let created = plan.items.iter().filter(|item| item.verdict == Verdict::Create);
        let created: BTreeSet<(String, ObjectName)> = created
            .map(|item| {
                let entry = &entries[item.entry as usize];
                (backup.index.frame(entry).kind.key(), backup.index.object_name(entry))
            })
            .filter(|(kind, _)| kind.starts_with("persistentvolume"))
            .collect();
        let is_created = |kind: &str, name: ObjectName| created.contains(&(kind.to_owned(), name));
        let mut wishes = Vec::new();
        for copy in copies {
            if !is_created("persistentvolumeclaims", ObjectName::new(Some(&copy.namespace), &copy.claim)) {
                continue;
            }
            let namespace = plan.adaptation.mapping().target(&copy.namespace).to_owned();
            // a volume of that name is there already, or isn't restored: then one of another name
            let volume = match is_created("persistentvolumes", ObjectName::new(None, &copy.volume)) {
                true => copy.volume.clone(),
                false => {
                    let digest = Digest::of(format!("{id} {namespace}/{}", copy.claim).as_bytes()).to_string();
                    let hex: String = digest.chars().rev().filter(char::is_ascii_hexdigit).take(16).collect();
                    format!("restored-{hex}")
                }
            };
            wishes.push(Wish { copy, namespace, volume, there: None, zone: String::new() });
        }
        Ok(Self { id, options, ec2: None, wishes, unusable: Vec::new(), problems: Vec::new(), notes: Vec::new() })
    }

    /// Finds out what of it can be made, and where; takes that into the plan. A dry run goes on where EC2 can't be asked.
    pub(super) async fn examine(
        &mut self,
        cluster: &Cluster,
        backup: &Backup,
        plan: &mut Plan,
        dry_run: DryRun,
    ) -> anyhow::Result<()> {
        if self.wishes.is_empty() {
            return Ok(());
        }
        match restore::examine(cluster, &backup.manifest.id, self.options, self.wishes.clone()).await {
            Ok(found) => {
                self.ec2 = Some(found.ec2);
                self.wishes = found.wishes;
                self.notes.extend(found.notes);
                self.leave_out(found.unusable, backup, plan);
            }
            Err(error) if dry_run != DryRun::None => {
                let error = one_line(error);
                self.notes.push(format!("whether the snapshots of volumes can be used is not known: {error}"));
            }
            Err(error) => return Err(anyhow::anyhow!("{}", with_way_out(&error))),
        }
        self.notes.extend(self.wishes.iter().map(|wish: &Wish| wish.note(self.options)));
        let told = self.wishes.iter().map(|wish| (wish, true)).chain(self.unusable.iter().map(|wish| (wish, false)));
        let digest = |(wish, usable): (&Wish, bool)| {
            let digest = Digest::of(format!("{} {usable}", wish.digest()).as_bytes());
            (format!("{}/{}", wish.namespace, wish.copy.claim), digest)
        };
        plan.note_volumes(told.map(digest).collect());
        Ok(())
    }

    /// A claim whose volume can't be made is made all the same, and waits for a volume of a name that isn't there: without
    /// it a StatefulSet would make itself an empty one.
    fn leave_out(&mut self, unusable: Vec<(Wish, String)>, backup: &Backup, plan: &mut Plan) {
        let entries = backup.index.entries();
        for (wish, why) in unusable {
            let number = (0..entries.len()).find(|number| {
                let entry = &entries[*number];
                backup.index.frame(entry).kind.is("persistentvolumes") && backup.index.name(entry) == wish.volume
            });
            if let Some(number) = number {
                plan.decide(number, Verdict::Skip(Skip::NeverRestored("the data on it can't be restored")));
            }
            let message = format!(
                "the data on its volume can't be restored: {why}. It waits for a PersistentVolume `{}`, and pods that mount it \
                 wait too; `--volumes=skip` restores it without the data",
                wish.volume
            );
            let subject = format!("persistentvolumeclaims {}/{}", wish.namespace, wish.copy.claim);
            self.problems.push(Problem { subject, message });
            self.unusable.push(wish);
        }
    }

    /// Refuses to go on with some only, where all were asked for.
    pub(super) fn refuse_some(&self) -> anyhow::Result<()> {
        let Some(first) = self.problems.first().filter(|_| self.options.data == Data::All) else { return Ok(()) };
        let others = match self.problems.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more like it)"),
        };
        let (why, _) = first.message.split_once(". It waits").unwrap_or((&first.message, ""));
        anyhow::bail!(
            "{}: {why}{others}; `--volumes=all` was asked for, and nothing was written\n\
             hint: without it the rest is restored, and such claims wait",
            first.subject
        )
    }

    /// Whether there is anything to make.
    pub(super) fn is_empty(&self) -> bool {
        self.wishes.is_empty()
    }

    /// Whether a claim of the backup gets a new volume, or waits for one.
    pub(super) fn has(&self, claim: &ObjectName) -> bool {
        let is_it =
            |wish: &Wish| claim.namespace.as_deref() == Some(&wish.copy.namespace) && claim.name == wish.copy.claim;
        self.wishes.iter().chain(&self.unusable).any(is_it)
    }

    /// Makes them, and the PersistentVolumes that no object of the backup becomes. After an error none is left.
    pub(super) async fn make(
        mut self,
        target: &Target<'_>,
        store: &dyn Store,
        backup: &Backup,
        adaptation: &Adaptation,
        context: &Context,
        events: &Events,
    ) -> anyhow::Result<NewVolumes> {
        let mut new = Restored::default();
        let claim = |wish: &Wish| ((wish.namespace.clone(), wish.copy.claim.clone()), wish.volume.clone());
        new.claims.extend(self.unusable.iter().map(claim));
        let Some(ec2) = self.ec2.take().filter(|_| !self.wishes.is_empty()) else {
            return Ok(NewVolumes { new, volumes: None });
        };
        let saved = saved_volumes(store, backup, &self.wishes).await?;
        let (cluster, kind) = (target.cluster, target.volumes()?);
        for wish in self.wishes.iter_mut().filter(|wish| wish.volume != wish.copy.volume) {
            wish.there = handle(cluster, kind, &ObjectName::new(None, &wish.copy.volume)).await?;
        }
        let request = restore::Request {
            id: self.id,
            backup: (&backup.manifest.id, &backup.manifest.cluster.uid),
            cluster_uid: target.uid,
            options: self.options,
            events,
        };
        let made = match restore::make(ec2, &request, self.wishes, context.cancel.cancelled()).await {
            Ok(made) => made,
            Err(crate::volumes::Error::Cancelled) => return Err(Error::Cancelled.into()),
            Err(error) => anyhow::bail!("{}", with_way_out(&error)),
        };
        let mut failed = None;
        for one in &made.made {
            let Wish { copy, namespace, volume: name, zone, .. } = &one.wish;
            let volume = NewVolume { id: one.id.clone(), zone: zone.clone() };
            if *name == copy.volume {
                new.volumes.insert(name.clone(), volume);
                new.claims.insert((namespace.clone(), copy.claim.clone()), name.clone());
                continue;
            }
            match create(target, saved.get(&copy.volume), &one.wish, &volume, adaptation).await {
                Ok(()) => _ = new.claims.insert((namespace.clone(), copy.claim.clone()), name.clone()),
                Err(error) => failed = Some(error),
            }
        }
        let volumes = NewVolumes { new, volumes: Some(made) };
        if let Some(error) = failed {
            volumes.settle(target, events).await;
            return Err(error);
        }
        Ok(volumes)
    }
}

/// An error with the way to restore all the same.
fn with_way_out(error: &crate::volumes::Error) -> String {
    let text = error.to_string();
    let hint = "nothing was written; `--volumes=skip` restores without the data of volumes";
    if text.contains("\nhint: ") { format!("{text}; {hint}") } else { format!("{text}\nhint: {hint}") }
}

/// The PersistentVolumes as they were saved.
async fn saved_volumes(store: &dyn Store, backup: &Backup, wishes: &[Wish]) -> anyhow::Result<BTreeMap<String, Value>> {
    let entries = backup.index.entries();
    let wanted: BTreeSet<&str> = wishes.iter().map(|wish| wish.copy.volume.as_str()).collect();
    let is_wanted = |number: &usize| {
        let entry = &entries[*number];
        backup.index.frame(entry).kind.is("persistentvolumes") && wanted.contains(backup.index.name(entry))
    };
    let numbers: BTreeSet<usize> = (0..entries.len()).filter(is_wanted).collect();
    let objects = super::read::objects(store, backup, &numbers, true).await?;
    let named = |object: Value| Some((object.pointer("/metadata/name")?.as_str()?.to_owned(), object));
    Ok(objects.into_iter().filter_map(named).collect())
}

/// Creates the PersistentVolume for a claim whose old one's name is taken.
async fn create(
    target: &Target<'_>,
    saved: Option<&Value>,
    wish: &Wish,
    volume: &NewVolume,
    adaptation: &Adaptation,
) -> anyhow::Result<()> {
    let (cluster, kind) = (target.cluster, target.volumes()?);
    let (old, name) = (&wish.copy.volume, ObjectName::new(None, &wish.volume));
    let saved = saved.with_context(|| format!("the backup doesn't hold the PersistentVolume `{old}`"))?;
    // adapted as it was saved: what `another` puts in is the target's own, and mapped twice it could be elsewhere
    let mut adapted = saved.clone();
    adaptation.apply(kind, &mut adapted)?;
    let object = restored::another(&adapted, &wish.volume, &wish.namespace, &wish.copy.claim, volume);
    match cluster.create(kind, &name, Bytes::from(serde_json::to_vec(&object)?)).await? {
        Created::Made(_) => Ok(()),
        // an earlier try of this restore has made it: the name is of this restore alone
        Created::Exists if handle(cluster, kind, &name).await?.as_deref() == Some(&volume.id) => Ok(()),
        Created::Exists => anyhow::bail!("there is another PersistentVolume `{}`", wish.volume),
    }
}

/// The EBS volume that a PersistentVolume of the target refers to.
async fn handle(cluster: &Cluster, kind: &Kind, name: &ObjectName) -> anyhow::Result<Option<String>> {
    let Some(bytes) = cluster.get(kind, name).await? else { return Ok(None) };
    let object: Value = serde_json::from_slice(&bytes)?;
    Ok(object.pointer("/spec/csi/volumeHandle").and_then(Value::as_str).map(str::to_owned))
}

impl NewVolumes {
    /// What an undo leaves of them, in words.
    pub(super) fn stays(&self) -> impl Iterator<Item = String> {
        self.new.claims.iter().map(|((namespace, claim), volume)| {
            format!(
                "the EBS volume of PersistentVolume `{volume}`, made for claim `{namespace}/{claim}`, stays with its data"
            )
        })
    }

    /// Removes the volumes that no PersistentVolume refers to in the end.
    pub(super) async fn settle(&self, target: &Target<'_>, events: &Events) {
        let Some(volumes) = &self.volumes else { return };
        let settling = async {
            let (cluster, kind) = (target.cluster, target.volumes()?);
            let mut used = BTreeSet::new();
            for one in &volumes.made {
                if handle(cluster, kind, &ObjectName::new(None, &one.wish.volume)).await?.as_deref() == Some(&one.id) {
                    used.insert(one.id.clone());
                }
            }
            volumes.remove_unused(|one| used.contains(&one.id), events).await;
            anyhow::Ok(())
        };
        if let Err(error) = settling.await {
            tracing::warn!("whether all new volumes are used is not known, and none was removed: {error:#}");
        }
    }
}
