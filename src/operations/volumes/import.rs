//! Which claims the CSI driver fills, as the target and the backup's own objects say; and what a restore tells of them in
//! the end.

use super::Target;
use crate::archive::record::Create;
use crate::id::BackupId;
use crate::operations::restore::ItemResult;
use crate::pipeline::Error;
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::Plan;
use crate::report::{Events, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::verdict::Verdict;
use crate::rules::volumes::import::{Offer, Saved, import};
use crate::store::Store;
use crate::volumes::import::{Ending, Filled, Imports, contents, is_served, snapshots};
use crate::volumes::record::VolumeCopy;
use crate::volumes::restore::{Options, Way, Wish};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const CLASSES: &str = "storageclasses.storage.k8s.io";

/// The objects of a backup that say how a volume was used.
#[derive(Default)]
struct Objects {
    /// Claims, by their name in the target, as they are written there.
    claims: BTreeMap<ObjectName, Value>,
    /// PersistentVolumes, as they were saved.
    volumes: BTreeMap<String, Value>,
    /// Storage classes that the restore creates.
    classes: BTreeMap<String, Value>,
}

/// Says of each wish who makes its volume, and why.
pub(super) async fn choose(
    options: &Options,
    target: &Target<'_>,
    store: &dyn Store,
    backup: &Backup,
    plan: &Plan,
    wishes: &mut [Wish],
) -> anyhow::Result<()> {
    let unserved = (!is_served(target.discovery)).then_some("the cluster serves no VolumeSnapshots");
    if let Some(why) = options.keeps_from_import().or(unserved) {
        wishes.iter_mut().for_each(|wish| wish.way = Way::Made(why.to_owned()));
        return Ok(());
    }
    let objects = Objects::read(store, backup, plan, wishes).await?;
    let offer = offer(target, &objects).await?;
    let homes = homes(target, backup, plan, wishes).await?;
    for wish in wishes {
        let source = &wish.copy.source;
        let saved = Saved {
            kind: &source.kind,
            gib: source.gib,
            iops: source.iops,
            throughput: source.throughput,
            kms_key: source.kms_key_id.as_deref(),
            multi_attach: source.multi_attach,
            volume: objects.volumes.get(&wish.copy.volume),
        };
        let claim = objects.claims.get(&ObjectName::new(Some(&wish.namespace), &wish.copy.claim));
        let decided = match claim {
            _ if !homes.contains(&wish.namespace) => Err("its namespace is not there".to_owned()),
            None => Err("the backup doesn't hold it".to_owned()),
            Some(claim) => import(claim, &saved, &offer),
        };
        wish.way = decided.map_or_else(Way::Made, Way::Filled);
    }
    Ok(())
}

impl Objects {
    async fn read(store: &dyn Store, backup: &Backup, plan: &Plan, wishes: &[Wish]) -> anyhow::Result<Self> {
        let claims: BTreeSet<(&str, &str)> =
            wishes.iter().map(|wish| (wish.copy.namespace.as_str(), wish.copy.claim.as_str())).collect();
        let volumes: BTreeSet<&str> = wishes.iter().map(|wish| wish.copy.volume.as_str()).collect();
        let index = &backup.index;
        let is_wanted = |number: &usize| {
            let entry = &index.entries()[*number];
            let (kind, is_created) = (&index.frame(entry).kind, || is_created(plan, *number));
            kind.is(CLAIMS) && index.namespace(entry).is_some_and(|of| claims.contains(&(of, index.name(entry))))
                || kind.is(VOLUMES) && volumes.contains(index.name(entry))
                || kind.is(CLASSES) && is_created()
        };
        let numbers: BTreeSet<usize> = (0..index.entries().len()).filter(is_wanted).collect();
        let mut read = Self::default();
        for (number, mut object) in
            numbers.iter().zip(crate::operations::read::objects(store, backup, &numbers, true).await?)
        {
            let entry = &index.entries()[*number];
            let (kind, name) = (&index.frame(entry).kind, index.name(entry).to_owned());
            if kind.is(VOLUMES) {
                read.volumes.insert(name, object);
                continue;
            }
            plan.adaptation.apply(kind, &mut object)?;
            if kind.is(CLAIMS) {
                read.claims.insert(plan.adaptation.target(kind, &index.object_name(entry)), object);
            } else {
                read.classes.insert(name, object);
            }
        }
        Ok(read)
    }
}

fn is_created(plan: &Plan, number: usize) -> bool {
    plan.item(number).is_some_and(|item| item.verdict == Verdict::Create)
}

/// What the target has of classes and drivers.
async fn offer(target: &Target<'_>, objects: &Objects) -> anyhow::Result<Offer> {
    let mut offer = Offer { drivers: BTreeSet::new(), classes: objects.classes.clone() };
    let named = objects.claims.values().filter_map(|claim| claim.pointer("/spec/storageClassName")?.as_str());
    for name in named.collect::<BTreeSet<_>>() {
        if let Some(class) = target.get(CLASSES, name).await? {
            offer.classes.insert(name.to_owned(), class);
        }
    }
    let drivers = offer.classes.values().filter_map(|class| class["provisioner"].as_str());
    for driver in drivers.collect::<BTreeSet<_>>() {
        if target.get("csidrivers.storage.k8s.io", driver).await?.is_some() {
            offer.drivers.insert(driver.to_owned());
        }
    }
    Ok(offer)
}

/// The namespaces of claims that are there or created first.
async fn homes(target: &Target<'_>, backup: &Backup, plan: &Plan, wishes: &[Wish]) -> anyhow::Result<BTreeSet<String>> {
    let index = &backup.index;
    let created = (0..index.entries().len()).filter_map(|number| {
        let entry = &index.entries()[number];
        let kind = &index.frame(entry).kind;
        (kind.is("namespaces") && is_created(plan, number))
            .then(|| plan.adaptation.target(kind, &index.object_name(entry)).name)
    });
    let mut homes: BTreeSet<String> = created.collect();
    for wish in wishes.iter() {
        if !homes.contains(&wish.namespace) && target.get("namespaces", &wish.namespace).await?.is_some() {
            homes.insert(wish.namespace.clone());
        }
    }
    Ok(homes)
}

/// Leaves out PersistentVolumes as they were saved whose claims are there and have another one, by an earlier restore: a
/// volume whose claim is bound to another one counts as not needed, and its reclaim policy may delete it.
pub(super) async fn leave_volumes(
    target: &Target<'_>,
    backup: &Backup,
    copies: &[&VolumeCopy],
    plan: &mut Plan,
) -> anyhow::Result<()> {
    let created = created_volumes(backup, plan);
    for copy in copies {
        let Some(number) = created.get(copy.volume.as_str()).copied() else { continue };
        let namespace = plan.adaptation.mapping().target(&copy.namespace).to_owned();
        let claim = target.object(CLAIMS, &ObjectName::new(Some(&namespace), &copy.claim)).await?;
        let has_another = claim.is_some_and(|claim| {
            let spec = &claim["spec"];
            match spec["volumeName"].as_str().filter(|name| !name.is_empty()) {
                Some(volume) => volume != copy.volume,
                None => spec["dataSource"]["kind"] == snapshots().kind.as_str(),
            }
        });
        if has_another {
            plan.leave_out(backup, number, "its claim has another volume");
        }
    }
    Ok(())
}

/// Leaves out the PersistentVolumes of claims that the driver fills.
pub(super) fn leave_volumes_of(wishes: &[Wish], backup: &Backup, plan: &mut Plan) {
    let created = created_volumes(backup, plan);
    for wish in wishes.iter().filter(|wish| matches!(wish.way, Way::Filled(_))) {
        if let Some(number) = created.get(wish.copy.volume.as_str()) {
            plan.leave_out(backup, *number, "the CSI driver makes a volume for its claim");
        }
    }
}

/// The numbers of the PersistentVolumes that are to be created, by name.
fn created_volumes<'a>(backup: &'a Backup, plan: &Plan) -> BTreeMap<&'a str, usize> {
    let entries = backup.index.entries().iter().enumerate();
    let volumes =
        entries.filter(|(number, entry)| backup.index.frame(entry).kind.is(VOLUMES) && is_created(plan, *number));
    volumes.map(|(number, entry)| (backup.index.name(entry), number)).collect()
}

/// What a restore tells of its imports.
#[derive(Default)]
pub(in crate::operations) struct Told {
    pub(in crate::operations) problems: Vec<Problem>,
    pub(in crate::operations) notes: Vec<String>,
    /// Objects that stay.
    pub(in crate::operations) items: Vec<ItemResult>,
}

impl Told {
    fn of(ending: Ending) -> Self {
        let mut told = Self::default();
        for claim in ending.waiting {
            told.notes.push(format!(
                "claim `{claim}` gets its volume when the first pod mounts it; the VolumeSnapshot for it stays until then, and a \
                 later restore removes it"
            ));
        }
        for (claim, why) in ending.unfilled {
            match why {
                Some(why) => told.problems.push(Problem {
                    subject: format!("{CLAIMS} {claim}"),
                    message: format!(
                        "the CSI driver can't make its volume: {why}; it goes on trying. Where its role may not use the \
                         snapshot, docs/volumes.md says what it lacks; or delete the claim and restore it with \
                         `--import-snapshots=false`"
                    ),
                }),
                None => told.notes.push(format!(
                    "claim `{claim}` has no volume yet: the CSI driver is at it; `kubectl describe` of the claim tells more"
                )),
            }
        }
        told.items = ending
            .left
            .into_iter()
            .map(|left| ItemResult {
                kind: left.kind.key(),
                namespace: left.name.namespace,
                name: left.name.name,
                verdict: "created".to_owned(),
                reason: "a claim is still to be filled from it".to_owned(),
                uid: Some(left.uid),
                ..ItemResult::default()
            })
            .collect();
        told
    }
}

/// The imports of a restore that works.
pub(super) struct Import {
    imports: Imports,
    filled: Vec<Filled>,
}

impl Import {
    /// `None` where the cluster has no VolumeSnapshots.
    pub(super) fn new(target: &Target<'_>, run: &BackupId, events: &Events, filled: Vec<Filled>) -> Option<Self> {
        let claims = target.discovery.get(CLAIMS)?.kind.clone();
        let served = is_served(target.discovery);
        served.then(|| Self { imports: Imports::new(target.cluster, claims, run, events), filled })
    }

    /// Makes the snapshots known to the cluster.
    pub(super) async fn prepare(&self, cancelled: impl Future<Output = ()>) -> Result<(), crate::volumes::Error> {
        if self.filled.is_empty() { Ok(()) } else { self.imports.prepare(&self.filled, cancelled).await }
    }

    /// Makes what the claims name.
    pub(super) async fn bind(&self) -> Result<(), Error> {
        use crate::volumes::Error as Failed;
        if self.filled.is_empty() {
            return Ok(());
        }
        self.imports.bind(&self.filled).await.map_err(|error| match error {
            Failed::Cluster(error) => match std::sync::Arc::try_unwrap(error) {
                Ok(error) => Error::Cluster(error),
                Err(error) => Error::Claims(error.to_string()),
            },
            error => Error::Claims(error.to_string()),
        })
    }

    /// Removes what nobody needs any more; `done`: the restore is.
    pub(super) async fn settle(&self, done: bool, now: Timestamp) -> Told {
        let ending = match self.imports.settle(&self.filled, done).await {
            Ok(ending) => ending,
            Err(error) => {
                tracing::warn!(%error, "objects of imports may be left");
                Ending::default()
            }
        };
        if done && let Err(error) = self.imports.sweep(now).await {
            tracing::warn!(%error, "objects of earlier imports may be left");
        }
        Told::of(ending)
    }
}

/// What is noted of the objects of imports before they are made.
pub(super) fn creates(filled: &[Filled]) -> Vec<Create> {
    let create = |kind: &Kind, name: ObjectName| Create { kind: kind.key(), ns: name.namespace, name: name.name };
    let both = |one: &Filled| [create(&contents(), one.content()), create(&snapshots(), one.snapshot())];
    filled.iter().flat_map(both).collect()
}
