//! `restore`: find the backup, verify what is selected, plan, and carry out the plan that was approved.

mod approval;
mod begun;
mod choose;
pub(super) mod outcome;
mod safety;

use super::backup::target;
use super::log::RunLog;
use super::volumes::{self, Wishes};
use super::{Context, Done, Query, Usage};
use crate::cluster::Cluster;
use crate::config::Location;
use crate::id::{BackupId, Digest};
use crate::pipeline::adapt::Adaptation;
use crate::pipeline::apply::{Apply, Restored};
use crate::pipeline::besides::Journal;
use crate::pipeline::check::Check;
use crate::pipeline::fetch::{self, Backup};
use crate::pipeline::plan::{self, Plan, PlanRequest};
use crate::pipeline::{Error, catalog, until_cancelled};
use crate::report::{Phase, Problem};
use crate::rules::adapt::AdaptOptions;
use crate::rules::mapping::NamespaceMapping;
use crate::rules::restorable::Protected;
use crate::rules::selection::{Namespaces, Selection};
use crate::rules::verdict::Existing;
use crate::store::{self, Store};
use crate::volumes::restore::Options as VolumeOptions;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

pub use outcome::{ItemResult, RestoreResult};
use safety::Safety;

/// What to restore, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTask {
    /// Which backup.
    #[serde(flatten)]
    pub query: Query,
    /// `KIND/NAME` or `KIND`, as typed; empty: everything.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Only these namespaces of the backup (and, where the list is empty, what is cluster-scoped too).
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// What else narrows it; namespaces and names are above.
    #[serde(default)]
    pub selection: Selection,
    /// `a=b`: objects of namespace `a` go to `b`.
    #[serde(default)]
    pub map_namespace: Vec<String>,
    /// What else is to be different from what was saved.
    #[serde(flatten)]
    pub adapt: AdaptOptions,
    /// What becomes of objects that are there already.
    #[serde(default)]
    pub existing: Existing,
    /// Where what it changes is saved, and its record, instead of where the backup is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_location: Option<Location>,
    /// Plan only: nothing is written.
    #[serde(default)]
    pub dry_run: DryRun,
    /// The digest of the plan that the person approved; another plan is not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Digest>,
    /// How volumes are made again.
    #[serde(default)]
    pub volumes: VolumeOptions,
}

/// Whether a restore writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DryRun {
    /// It does.
    #[default]
    None,
    /// It compares with what is there.
    Client,
    /// It also has the API server try every write out.
    Server,
}

impl RestoreTask {
    /// Whether it needs the rights of a restore: to write, or to try writes out.
    pub fn needs_rights(&self) -> bool {
        self.dry_run != DryRun::Client
    }
}

/// Restores, or plans to.
///
/// # Errors
/// Before the first write: when anything selected is damaged, or the plan is not the approved one. Later only what
/// stops the whole run; an object that fails is a problem in the result.
pub async fn run(
    id: &BackupId,
    task: &RestoreTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    let (log, events) = RunLog::tee(context.now.clone(), &context.events)?;
    let context = &Context { events, ..context.clone() };
    let outside = Outside { log, makes_volumes: AtomicBool::new(false) };
    let deed = restore(id, task, location, cluster, store, context, &outside);
    // once volumes are made, the deed ends by itself, and removes those that nothing will use
    let ended = async {
        context.cancel.cancelled().await;
        if outside.makes_volumes.load(Ordering::Relaxed) {
            tokio::time::sleep(volumes::CLEANING).await;
        }
    };
    let result = tokio::select! {
        biased;
        result = deed => result,
        () = ended => Err(Error::Cancelled.into()),
    };
    if let Err(error) = &result
        && task.dry_run == DryRun::None
        && !location.read_only
    {
        outside.log.keep(error, context, id, store).await;
    }
    result
}

/// What is known of a restore also when it is given up from outside.
struct Outside {
    log: RunLog,
    /// Whether volumes are being made, which go again when nothing comes to refer to them.
    makes_volumes: AtomicBool,
}

async fn restore(
    id: &BackupId,
    task: &RestoreTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
    outside: &Outside,
) -> anyhow::Result<Done> {
    let events = &context.events;
    let started = (context.now)();
    let cluster = &cluster.of_run(id);
    events.phase(Phase::Planning);
    let discovery = cluster.discover().await.context("discovery")?;
    let identity = target::identity(cluster, &discovery).await?;
    let from = task.query.from_cluster.as_ref().unwrap_or(&identity.uid);
    let backup = fetch::with_index(store, catalog::find(store, &task.query.backup, Some(from)).await?).await?;
    let (asked, adaptation) = places(task, &backup)?;
    let chosen = choose::entries(store, &backup, task, &asked).await?;
    let opened = futures::future::OptionFuture::from(task.safety_location.as_ref().map(store::open_other)).await;
    let opened = opened.transpose().context("the safety location")?;
    let home = opened.as_deref().or((!location.read_only).then_some(store));
    let earlier = approval::earlier(id, home.filter(|_| task.dry_run == DryRun::None)).await?;
    let named = if task.objects.is_empty() { BTreeSet::new() } else { chosen.clone().unwrap_or_default() };
    let request = PlanRequest {
        backup: &backup,
        chosen,
        named,
        adaptation,
        other_cluster: backup.manifest.cluster.uid != identity.uid,
        discovery: &discovery,
        existing: task.existing,
        seal: &approval::seal(task, &backup.manifest, &identity.uid)?,
        finds_ours: !earlier.is_empty(),
        owners_here: false,
        protected: Protected { install_namespace: Some(&context.install_namespace), asked: &asked },
    };
    events.phase(Phase::Verifying);
    let mut plan = Box::pin(plan::make(cluster, store, request, events)).await?;
    let mut wishes = Wishes::find(task, &backup, &plan, id, store).await.context("looking for saved volumes")?;
    let uid = identity.uid.as_str();
    let journal = home.map(|store| Journal { store, id, attempt: &context.attempt });
    let target = volumes::Target { cluster, discovery: &discovery, uid, journal };
    let examining = Box::pin(wishes.examine(&target, store, &backup, &mut plan, task.dry_run));
    examining.await.context("looking at the snapshots of volumes")?;
    plan.note_given_back(&backup, |claim| wishes.has(claim));
    plan.notes.append(&mut wishes.notes);
    if task.dry_run != DryRun::None {
        let check = Check { cluster, discovery: &discovery, store, backup: &backup, events };
        return Ok(tried_out(task.dry_run, check, plan, wishes.problems).await?.done());
    }
    approval::check(task, &mut plan, &earlier)?;
    refuse_differences(task, &plan)?;
    wishes.refuse_some()?;
    approval::begin(id, &plan, &wishes.problems, home, context).await?;
    let safety = Safety { restore: id, backup: &backup, cluster, identity: &identity, home, context };
    let safety = Box::pin(safety.ensure(&mut plan, !earlier.is_empty())).await?;
    let besides = wishes.creates();
    let begins = begun::Begins { id, started, cluster: uid, backup: &backup, plan: &plan, besides };
    begins.note(home, context).await.context("noting that it begins")?;
    let stage = volumes::Stage { target: &target, store, backup: &backup, context, events };
    let carrying = carry_out(&stage, wishes, &mut plan, &earlier, &outside.makes_volumes);
    let (restored, besides) = Box::pin(carrying).await?;
    let ended = outcome::Told::new(&backup, &plan, restored, false).with(besides).end()?;
    drop((plan, backup));
    if let Some(store) = home {
        let run = outcome::Run { id, started, cluster: uid, safety, store, context, events, log: &outside.log };
        run.record(&ended).await.context("storing the restore's record")?;
    }
    Ok(ended.done())
}

/// Makes the volumes, then writes what the plan says; nothing that exists was touched before this. Answers also with what
/// was made that the backup doesn't hold.
async fn carry_out(
    stage: &volumes::Stage<'_>,
    mut wishes: Wishes<'_>,
    plan: &mut Plan,
    earlier: &[approval::Begun],
    makes_volumes: &AtomicBool,
) -> anyhow::Result<(Restored, Vec<ItemResult>)> {
    let volumes::Stage { target, store, backup, context, events } = *stage;
    events.phase(Phase::Restoring);
    makes_volumes.store(!wishes.is_empty(), Ordering::Relaxed);
    let problems = approval::problems(earlier, std::mem::take(&mut wishes.problems));
    let volumes = Box::pin(wishes.make(stage, &plan.adaptation)).await.context("making volumes")?;
    plan.adaptation.use_volumes(volumes.new.clone());
    let (before, owners) = (approval::done_before(earlier, plan), std::mem::take(&mut plan.owners));
    let (cluster, journal, cancel) = (target.cluster, target.journal, &context.cancel);
    let apply = Apply { cluster, store, backup, plan, journal, events, cancel };
    let writing = Box::pin(apply.run(owners, &before, volumes.before_claims()));
    let restored = until_cancelled(cancel, writing).await.context("restoring");
    let settled = Box::pin(volumes.settle(stage, restored.is_ok())).await;
    let mut restored = restored?;
    restored.problems.extend(problems.into_iter().chain(settled.problems));
    restored.notes.extend(settled.notes);
    restored.add(before);
    Ok((restored, settled.items))
}

/// The namespaces that were asked for, and what changes objects on their way.
fn places(task: &RestoreTask, backup: &Backup) -> anyhow::Result<(Namespaces, Adaptation)> {
    let wrong = |error: crate::rules::Error| Usage(error.to_string());
    let mapping = NamespaceMapping::parse(&task.map_namespace).map_err(wrong)?;
    let asked = if task.namespaces.is_empty() { Ok(Namespaces::all()) } else { Namespaces::parse(&task.namespaces) };
    let asked = asked.map_err(wrong)?;
    check_mapping(backup, &mapping)?;
    Ok((asked, Adaptation::new(&task.adapt, mapping).map_err(wrong)?))
}

/// What a dry run comes to: the plan, tried out by the API server where that was asked for.
async fn tried_out(
    dry_run: DryRun,
    check: Check<'_>,
    mut plan: Plan,
    mut problems: Vec<Problem>,
) -> anyhow::Result<outcome::Ended> {
    if dry_run == DryRun::Server {
        problems.extend(check.all(&mut plan).await?);
    }
    let told = outcome::Told::new(check.backup, &plan, Restored::nothing(problems), true);
    Ok(told.end()?)
}

/// `--existing=fail`: nothing is written where anything differs.
fn refuse_differences(task: &RestoreTask, plan: &Plan) -> anyhow::Result<()> {
    if task.existing != Existing::Fail || plan.changed.is_empty() {
        return Ok(());
    }
    let differ = plan.changed.len();
    anyhow::bail!(
        "{differ} objects exist and differ from the backup, and `--existing=fail` was asked for; nothing was written\n\
         hint: `--dry-run=client -o wide` names them; `--existing=skip` leaves them, `--existing=update` replaces them"
    )
}

/// A mapping must mean namespaces of the backup, and no two of them may land in one.
fn check_mapping(backup: &Backup, mapping: &NamespaceMapping) -> Result<(), Usage> {
    let saved: BTreeSet<&str> =
        backup.index.entries().iter().filter_map(|entry| backup.index.namespace(entry)).collect();
    if let Some(unused) = mapping.unused(|namespace| saved.contains(namespace)).first() {
        let id = &backup.manifest.id;
        return Err(Usage(format!(
            "`--map-namespace {unused}=…`: backup `{id}` holds nothing in namespace `{unused}`"
        )));
    }
    mapping.check(saved).map_err(|error| Usage(error.to_string()))
}
