//! The engine as the worker runs it in its pod, without the Job around it.

use crate::{client, process, restore};
use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use kubectl_backup::archive::manifest::Manifest;
use kubectl_backup::archive::packed::Packed;
use kubectl_backup::cluster::Cluster;
use kubectl_backup::config::Location;
use kubectl_backup::id::{Attempt, BackupId};
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::operations::restore::DryRun;
use kubectl_backup::operations::{self, Context, Done, Task, Verb};
use kubectl_backup::report::{Event, Events, Outcome};
use kubectl_backup::store::{self, Store};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The namespace where Jobs would run.
const INSTALL_NAMESPACE: &str = "kubectl-backup";

/// One run of the engine.
pub(crate) struct Run {
    pub(crate) done: Done,
    pub(crate) seconds: f64,
    /// CPU seconds of this process, all its threads.
    pub(crate) cpu: f64,
    /// When each phase began and each note was made, in seconds.
    pub(crate) moments: Vec<(String, f64)>,
}

/// Opens the location.
pub(crate) async fn open(location: &str) -> anyhow::Result<(Location, Arc<dyn Store>)> {
    let location = Location::parse_url(location).context("`--location` or BENCH_LOCATION")?;
    let store = store::open(&location).await?;
    Ok((location, store))
}

/// Carries a verb out.
pub(crate) async fn carry_out(
    verb: Verb,
    location: Location,
    cluster: &Cluster,
    store: &dyn Store,
) -> anyhow::Result<Run> {
    let id = BackupId::generate("bench", Timestamp::now(), fastrand::u32(..));
    let moments = Arc::new(Mutex::new(Vec::new()));
    let (noted, started) = (moments.clone(), Instant::now());
    let events = Events::new(move |event| {
        let what = match event {
            Event::Phase { phase } => phase.to_string(),
            Event::Note { message } => message,
            Event::Problem(problem) => {
                eprintln!("problem: {}: {}", problem.subject, problem.message);
                return;
            }
            Event::Withdrawn(_) | Event::Progress { .. } => return,
        };
        noted.lock().unwrap_or_else(PoisonError::into_inner).push((what, started.elapsed().as_secs_f64()));
    });
    let context = Context {
        now: Arc::new(Timestamp::now),
        events,
        cancel: tokio_util::sync::CancellationToken::new(),
        attempt: Attempt::parse("bench")?,
        install_namespace: INSTALL_NAMESPACE.to_owned(),
    };
    let task = Task { id, location, verb };
    let (cpu, started) = (process::cpu_seconds()?, Instant::now());
    let done = operations::run(&task, cluster, store, &context).await?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), process::cpu_seconds()? - cpu);
    ensure!(done.outcome == Outcome::Complete, "{}", done.message);
    let moments = std::mem::take(&mut *moments.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Run { done, seconds, cpu, moments })
}

impl Run {
    /// The backup that this run made.
    pub(crate) fn manifest(&self) -> anyhow::Result<Manifest> {
        Ok(serde_json::from_slice(&self.done.result.as_ref().context("no manifest")?.open()?)?)
    }

    /// When something began, in seconds.
    pub(crate) fn moment(&self, beginning: &str) -> f64 {
        self.moments.iter().find(|(what, _)| what.starts_with(beginning)).map_or(0.0, |(_, when)| *when)
    }
}

/// Removes a backup: manifest first, as `delete` does.
pub(crate) async fn remove(store: &dyn Store, id: &BackupId) -> anyhow::Result<()> {
    store.delete(&format!("backups/{id}.json")).await?;
    for object in store.list(&format!("data/{id}/")).await? {
        store.delete(&object.key).await?;
    }
    Ok(())
}

/// What a worker in a process of its own says of itself at its end.
#[derive(Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) stored: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu: f64,
    pub(crate) peak_mib: f64,
    pub(crate) program_mib: f64,
}

/// The program of that process: one restore of a backup, each namespace to one of its own in this trial.
pub(crate) async fn restore(location: &str, backup: &str, namespaces: usize, trial: &str) -> anyhow::Result<()> {
    let (location, store) = open(location).await?;
    let cluster = client::cluster().await?;
    let mapping = restore::mapping(namespaces, trial);
    let task = Verb::Restore(Box::new(restore::task(backup, &mapping, DryRun::None)));
    let run = carry_out(task, location, &cluster, &*store).await?;
    // what is read of the result counts as well from here on
    let (peak_mib, program_mib) = (process::peak_mib()?, process::program_mib()?);
    let (objects, result) = (restore::created(&run)?, run.done.result.as_ref().map_or(0, Packed::size));
    let (bytes, stored) = (result as u64, 0);
    let said = Said { objects, bytes, stored, seconds: run.seconds, cpu: run.cpu, peak_mib, program_mib };
    println!("{}", serde_json::to_string(&said)?);
    Ok(())
}

/// The program of that process: one backup of the cluster.
pub(crate) async fn run(location: &str) -> anyhow::Result<()> {
    let (location, store) = open(location).await?;
    let cluster = client::cluster().await?;
    let run = carry_out(Verb::Backup(BackupTask::default()), location, &cluster, &*store).await?;
    let manifest = run.manifest()?;
    let said = Said {
        objects: manifest.counts.objects,
        bytes: manifest.counts.bytes,
        stored: manifest.files.objects.size,
        seconds: run.seconds,
        cpu: run.cpu,
        peak_mib: process::peak_mib()?,
        program_mib: process::program_mib()?,
    };
    println!("{}", serde_json::to_string(&said)?);
    remove(&*store, &manifest.id).await
}
