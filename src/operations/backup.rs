//! `ns` and `cluster`: discover, run pre hooks, choose the revision, save, run post hooks, commit.

use super::hooks::{Around, HookReport};
use super::log::RunLog;
use super::{Context, Done, Usage, volumes};
use crate::archive::manifest::{ClusterIdentity, Consistency, Counts, FORMAT, File, Files, Manifest, Scope};
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::id::BackupId;
use crate::pipeline::save::commit::{self, Committed};
use crate::pipeline::save::{self, KindReport, SaveRequest, Saved, Wanted, pin};
use crate::pipeline::{Error, sweep, until_cancelled, until_settled};
use crate::report::{Event, Events, ExitCode, Omission, Outcome, Phase, Problem};
use crate::resource::{Kind, ObjectName};
use crate::rules::claims::VolumeData;
use crate::rules::kinds::Served;
use crate::rules::selection::{self, Namespaces};
use crate::rules::similar;
use crate::store::Store;
use crate::volumes::record::VolumeCopy;
use crate::volumes::snapshot::{Ended, Options, Request, Snapshots};
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tokio::sync::mpsc;

/// What to back up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTask {
    /// Namespaces or globs of them; `None` for everything.
    pub namespaces: Option<Vec<String>>,
    /// What is to become of the data behind claims.
    #[serde(default)]
    pub volumes: VolumeData,
    /// Whether all of it is to be of one instant.
    #[serde(default)]
    pub consistency: pin::Demand,
    /// Whether the commands run that pods' annotations ask for.
    #[serde(default = "yes")]
    pub hooks: bool,
    /// How volumes are saved.
    #[serde(default)]
    pub volume_options: Options,
}

impl Default for BackupTask {
    /// Everything, with hooks.
    fn default() -> Self {
        Self {
            namespaces: None,
            volumes: VolumeData::default(),
            consistency: pin::Demand::default(),
            hooks: yes(),
            volume_options: Options::default(),
        }
    }
}

/// Characters that the value of a tag in AWS may have.
const TAG_VALUE: usize = 256;

fn yes() -> bool {
    true
}

/// `report.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What was asked for.
    pub selection: BackupTask,
    /// The namespaces that this meant.
    pub namespaces: Vec<String>,
    /// Every kind that holds objects.
    pub kinds: Vec<KindReport>,
    /// What could not be saved.
    pub problems: Vec<Problem>,
    /// What rules left out.
    pub omissions: Vec<Omission>,
    /// The commands that pods' annotations asked for.
    #[serde(default)]
    pub hooks: Vec<HookReport>,
    /// The volumes whose data is saved.
    #[serde(default)]
    pub volumes: Vec<VolumeCopy>,
    /// Seconds that the run took until here.
    pub seconds: f64,
}

/// Makes a backup.
///
/// # Errors
/// When nothing was saved; what was stored by then is taken back.
pub async fn run(
    id: &BackupId,
    task: &BackupTask,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    let (log, events) = RunLog::tee(context.now.clone(), &context.events)?;
    let started = (context.now)();
    // boxed, as the futures below it: a thread's stack, 2 MiB, is soon full of them where nothing is optimised
    match Box::pin(attempt(id, task, cluster, store, context, &events, &log, started)).await {
        Ok(done) => Ok(done),
        Err(error) => {
            events.note(format!("failed: {error:#}"));
            let unsure = matches!(error.downcast_ref::<Error>(), Some(Error::Unsure { .. }));
            if !unsure {
                give_up(id, store, context, &log).await;
            }
            Err(error)
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the steps of one run, called once")]
async fn attempt(
    id: &BackupId,
    task: &BackupTask,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
    events: &Events,
    log: &RunLog,
    started: Timestamp,
) -> anyhow::Result<Done> {
    events.phase(Phase::Discovering);
    let mut target = until_cancelled(&context.cancel, Target::discover(task, cluster, events)).await?;
    let identity = target.identity.clone();
    let volumes = target.kinds.iter().find(|kind| kind.is("persistentvolumes")).cloned();
    let mut snapshots = Snapshots::new(Request {
        id,
        attempt: &context.attempt,
        location: store.describe().chars().take(TAG_VALUE).collect(),
        cluster_uid: &identity.uid,
        cluster,
        volumes: volumes.as_ref(),
        options: &task.volume_options,
        events,
    });
    let done = carry_out(id, task, &mut target, &mut snapshots, cluster, store, context, events, log, started);
    let result = Box::pin(done).await;
    volumes::settle(&result, &snapshots, store, (context.now)()).await;
    let Standing { manifest: standing, ours } = result?;
    let whose = if ours { "" } else { " (by another worker of this run)" };
    let message = format!(
        "backup `{id}` is {}{whose}: {} objects, {} problems",
        standing.outcome, standing.counts.objects, standing.counts.problems
    );
    Ok(Done {
        outcome: standing.outcome,
        exit_code: ExitCode::from(standing.outcome),
        message,
        result: Some(Bytes::from(standing.to_bytes()?)),
    })
}

/// The backup that stands in the end.
pub(super) struct Standing {
    pub(super) manifest: Manifest,
    /// Whether this worker has written it.
    pub(super) ours: bool,
}

/// All from the first list to the commit.
#[expect(clippy::too_many_arguments, reason = "the steps of one run, called once")]
async fn carry_out(
    id: &BackupId,
    task: &BackupTask,
    target: &mut Target,
    snapshots: &mut Snapshots<'_>,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
    events: &Events,
    log: &RunLog,
    started: Timestamp,
) -> anyhow::Result<Standing> {
    let cancel = &context.cancel;
    let saving = async {
        events.phase(Phase::Saving);
        saved(id, task, target, snapshots, cluster, store, context, events).await
    };
    let around = Around::new(task.hooks, &target.wanted, &target.kinds, cluster, context, events);
    let (saved, hooks) = around.run(saving).await;
    let (mut saved, objects_at) = saved?;
    let waiting = async {
        snapshots.wait(saved.counts).await;
        Ok::<_, Error>(())
    };
    until_cancelled(cancel, waiting).await?;
    target.volumes = snapshots.ended();
    target.volumes_skew = snapshots.skew(objects_at);
    target.hooks = hooks.reports;
    target.problems.extend(hooks.problems);
    target.omissions.extend(hooks.omissions);
    target.problems.append(&mut target.volumes.problems);
    target.omissions.append(&mut target.volumes.omissions);
    saved.problems.extend(target.problems.clone());
    saved.omissions.extend(target.omissions.clone());

    events.phase(Phase::Committing);
    events.note(format!("saved {} objects of {} kinds", saved.counts.objects, saved.kinds.len()));
    let manifest = manifest(id, task, target, saved, store, context, log, started);
    let manifest = until_settled(cancel, manifest).await?;
    if cancel.is_cancelled() {
        return Err(Error::Cancelled.into());
    }
    // from here on the backup may exist, whatever the signal
    let committed = commit::manifest(store, &manifest).await.context("writing the manifest")?;
    if let Err(error) = until_cancelled(cancel, sweep::garbage(store, (context.now)())).await {
        tracing::warn!(%error, "garbage of earlier runs could not be swept");
    }
    Ok(match committed {
        Committed::Ours => Standing { manifest, ours: true },
        Committed::Theirs(standing) => Standing { manifest: *standing, ours: false },
    })
}

/// The cluster as a backup sees it before the first list.
struct Target {
    identity: ClusterIdentity,
    wanted: Wanted,
    kinds: Vec<Kind>,
    served: Vec<Kind>,
    problems: Vec<Problem>,
    omissions: Vec<Omission>,
    hooks: Vec<HookReport>,
    volumes: Ended,
    volumes_skew: f64,
}

impl Target {
    async fn discover(task: &BackupTask, cluster: &Cluster, events: &Events) -> anyhow::Result<Self> {
        let discovery = cluster.discover().await.context("discovery")?;
        let identity = identity(cluster, &discovery).await?;
        let wanted = wanted(task, cluster, &discovery).await?;
        let stale = discovery.stale.iter().map(|group| Problem {
            subject: group.clone(),
            message: "its API server gives no fresh answer, so what it holds is unknown and not saved".to_owned(),
        });
        let problems: Vec<Problem> = stale.collect();
        problems.iter().for_each(|problem| events.send(Event::Problem(problem.clone())));
        let served = discovery.kinds.iter().map(|served| served.kind.clone()).collect();
        let (omissions, hooks) = (Vec::new(), Vec::new());
        let (volumes, volumes_skew, kinds) = (Ended::default(), 0.0, Vec::new());
        let mut target = Self { identity, wanted, kinds, served, problems, omissions, hooks, volumes, volumes_skew };
        let stale = discovery.stale;
        // the problem of its group says it; asking for each kind would take minutes to fail
        let answers = |served: &Served| !stale.contains(&served.kind.api_version());
        discovery.kinds.into_iter().filter(answers).for_each(|served| target.choose(served));
        Ok(target)
    }

    fn choose(&mut self, served: Served) {
        match selection::never_backed_up(&served) {
            Some(rule) => {
                self.omissions.push(Omission { subject: served.kind.key(), rule: rule.to_owned(), objects: None });
            }
            None => self.kinds.push(served.kind),
        }
    }

    fn namespaces(&self) -> Vec<String> {
        match &self.wanted {
            Wanted::Cluster => Vec::new(),
            Wanted::Namespaces(names) => names.iter().cloned().collect(),
        }
    }
}

async fn identity(cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<ClusterIdentity> {
    Ok(ClusterIdentity {
        uid: cluster_uid(cluster, discovery).await?,
        version: cluster.version().await.context("asking for the version")?,
    })
}

/// What tells this cluster from others: the uid of `kube-system`, which lives as long as the cluster does.
pub(super) async fn cluster_uid(cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Namespace {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        uid: String,
    }
    let kind = &discovery.get("namespaces").context("the API server serves no namespaces")?.kind;
    let found =
        cluster.get(kind, &ObjectName::new(None, "kube-system")).await.context("reading the cluster's identity")?;
    let bytes = found.context("there is no namespace `kube-system`")?;
    Ok(serde_json::from_slice::<Namespace>(&bytes).context("reading the namespace `kube-system`")?.metadata.uid)
}

/// The namespaces that are meant. A name or glob that means none is an error: a backup of nothing would look good.
async fn wanted(task: &BackupTask, cluster: &Cluster, discovery: &Discovery) -> anyhow::Result<Wanted> {
    let Some(patterns) = &task.namespaces else { return Ok(Wanted::Cluster) };
    let kind = &discovery.get("namespaces").context("the API server serves no namespaces")?.kind;
    let there: BTreeSet<String> =
        cluster.list_names(kind, None).await.context("listing namespaces")?.into_iter().map(|l| l.name.name).collect();
    let patterns = Namespaces::parse(patterns).map_err(|error| Usage(error.to_string()))?;
    let existing: Vec<&str> = there.iter().map(String::as_str).collect();
    if let Some(unmatched) = patterns.unmatched(&existing).first() {
        return Err(Error::NotFound(no_such_namespace(unmatched, &existing)).into());
    }
    let names = there.into_iter().filter(|name| patterns.matches(name)).collect();
    Ok(Wanted::Namespaces(names))
}

fn no_such_namespace(pattern: &str, existing: &[&str]) -> String {
    let similar = similar(pattern, existing.iter().copied());
    let hint = match similar.first() {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`kubectl get namespaces` lists what there is".to_owned(),
    };
    format!("there is no namespace `{pattern}`\nhint: {hint}")
}

/// Saves at one revision, where that is asked for, and begins the snapshots meanwhile. When the revision is compacted on
/// the way, all kinds start again once at a new one. Answers with the time of the revision, too.
#[expect(clippy::too_many_arguments, reason = "the steps of one run, called once")]
async fn saved(
    id: &BackupId,
    task: &BackupTask,
    target: &Target,
    snapshots: &mut Snapshots<'_>,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
    events: &Events,
) -> anyhow::Result<(Saved, Timestamp)> {
    let reference = target.kinds.iter().find(|kind| kind.is("namespaces")).context("namespaces can't be listed")?;
    let mut request = SaveRequest {
        id,
        attempt: &context.attempt,
        wanted: &target.wanted,
        kinds: &target.kinds,
        served: &target.served,
        volumes: task.volumes,
        install_namespace: &context.install_namespace,
        restart_when_compacted: true,
    };
    loop {
        let pin = pin::choose(cluster, reference, &target.kinds, task.consistency);
        let pin = async { pin.await.context("choosing the revision") };
        let pin = until_cancelled(&context.cancel, pin).await?;
        events.note(format!("reading at revision {}", pin.revision.as_deref().unwrap_or("(none)")));
        let read_at = (context.now)();
        let (found, claims) = mpsc::unbounded_channel();
        let objects = Box::pin(save::objects(cluster, store, &request, pin, found, events, &context.cancel));
        let volumes = Box::pin(async {
            snapshots.start(claims).await;
            Ok(())
        });
        match tokio::try_join!(objects, volumes) {
            Err(error) if request.restart_when_compacted && error.is_expired() => {
                events.note("the revision was compacted on the way; starting again at a new one");
                request.restart_when_compacted = false;
            }
            other => return Ok((other?.0, read_at)),
        }
    }
}

/// Stores report and log, and makes the manifest of it all.
#[expect(clippy::too_many_arguments, reason = "the parts of one manifest, called once")]
async fn manifest(
    id: &BackupId,
    task: &BackupTask,
    target: &Target,
    saved: Saved,
    store: &dyn Store,
    context: &Context,
    log: &RunLog,
    started: Timestamp,
) -> anyhow::Result<Manifest> {
    let ended = (context.now)();
    let seconds = (ended - started).total(jiff::Unit::Second).unwrap_or_default();
    let counts = Counts {
        objects: saved.counts.objects,
        bytes: saved.counts.bytes,
        problems: saved.problems.len() as u64,
        omissions: saved.omissions.len() as u64,
        volumes: target.volumes.copies.len() as u64,
        volume_bytes: target.volumes.copies.iter().map(|copy| copy.source.gib << 30).sum(),
    };
    let outcome = if saved.problems.is_empty() { Outcome::Complete } else { Outcome::Partial };
    let report = Report {
        selection: task.clone(),
        namespaces: target.namespaces(),
        kinds: saved.kinds,
        problems: saved.problems,
        omissions: saved.omissions,
        hooks: target.hooks.clone(),
        volumes: target.volumes.copies.clone(),
        seconds,
    };
    let report = Bytes::from(serde_json::to_vec_pretty(&report)?);
    let put = async |name: &str, bytes: Bytes| -> anyhow::Result<File> {
        commit::put_file(store, id, &context.attempt, name, bytes).await.with_context(|| format!("storing {name}"))
    };
    let files = Files {
        objects: saved.objects,
        index: saved.index,
        report: put("report.json", report).await?,
        log: put("log.jsonl.zst", log.take()?).await?,
    };
    let unpinned: Vec<_> = saved.pin.unpinned.into_values().collect();
    let skew_seconds = if unpinned.is_empty() { 0.0 } else { seconds }.max(target.volumes_skew);
    Ok(Manifest {
        format: FORMAT.to_owned(),
        requires: Vec::new(),
        id: id.clone(),
        attempt: context.attempt.clone(),
        cluster: target.identity.clone(),
        scope: if task.namespaces.is_some() { Scope::Namespaces } else { Scope::Cluster },
        namespaces: target.namespaces(),
        started_at: started,
        ended_at: ended,
        outcome,
        consistency: Consistency { revision: saved.pin.revision, unpinned, skew_seconds },
        counts,
        files,
        tool: concat!("kubectl-backup ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

/// After a failure: nothing of the data stays, the log does. Best effort: the error that ended the run matters more than
/// one of cleaning up.
async fn give_up(id: &BackupId, store: &dyn Store, context: &Context, log: &RunLog) {
    if let Err(left) = commit::discard(store, id, &context.attempt).await {
        tracing::warn!(error = %left, "what this attempt stored is left for a later run to sweep");
    }
    let stored = async {
        let lines = log.take()?;
        if !lines.is_empty() {
            commit::put_file(store, id, &context.attempt, "log.jsonl.zst", lines).await?;
        }
        anyhow::Ok(())
    };
    if let Err(error) = stored.await {
        tracing::warn!(%error, "the log of this attempt could not be stored");
    }
}
