//! `ns` and `cluster`: discover, run pre hooks, choose the revision, save, run post hooks, commit.

pub(super) mod places;
pub(super) mod target;

use super::hooks::{Around, HookReport};
use super::log::RunLog;
use super::{Context, Done, volumes};
use crate::archive::manifest::{Consistency, Counts, FORMAT, File, Files, Manifest, Scope};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::id::BackupId;
use crate::pipeline::save::commit::{self, Committed};
use crate::pipeline::save::{self, KindReport, SaveRequest, Saved, pin};
use crate::pipeline::{Error, sweep, until_cancelled, until_settled};
use crate::report::{ExitCode, Omission, Outcome, Phase, Problem};
use crate::rules::claims::VolumeData;
use crate::rules::selection::Selection;
use crate::store::Store;
use crate::volumes::record::VolumeCopy;
use crate::volumes::snapshot::{Options, Request, Snapshots};
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use places::Places;
use serde::{Deserialize, Serialize};
use target::Target;
use tokio::sync::mpsc;

/// What to back up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupTask {
    /// Which objects.
    #[serde(flatten)]
    pub selection: Selection,
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
    /// Lists in flight; `None`: [`save::LISTS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
}

impl Default for BackupTask {
    /// Everything, with hooks.
    fn default() -> Self {
        Self {
            selection: Selection::default(),
            volumes: VolumeData::default(),
            consistency: pin::Demand::default(),
            hooks: yes(),
            volume_options: Options::default(),
            parallel: None,
        }
    }
}

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
    /// What else it meant.
    #[serde(default)]
    pub resolved: Resolved,
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

/// What a selection came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resolved {
    /// The kinds that were listed, by key.
    pub kinds: Vec<String>,
    /// The namespaces that `--exclude-namespace` or their labels left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub excluded_namespaces: Vec<String>,
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
    let context = &Context { events, ..context.clone() };
    let attempt = Attempt { id, task, cluster, store, context, log, started: (context.now)() };
    // boxed, as the futures below it: a thread's stack, 2 MiB, is soon full of them where nothing is optimised
    match Box::pin(attempt.run()).await {
        Ok(done) => Ok(done),
        Err(error) => {
            let unsure = matches!(error.downcast_ref::<Error>(), Some(Error::Unsure { .. }));
            if !unsure {
                attempt.give_up(&error).await;
            }
            Err(error)
        }
    }
}

/// The backup that stands in the end.
pub(super) struct Standing {
    pub(super) manifest: Manifest,
    /// Whether this worker has written it.
    pub(super) ours: bool,
}

/// What one pass of the lists gave.
struct Pass {
    saved: Saved,
    /// The namespaces at the revision.
    places: Places,
    /// When the revision was chosen.
    read_at: Timestamp,
    /// Seconds from before that until the last list was done.
    seconds: f64,
}

impl Pass {
    /// Seconds that what is saved is apart at most, but for volumes: where a kind is not at the revision, it was listed
    /// at some time until the last list was done.
    fn skew(&self) -> f64 {
        if self.saved.pin.unpinned.is_empty() { 0.0 } else { self.seconds }
    }
}

/// One worker's try, with what all of its steps need.
struct Attempt<'a> {
    id: &'a BackupId,
    task: &'a BackupTask,
    cluster: &'a Cluster,
    store: &'a dyn Store,
    /// Its events go through the log.
    context: &'a Context,
    log: RunLog,
    started: Timestamp,
}

impl Attempt<'_> {
    async fn run(&self) -> anyhow::Result<Done> {
        let Self { id, task, cluster, store, context, .. } = *self;
        context.events.phase(Phase::Discovering);
        let discovering = Target::discover(&task.selection, cluster, &context.events);
        let mut target = until_cancelled(&context.cancel, discovering).await?;
        let identity = target.identity.clone();
        let volumes = target.kinds.iter().find(|kind| kind.is("persistentvolumes")).cloned();
        let mut snapshots = Snapshots::new(Request {
            id,
            attempt: &context.attempt,
            location: volumes::tag_of(store),
            cluster_uid: &identity.uid,
            cluster,
            volumes: volumes.as_ref(),
            install_namespace: &context.install_namespace,
            options: &task.volume_options,
            events: &context.events,
        });
        let result = Box::pin(self.carry_out(&mut target, &mut snapshots)).await;
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
            result: Some(Packed::of(&standing)?),
        })
    }

    /// All from the first list to the commit.
    async fn carry_out(&self, target: &mut Target, snapshots: &mut Snapshots<'_>) -> anyhow::Result<Standing> {
        let Self { task, cluster, store, context, .. } = *self;
        let (cancel, events) = (&context.cancel, &context.events);
        let saving = async {
            events.phase(Phase::Saving);
            self.saved(target, snapshots).await
        };
        let Places { wanted, chosen, .. } = &target.places;
        let around = Around::new(task.hooks, wanted, chosen, &target.kinds, cluster, context, events);
        let (saved, hooks) = around.run(saving).await;
        let pass = saved?;
        let (objects_at, skew) = (pass.read_at, pass.skew());
        let Pass { mut saved, places, .. } = pass;
        target.settle(places, task.hooks, events);
        let waiting = async {
            snapshots.wait(saved.counts).await;
            Ok::<_, Error>(())
        };
        until_cancelled(cancel, waiting).await?;
        target.volumes = snapshots.ended();
        target.skew_seconds = snapshots.skew(objects_at).max(skew);
        target.hooks = hooks.reports;
        target.problems.extend(hooks.problems);
        target.omissions.extend(hooks.omissions);
        target.problems.append(&mut target.volumes.problems);
        target.omissions.append(&mut target.volumes.omissions);
        saved.problems.extend(target.problems.clone());
        saved.omissions.extend(target.omissions.clone());

        events.phase(Phase::Committing);
        events.note(format!("saved {} objects of {} kinds", saved.counts.objects, saved.kinds.len()));
        let manifest = until_settled(cancel, self.manifest(target, saved)).await?;
        let stored = commit::check_stored(store, &manifest, self.started, (context.now)());
        until_cancelled(cancel, stored).await.context("looking at what is stored")?;
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

    /// Saves at one revision, where that is asked for, and begins the snapshots meanwhile. When the revision is compacted on
    /// the way, all kinds start again once at a new one.
    async fn saved(&self, target: &Target, snapshots: &mut Snapshots<'_>) -> anyhow::Result<Pass> {
        let Self { id, task, cluster, store, context, .. } = *self;
        let events = &context.events;
        let mut restart_when_compacted = true;
        loop {
            let began = (context.now)();
            let (pin, places) = target.begin(task, cluster, context, events).await?;
            let request = SaveRequest { restart_when_compacted, ..target.request(&places, id, task, context) };
            let read_at = (context.now)();
            let (found, claims) = mpsc::unbounded_channel();
            let objects = Box::pin(async {
                let saved = save::objects(cluster, store, &request, pin, found, events, &context.cancel).await?;
                Ok((saved, seconds_between(began, (context.now)())))
            });
            let volumes = Box::pin(async {
                snapshots.start(claims).await;
                Ok::<_, Error>(())
            });
            match tokio::try_join!(objects, volumes) {
                Err(error) if restart_when_compacted && error.is_expired() => {
                    events.note("the revision was compacted on the way; starting again at a new one");
                    restart_when_compacted = false;
                }
                other => {
                    let ((saved, seconds), ()) = other?;
                    return Ok(Pass { saved, places, read_at, seconds });
                }
            }
        }
    }

    /// Stores report and log, and makes the manifest of it all.
    async fn manifest(&self, target: &Target, saved: Saved) -> anyhow::Result<Manifest> {
        let Self { id, task, context, started, .. } = *self;
        let ended = (context.now)();
        let seconds = seconds_between(started, ended);
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
            resolved: target.resolved(),
            kinds: saved.kinds,
            problems: saved.problems,
            omissions: saved.omissions,
            hooks: target.hooks.clone(),
            volumes: target.volumes.copies.clone(),
            seconds,
        };
        let report = Bytes::from(serde_json::to_vec_pretty(&report)?);
        let files = Files {
            objects: saved.objects,
            index: saved.index,
            report: self.put("report.json", report).await?,
            log: self.put("log.jsonl.zst", self.log.take()?).await?,
        };
        let unpinned: Vec<_> = saved.pin.unpinned.into_values().collect();
        let skew_seconds = target.skew_seconds;
        Ok(Manifest {
            format: FORMAT.to_owned(),
            requires: Vec::new(),
            id: id.clone(),
            attempt: context.attempt.clone(),
            cluster: target.identity.clone(),
            scope: if task.selection.namespaces.is_some() { Scope::Namespaces } else { Scope::Cluster },
            namespaces: target.namespaces(),
            selection: task.selection.flags(),
            safety_of: None,
            copied_from: None,
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
    async fn give_up(&self, error: &anyhow::Error) {
        let Self { id, store, context, .. } = *self;
        if let Err(left) = commit::discard(store, id, &context.attempt).await {
            tracing::warn!(error = %left, "what this attempt stored is left for a later run to sweep");
        }
        self.log.keep(error, context, id, store).await;
    }

    async fn put(&self, name: &str, bytes: Bytes) -> anyhow::Result<File> {
        let put = commit::put_file(self.store, self.id, &self.context.attempt, name, bytes);
        put.await.with_context(|| format!("storing {name}"))
    }
}

fn seconds_between(began: Timestamp, ended: Timestamp) -> f64 {
    (ended - began).total(jiff::Unit::Second).unwrap_or_default()
}
