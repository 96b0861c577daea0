//! What this binary does in a Job's pod: takes its task from the environment, carries it out, publishes its status to the
//! end, leaves the list of backups in the cluster, and hands a result over to who waits for one.
//!
//! The exit code is for the Job's pod failure policy: 0 when the work is done, also in part; our own codes when trying
//! again can't help; anything else is tried again. The log goes to stderr of the pod: events and errors, never the content
//! of an object. How a verb works is not known here.

use crate::archive::manifest::{BACKUPS, Manifest, id_of_key};
use crate::archive::packed::Packed;
use crate::cluster::{Cluster, connect};
use crate::id::{Attempt, BackupId};
use crate::jobs::publish::{Owner, Pace, Publisher};
use crate::jobs::result::{self, Served};
use crate::jobs::{Status, binding, list_cache};
use crate::operations::read::ListResult;
use crate::operations::restore::DryRun;
use crate::operations::{self, Context, Done, Task, Verb};
use crate::pipeline::catalog;
use crate::report::{Event, Events, ExitCode, Outcome, Phase};
use crate::store::{self, Store};
use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// For how long an answer waits to be fetched.
const ANSWER_WAITS: Duration = Duration::from_secs(300);
/// For how long the result of work that is done waits: nobody may be there any more who wants to see it.
const RESULT_WAITS: Duration = Duration::from_secs(60);
/// For how long cleaning up may take after the first signal; the pod has 60 s in all.
const CLEANING: Duration = Duration::from_secs(40);
/// For how long the list of backups may be worked on when the backup itself is done.
const LISTING: Duration = Duration::from_secs(20);
/// Manifests read at once for the list.
const AT_ONCE: usize = 16;
/// What is logged where nothing else is asked for. kube's client logs the body of answers that it can't parse, at WARN.
const LOGGED: &str = "info,kube_client=error,aws=warn,hyper=warn";
/// This version, for the status.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Works. Reads the environment that `jobs::submit` has given the pod. The first SIGTERM lets the work clean up, the
/// second one doesn't wait.
pub async fn run() -> ExitCode {
    start_log(std::env::var("RUST_LOG").ok().as_deref());
    let cancel = CancellationToken::new();
    tokio::select! {
        code = work(&cancel) => code.unwrap_or_else(|error| {
            tracing::error!("{}", told(&error));
            operations::exit_code(&error)
        }),
        () = two_signals(&cancel) => {
            tracing::error!("stopped by a second signal, without cleaning up");
            ExitCode::Interrupted
        }
    }
}

/// Whether the worker of this verb hands something over to who waits for it. A backup's doesn't: it often has nobody who
/// waits, and all that a person wants to know of it stands in its status.
pub fn hands_over(verb: &Verb) -> bool {
    !matches!(verb, Verb::Backup(_))
}

/// An error in words: what happened from the outermost step to the cause, on one line, then every `hint:` on its own.
pub fn told(error: &anyhow::Error) -> String {
    let (mut message, mut hints) = (String::new(), Vec::new());
    for text in error.chain().map(ToString::to_string) {
        let (ways_out, said): (Vec<&str>, Vec<&str>) =
            text.lines().map(str::trim).partition(|line| line.starts_with("hint: "));
        for hint in ways_out {
            if !hints.iter().any(|known| known == hint) {
                hints.push(hint.to_owned());
            }
        }
        let said = said.join(" ");
        // many errors say their cause themselves
        if !said.is_empty() && !message.contains(&said) {
            message = if message.is_empty() { said } else { format!("{message}: {said}") };
        }
    }
    hints.insert(0, message);
    hints.join("\n")
}

/// What is logged, with a level such as `debug` for this program. The libraries' levels can't be raised: at `trace` they
/// log what goes over the wire.
fn logged(level: Option<&str>) -> String {
    match level.and_then(|level| level.parse::<tracing::Level>().ok()) {
        Some(level) => format!("{LOGGED},kubectl_backup={level}"),
        None => LOGGED.to_owned(),
    }
}

/// Starts the log. A panic's own message could hold what the code was looking at, so only its place is told.
fn start_log(level: Option<&str>) {
    use tracing_subscriber::EnvFilter;
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .with_ansi(false)
        .with_target(false)
        .with_env_filter(EnvFilter::new(logged(level)))
        .with_writer(std::io::stderr);
    // refused only where there is a log already
    subscriber.try_init().ok();
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => tracing::error!("panic at {place}"),
        None => tracing::error!("panic"),
    }));
}

/// Cancels at the first signal and ends at the second.
async fn two_signals(cancel: &CancellationToken) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals can't be received; a stopped worker won't clean up");
        return std::future::pending().await;
    };
    either(&mut terminate, &mut interrupt).await;
    tracing::warn!("stopping on a signal; what was begun is cleaned up");
    cancel.cancel();
    either(&mut terminate, &mut interrupt).await;
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => (),
        _ = other.recv() => (),
    }
}

/// What the pod's environment says.
#[derive(Debug)]
struct Letter {
    task: Task,
    owner: Owner,
    attempt: Attempt,
}

impl Letter {
    fn open(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let get = |name: &str| {
            let text = variable(name).filter(|text| !text.is_empty());
            text.with_context(|| format!("`{name}` is not set: a worker is started by a Job, not by hand"))
        };
        let task = get("KUBECTL_BACKUP_TASK")?;
        let unreadable = |error: serde_json::Error| {
            operations::Usage(format!(
                "the task can't be read by this version ({VERSION}): {error}\n\
                 hint: plugin and image must be of one version; `kubectl backup version` tells both"
            ))
        };
        Ok(Self {
            task: serde_json::from_str(&task).map_err(unreadable)?,
            owner: Owner {
                namespace: get("KUBECTL_BACKUP_NAMESPACE")?,
                job: BackupId::parse(&get("KUBECTL_BACKUP_JOB")?)?,
                job_uid: get("KUBECTL_BACKUP_JOB_UID")?,
            },
            attempt: Attempt::parse(&get("KUBECTL_BACKUP_POD_UID")?)?,
        })
    }
}

/// The status on its way to the cluster.
#[derive(Clone)]
struct Board(Arc<Mutex<(Status, Option<Publisher>)>>);

impl Board {
    /// Changes the status and hands it to the publisher.
    fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, publisher) = &mut *guard;
        change(status);
        if let Some(publisher) = publisher {
            publisher.update(status.clone());
        }
    }

    /// Events that become log lines and status.
    fn events(&self) -> Events {
        let board = self.clone();
        Events::new(move |event| {
            log(&event);
            if !matches!(event, Event::Note { .. }) {
                board.change(|status| status.take(&event, Timestamp::now()));
            }
        })
    }

    /// Publishes the last status; nothing is published after it.
    async fn finish(&self) {
        let (status, publisher) = {
            let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            (guard.0.clone(), guard.1.take())
        };
        if let Some(publisher) = publisher
            && let Err(error) = publisher.finish(status).await
        {
            tracing::warn!("the last status can't be written: {error}");
        }
    }
}

fn log(event: &Event) {
    match event {
        Event::Phase { phase } => tracing::info!("phase {phase}"),
        Event::Progress { .. } => (),
        Event::Problem(problem) => tracing::warn!("{}: {}", problem.subject, problem.message),
        Event::Withdrawn(problem) => tracing::info!("done anew: {}: {}", problem.subject, problem.message),
        Event::Note { message } => tracing::info!("{message}"),
    }
}

/// One run from its letter to its last status.
async fn work(cancel: &CancellationToken) -> anyhow::Result<ExitCode> {
    let Letter { task, owner, attempt } = Letter::open(|name| std::env::var(name).ok())?;
    let cluster = connect::in_cluster()?;
    let verb = task.verb.name();
    tracing::info!("kubectl-backup {VERSION}: {verb} {} in {}", task.id, task.location);
    let status = Status::new(owner.job.clone(), verb, VERSION, attempt.clone(), Timestamp::now());
    let publisher = Publisher::start(cluster.client().clone(), owner.clone(), status.clone(), Pace::default()).await?;
    let board = Board(Arc::new(Mutex::new((status, Some(publisher)))));
    let context = Context {
        now: Arc::new(Timestamp::now),
        events: board.events(),
        cancel: cancel.clone(),
        attempt,
        install_namespace: owner.namespace.clone(),
    };
    let ended = carried_out(&task, &cluster, &context).await;
    // a signal is not the end of the run: the Job's next pod goes on, with these rights; a later run sweeps what is left
    let goes_on = ended.as_ref().is_err_and(|error| operations::exit_code(error) == ExitCode::Interrupted);
    if task.verb.writes_cluster()
        && !goes_on
        && let Err(error) = binding::remove(cluster.client(), &task.id).await
    {
        tracing::warn!("the rights of this run are left behind: {error}");
    }
    let ended = match ended {
        Ok((done, store)) => {
            leave_list(&task, &done, store.as_ref(), &cluster, &owner.namespace).await;
            Ok(done)
        }
        Err(error) => Err(error),
    };
    let verdict = Verdict::of(&ended);
    if let Ok(Done { result: Some(result), .. }) = ended
        && hands_over(&task.verb)
    {
        let waits = if task.verb.writes_cluster() { RESULT_WAITS } else { ANSWER_WAITS };
        hand_over(result, waits, &verdict, &board, cancel).await;
    }
    board.change(|status| status.end(verdict.outcome, verdict.code, Some(&verdict.message), Timestamp::now()));
    board.finish().await;
    verdict.log();
    Ok(verdict.code_of_pod())
}

/// Carries the task out in a task of the runtime, so that a panic is an error like others.
async fn carried_out(task: &Task, cluster: &Cluster, context: &Context) -> anyhow::Result<(Done, Arc<dyn Store>)> {
    let (task, cluster, context, cancel) = (task.clone(), cluster.clone(), context.clone(), context.cancel.clone());
    let mut running = tokio::spawn(async move {
        let store = store::open(&task.location).await?;
        let done = operations::run(&task, &cluster, store.as_ref(), &context).await?;
        Ok((done, store))
    });
    let too_long = async {
        cancel.cancelled().await;
        tokio::time::sleep(CLEANING).await;
    };
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = too_long => {
            running.abort();
            running.await
        }
    };
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => {
            bail!("the worker came upon a mistake of its own and stopped; its log says where\nhint: please report it")
        }
        Err(_) => Err(crate::pipeline::Error::Cancelled).context("cleaning up took too long"),
    }
}

/// How a run ended, for its status.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    outcome: Outcome,
    code: ExitCode,
    message: String,
}

impl Verdict {
    fn of(ended: &anyhow::Result<Done>) -> Self {
        match ended {
            Ok(done) => Self { outcome: done.outcome, code: done.exit_code, message: done.message.clone() },
            Err(error) => {
                let code = operations::exit_code(error);
                let outcome = if code == ExitCode::Interrupted { Outcome::Cancelled } else { Outcome::Failed };
                Self { outcome, code, message: told(error) }
            }
        }
    }

    /// The exit code for the pod failure policy: what was done in part needn't be done again.
    fn code_of_pod(&self) -> ExitCode {
        match self.outcome {
            Outcome::Complete | Outcome::Partial => ExitCode::Complete,
            Outcome::Failed | Outcome::Cancelled => self.code,
        }
    }

    /// The last line of the log, which Kubernetes shows as the pod's termination message when it failed.
    fn log(&self) {
        match self.outcome {
            Outcome::Complete => tracing::info!("{}", self.message),
            Outcome::Partial => tracing::warn!("{}", self.message),
            Outcome::Failed | Outcome::Cancelled => tracing::error!("{}", self.message.replace('\n', "; ")),
        }
    }
}

/// Serves a result until it was fetched, for a while. The status tells the outcome already, so that who fetched it needn't
/// wait for the end.
async fn hand_over(result: Packed, waits: Duration, verdict: &Verdict, board: &Board, cancel: &CancellationToken) {
    let bytes = result.size() as u64;
    let ready = || {
        board.change(|status| {
            status.end(verdict.outcome, verdict.code, Some(&verdict.message), Timestamp::now());
            (status.phase, status.ended_at, status.result_bytes) = (Phase::ResultReady, None, Some(bytes));
        });
    };
    let socket = result::socket();
    let served = tokio::select! {
        served = result::serve(&socket, result, waits, ready) => served,
        () = cancel.cancelled() => Ok(Served::Expired),
    };
    match served {
        Ok(Served::Fetched) => tracing::info!("the result of {bytes} bytes was fetched"),
        Ok(Served::Expired) => tracing::info!("nobody fetched the result of {bytes} bytes"),
        Err(error) => tracing::warn!("the result can't be handed over: {error}"),
    }
}

/// Whether there may be other backups after a run: a restore may have saved what it changed.
fn changes_backups(verb: &Verb) -> bool {
    match verb {
        Verb::Backup(_) => true,
        Verb::Restore(task) => task.dry_run == DryRun::None,
        Verb::Delete(task) => task.dry_run == DryRun::None,
        Verb::Copy(_) => true,
        _ => false,
    }
}

/// Leaves the list of backups in the cluster where this run knows it anew. Best effort: the bucket has it.
async fn leave_list(task: &Task, done: &Done, store: &dyn Store, cluster: &Cluster, namespace: &str) {
    let leaving = async {
        let client = cluster.client();
        let other = match task.verb.other_location() {
            Some(other) => Some((other, store::open_other(other).await?)),
            None => None,
        };
        let (location, store) = other.as_ref().map_or((&task.location, store), |(at, store)| (*at, store.as_ref()));
        let (at, backups) = match (&task.verb, &done.result) {
            (Verb::List, Some(result)) => {
                let mut list: ListResult = serde_json::from_slice(&result.open()?)?;
                list.backups.reverse();
                (list.read_at, list.backups)
            }
            (verb, _) if changes_backups(verb) => {
                let at = Timestamp::now();
                let known = list_cache::read(client, namespace, location).await?.map(|cached| cached.backups);
                (at, newest_first(store, known.unwrap_or_default()).await?)
            }
            _ => return Ok(()),
        };
        list_cache::write(client, namespace, location, &backups, at).await?;
        anyhow::Ok(())
    };
    match tokio::time::timeout(LISTING, leaving).await {
        Ok(Ok(())) => (),
        Ok(Err(error)) => tracing::warn!("the list of backups in the cluster is not brought up to date: {error:#}"),
        Err(_) => tracing::warn!("the list of backups in the cluster is not brought up to date: it took too long"),
    }
}

/// The backups of a location, newest first. A manifest never changes, so those that are known aren't read again.
async fn newest_first(store: &dyn Store, known: Vec<Manifest>) -> anyhow::Result<Vec<Manifest>> {
    let mut known: HashMap<BackupId, Manifest> = known.into_iter().map(|one| (one.id.clone(), one)).collect();
    let ids = store.list(BACKUPS).await?.into_iter().filter_map(|object| id_of_key(&object.key));
    let (mut backups, mut unread) = (Vec::new(), Vec::new());
    for id in ids {
        match known.remove(&id) {
            Some(manifest) => backups.push(manifest),
            None => unread.push(id),
        }
    }
    let read = stream::iter(unread).map(|id| async move {
        match catalog::manifest(store, &id).await {
            Ok(manifest) => Ok(Some(manifest)),
            // damaged, or deleted meanwhile: `list --refresh` tells
            Err(crate::pipeline::Error::Archive(_) | crate::pipeline::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    });
    let read: Vec<Option<Manifest>> = read.buffer_unordered(AT_ONCE).try_collect().await?;
    backups.extend(read.into_iter().flatten());
    backups.sort_by(|a, b| (b.started_at, &b.id).cmp(&(a.started_at, &a.id)));
    Ok(backups)
}

#[cfg(test)]
mod tests;
