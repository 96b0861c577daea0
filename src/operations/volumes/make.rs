//! Volumes made for a restore: by EC2, or by the CSI driver from snapshots that are imported.

use super::{Stage, Target, Told, Wishes, import};
use crate::archive::besides::{Besides, MadeVolume};
use crate::cluster::Cluster;
use crate::cluster::object::Created;
use crate::operations::read;
use crate::pipeline::adapt::Adaptation;
use crate::pipeline::besides::Journal;
use crate::pipeline::fetch::Backup;
use crate::pipeline::{Error, until_cancelled};
use crate::report::Events;
use crate::resource::{Kind, ObjectName};
use crate::rules::volumes::restored::{self, Filling, NewVolume, Restored};
use crate::store::Store;
use crate::volumes::Ec2;
use crate::volumes::restore::{self, Way, Wish};
use anyhow::Context as _;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Notes written at once.
const AT_ONCE: usize = 16;

/// New volumes, and who refers to them.
pub(in crate::operations) struct NewVolumes {
    /// For the objects on their way.
    pub(in crate::operations) new: Restored,
    volumes: Option<restore::Volumes>,
    import: Option<import::Import>,
}

impl Wishes<'_> {
    /// Makes them, and the PersistentVolumes that no object of the backup becomes. After an error none is left.
    pub(in crate::operations) async fn make(
        mut self,
        stage: &Stage<'_>,
        adaptation: &Adaptation,
    ) -> anyhow::Result<NewVolumes> {
        let mut new = Restored::default();
        let claim = |wish: &Wish| (wish.namespace.clone(), wish.copy.claim.clone());
        new.claims.extend(self.unusable.iter().map(|wish| (claim(wish), wish.volume.clone())));
        let filled = self.filled();
        new.fillings.extend(filled.iter().map(|one| {
            let filling = Filling { snapshot: one.name.clone(), gib: one.wish.copy.source.gib };
            (claim(&one.wish), filling)
        }));
        self.wishes.retain(|wish| matches!(wish.way, Way::Made(_)));
        let import = import::Import::new(stage.target, self.id, stage.events, filled);
        let mut volumes = NewVolumes { new, volumes: None, import };
        if let Some(import) = &volumes.import {
            import.prepare(stage.context.cancel.cancelled()).await.map_err(failed)?;
        }
        let Some(ec2) = self.ec2.take().filter(|_| !self.wishes.is_empty()) else { return Ok(volumes) };
        if let Err(error) = self.make_volumes(ec2, stage, adaptation, &mut volumes).await {
            volumes.settle(stage, false).await;
            return Err(error);
        }
        Ok(volumes)
    }

    /// Has EC2 make those of claims that the driver doesn't fill.
    async fn make_volumes(
        mut self,
        ec2: Ec2,
        stage: &Stage<'_>,
        adaptation: &Adaptation,
        volumes: &mut NewVolumes,
    ) -> anyhow::Result<()> {
        let Stage { target, backup, .. } = stage;
        let saved = saved_volumes(stage.store, backup, &self.wishes).await?;
        let (cluster, kind) = (target.cluster, target.volumes()?);
        for wish in self.wishes.iter_mut().filter(|wish| wish.volume != wish.copy.volume) {
            wish.there = handle(cluster, kind, &ObjectName::new(None, &wish.copy.volume)).await?;
        }
        let request = restore::Request {
            id: self.id,
            backup: (&backup.manifest.id, &backup.manifest.cluster.uid),
            cluster_uid: target.uid,
            options: self.options,
            events: stage.events,
        };
        let made = restore::make(ec2, &request, self.wishes, stage.context.cancel.cancelled()).await;
        let made = volumes.volumes.insert(made.map_err(failed)?);
        note(target.journal, made).await?;
        for one in &made.made {
            let Wish { copy, namespace, volume: name, zone, .. } = &one.wish;
            let volume = NewVolume { id: one.id.clone(), zone: zone.clone() };
            if *name == copy.volume {
                volumes.new.volumes.insert(name.clone(), volume);
            } else {
                create(target, saved.get(&copy.volume), &one.wish, &volume, adaptation).await?;
            }
            volumes.new.claims.insert((namespace.clone(), copy.claim.clone()), name.clone());
        }
        Ok(())
    }
}

/// Why no volumes were made.
fn failed(error: crate::volumes::Error) -> anyhow::Error {
    match error {
        crate::volumes::Error::Cancelled => Error::Cancelled.into(),
        crate::volumes::Error::Cluster(error) => match std::sync::Arc::try_unwrap(error) {
            Ok(error) => anyhow::Error::new(error).context("nothing was written"),
            Err(error) => anyhow::anyhow!("{error}"),
        },
        error => anyhow::anyhow!("{}", with_way_out(&error)),
    }
}

/// Notes what was made before anything refers to it, so that an undo finds it.
async fn note(journal: Option<Journal<'_>>, volumes: &restore::Volumes) -> anyhow::Result<()> {
    let Some(journal) = journal else { return Ok(()) };
    let notes = volumes.made.iter().map(|one| {
        let Wish { copy, namespace, volume, .. } = &one.wish;
        let claim = ObjectName::new(Some(namespace), &copy.claim);
        let (id, region, gib) = (one.id.clone(), volumes.region().to_owned(), copy.source.gib);
        Besides::MadeVolume(MadeVolume { id, region, gib, volume: volume.clone(), claim })
    });
    let notes: Vec<Besides> = notes.collect();
    let noted = stream::iter(notes).map(|deed| async move { journal.note(&deed).await }).buffer_unordered(AT_ONCE);
    noted.try_collect::<()>().await.context("noting which volumes were made")
}

/// An error with the way to restore all the same.
pub(super) fn with_way_out(error: &crate::volumes::Error) -> String {
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
    let objects = read::objects(store, backup, &numbers, true).await?;
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
    /// What is done once namespaces are there, and before claims are.
    pub(in crate::operations) async fn before_claims(&self) -> Result<(), Error> {
        match &self.import {
            Some(import) => import.bind().await,
            None => Ok(()),
        }
    }

    /// Removes the volumes that no PersistentVolume refers to in the end, and what no claim is to be filled from any more.
    /// `done`: the restore is.
    pub(in crate::operations) async fn settle(&self, stage: &Stage<'_>, done: bool) -> Told {
        self.settle_volumes(stage.target, stage.events).await;
        let Some(import) = &self.import else { return Told::default() };
        let settling = import.settle(done, (stage.context.now)());
        // what waits for claims ends with a signal; what takes back is quick, and has its time
        match done {
            true => until_cancelled(&stage.context.cancel, async { Ok::<_, Error>(settling.await) })
                .await
                .unwrap_or_default(),
            false => settling.await,
        }
    }

    async fn settle_volumes(&self, target: &Target<'_>, events: &Events) {
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
