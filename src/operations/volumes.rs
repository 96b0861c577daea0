//! What backups and restores do about volumes at their ends.

mod import;
mod make;

use super::Context;
use super::backup::Standing;
use super::restore::{DryRun, RestoreTask};
use crate::archive::manifest::{BACKUPS, Manifest, id_of_key};
use crate::archive::record::Create;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::id::{BackupId, Digest};
use crate::pipeline::besides::Journal;
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::Plan;
use crate::pipeline::{Error, catalog};
use crate::report::{Events, Problem, one_line};
use crate::resource::{Kind, ObjectName, check_namespace, check_object_name};
use crate::rules::verdict::Verdict;
use crate::store::Store;
use crate::volumes::Ec2;
use crate::volumes::import::Filled;
use crate::volumes::record::VolumeCopy;
use crate::volumes::restore::{self, Data, Way, Wish};
use crate::volumes::snapshot::Snapshots;
use anyhow::Context as _;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) use import::Told;

/// Characters that the value of a tag in AWS may have.
const TAG_VALUE: usize = 256;
/// How long removing what a failed run has made may take; the worker cleans up for 40 s at most.
pub(super) const CLEANING: Duration = Duration::from_secs(20);

/// Reports that are read at once.
const REPORTS: usize = 16;

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

/// The regions in which the backups of a location have snapshots; and which of its reports can't be read.
///
/// # Errors
/// The bucket's.
pub(super) async fn regions(store: &dyn Store) -> Result<(BTreeSet<String>, Vec<Problem>), Error> {
    let backups = catalog::read(store).await?.backups.into_iter().filter(|backup| backup.counts.volumes > 0);
    let reports = stream::iter(backups).map(|backup| async move { (copies(store, &backup).await, backup.id) });
    let mut reports = std::pin::pin!(reports.buffer_unordered(REPORTS));
    let (mut regions, mut problems) = (BTreeSet::new(), Vec::new());
    while let Some((copies, id)) = reports.next().await {
        match copies {
            Ok(copies) => regions.extend(copies.into_iter().map(|copy| copy.snapshot.region)),
            Err(error) => {
                let message =
                    format!("in which regions it has snapshots is not known: {}", one_line(format!("{error:#}")));
                problems.push(Problem { subject: id.to_string(), message });
            }
        }
    }
    Ok((regions, problems))
}

/// Where a restore makes volumes.
pub(super) struct Target<'a> {
    pub(super) cluster: &'a Cluster,
    /// What it serves.
    pub(super) discovery: &'a Discovery,
    /// What tells it from others.
    pub(super) uid: &'a str,
    /// Where it is noted what is made there.
    pub(super) journal: Option<Journal<'a>>,
}

impl Target<'_> {
    /// The kind of PersistentVolumes.
    fn volumes(&self) -> anyhow::Result<&Kind> {
        self.kind("persistentvolumes")
    }

    fn kind(&self, key: &str) -> anyhow::Result<&Kind> {
        let served = self.discovery.get(key).with_context(|| format!("the API server serves no `{key}`"))?;
        Ok(&served.kind)
    }

    /// A cluster-scoped object of the target.
    async fn get(&self, key: &str, name: &str) -> anyhow::Result<Option<Value>> {
        self.object(key, &ObjectName::new(None, name)).await
    }

    /// An object of the target. What an archive gives as a name and can't be one, nothing has.
    async fn object(&self, key: &str, name: &ObjectName) -> anyhow::Result<Option<Value>> {
        let namespace = name.namespace.as_deref().map_or(Ok(()), check_namespace);
        if namespace.and_then(|()| check_object_name(&name.name)).is_err() {
            return Ok(None);
        }
        let found = self.cluster.get(self.kind(key)?, name).await?;
        Ok(found.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }
}

/// What making volumes works with.
pub(super) struct Stage<'a> {
    pub(super) target: &'a Target<'a>,
    /// Where the backup is.
    pub(super) store: &'a dyn Store,
    pub(super) backup: &'a Backup,
    pub(super) context: &'a Context,
    /// Where to tell what happens.
    pub(super) events: &'a Events,
}

/// The volumes that a restore has to make.
pub(super) struct Wishes<'a> {
    id: &'a BackupId,
    options: &'a restore::Options,
    /// The saved volumes of the backup.
    copies: Vec<VolumeCopy>,
    ec2: Option<Ec2>,
    wishes: Vec<Wish>,
    /// Those that can't be made: the claim waits for a volume of this name.
    unusable: Vec<Wish>,
    /// Why they can't.
    pub(super) problems: Vec<Problem>,
    /// What a person should see of it beforehand.
    pub(super) notes: Vec<String>,
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
        for copy in &copies {
            if !is_created("persistentvolumeclaims", ObjectName::new(Some(&copy.namespace), &copy.claim)) {
                continue;
            }
            let namespace = plan.adaptation.mapping().target(&copy.namespace).to_owned();
            // a volume of that name is there already, or isn't restored: then one of another name
            let volume = match is_created("persistentvolumes", ObjectName::new(None, &copy.volume)) {
                true => copy.volume.clone(),
                false => format!("restored-{}", derived(id, &namespace, &copy.claim)),
            };
            let (copy, way) = (copy.clone(), Way::Made(String::new()));
            wishes.push(Wish { copy, namespace, volume, there: None, zone: String::new(), way });
        }
        let (unusable, problems, notes) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { id, options, copies, ec2: None, wishes, unusable, problems, notes })
    }

    /// Finds out what of it can be made, by whom, and where; takes that into the plan. A dry run goes on where EC2 can't be
    /// asked.
    pub(super) async fn examine(
        &mut self,
        target: &Target<'_>,
        store: &dyn Store,
        backup: &Backup,
        plan: &mut Plan,
        dry_run: DryRun,
    ) -> anyhow::Result<()> {
        let is_other = |copy: &&VolumeCopy| !self.wishes.iter().any(|wish| wish.copy == **copy);
        let others: Vec<&VolumeCopy> = self.copies.iter().filter(is_other).collect();
        import::leave_volumes(target, backup, &others, plan).await?;
        if self.wishes.is_empty() {
            return Ok(());
        }
        import::choose(self.options, target, store, backup, plan, &mut self.wishes).await?;
        match restore::examine(target.cluster, &backup.manifest.id, self.options, self.wishes.clone()).await {
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
            Err(error) => return Err(anyhow::anyhow!("{}", make::with_way_out(&error))),
        }
        import::leave_volumes_of(&self.wishes, backup, plan);
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
                plan.leave_out(backup, number, "the data on it can't be restored");
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

    /// The claims that the CSI driver fills.
    fn filled(&self) -> Vec<Filled> {
        let filled = self.wishes.iter().filter(|wish| matches!(wish.way, Way::Filled(_)));
        let name = |wish: &Wish| format!("kubectl-backup-{}", derived(self.id, &wish.namespace, &wish.copy.claim));
        filled.map(|wish| Filled { name: name(wish), wish: wish.clone() }).collect()
    }

    /// What is created for them besides the objects of the backup, and undone with these.
    pub(super) fn creates(&self) -> Vec<Create> {
        import::creates(&self.filled())
    }
}

/// What tells the claim of a restore from all others: sixteen characters.
fn derived(restore: &BackupId, namespace: &str, claim: &str) -> String {
    let digest = Digest::of(format!("{restore} {namespace}/{claim}").as_bytes()).to_string();
    digest.chars().rev().filter(char::is_ascii_hexdigit).take(16).collect()
}
