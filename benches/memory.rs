//! The most memory that a worker takes, in a process of its own.

use crate::backup::mb;
use crate::figures::{Book, Figure, Target};
use crate::worker::{self, Said};
use crate::{client, load, objects};
use anyhow::{Context as _, ensure};
use kubectl_backup::jobs::submit::WORKER_ENV;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::rules::selection::Selection;
use std::process::Stdio;
use tokio::process::Command;

/// What a worker may take, in MiB.
const LIMIT: f64 = 72.0;
/// What a restore may take more for each object, in bytes.
const EACH: f64 = 200.0;
/// How much more than the smallest of the loads the others may take.
const GROWTH: f64 = 1.1;
const NAME: &str = "worker's peak memory with ";
const RESTORE: &str = "restore worker's peak memory with ";

/// Measures. The highest of the rounds counts.
pub(crate) async fn run(location: &str, holds: &str, rounds: usize, figures: &Book) -> anyhow::Result<()> {
    let mut all: Vec<Said> = Vec::new();
    for _ in 0..rounds {
        all.push(process(location, &["worker"]).await?);
    }
    let peaks: Vec<String> = all.iter().map(|said| format!("{:.1}", said.peak_mib)).collect();
    let highest = all.iter().max_by(|a, b| a.peak_mib.total_cmp(&b.peak_mib)).context("no round")?;
    let earlier = figures.read()?.into_iter().find(|figure| figure.what.starts_with(NAME));
    figures.add(&Figure {
        what: format!("{NAME}{holds}"),
        objects: highest.objects,
        measured: highest.peak_mib,
        unit: " MiB".to_owned(),
        target: Some(Target::AtMost(LIMIT)),
        detail: format!(
            "rounds: {}; {:.0} of it program; {} objects, {:.0} MB of JSON as {:.1} MB, in {:.1} s and {:.1} CPU s",
            peaks.join(", "),
            highest.program_mib,
            highest.objects,
            mb(highest.bytes),
            mb(highest.stored),
            highest.seconds,
            highest.cpu
        ),
    })?;
    let Some(first) = earlier else { return Ok(()) };
    figures.add(&Figure {
        what: format!("the same against {}", first.what.trim_start_matches(NAME)),
        objects: highest.objects,
        measured: highest.peak_mib / first.measured,
        unit: " ×".to_owned(),
        target: Some(Target::AtMost(GROWTH)),
        detail: format!("{:.1} against {:.1} MiB", highest.peak_mib, first.measured),
    })
}

/// The same for a restore into namespaces that aren't there, which may take more for each object.
pub(crate) async fn restore(location: &str, namespaces: usize, rounds: usize, figures: &Book) -> anyhow::Result<()> {
    let (place, store) = worker::open(location).await?;
    let names = (0..namespaces).map(objects::namespace).collect();
    let task = Verb::Backup(BackupTask { selection: Selection::of_namespaces(names), ..BackupTask::default() });
    let backup = worker::carry_out(task, place, &client::cluster().await?, &*store).await?.manifest()?;
    let mut all: Vec<Said> = Vec::new();
    for round in 0..rounds {
        let (trial, namespaces) = (format!("m{namespaces}-{round}"), namespaces.to_string());
        all.push(process(location, &["restore-worker", backup.id.as_str(), &namespaces, &trial]).await?);
        load::settled().await?;
    }
    worker::remove(&*store, &backup.id).await?;
    let peaks: Vec<String> = all.iter().map(|said| format!("{:.1}", said.peak_mib)).collect();
    let highest = all.iter().max_by(|a, b| a.peak_mib.total_cmp(&b.peak_mib)).context("no round")?;
    let objects = backup.counts.objects;
    let earlier = figures.read()?.into_iter().find(|figure| figure.what.starts_with(RESTORE));
    figures.add(&Figure {
        what: format!("{RESTORE}{objects} objects"),
        objects,
        measured: highest.peak_mib,
        unit: " MiB".to_owned(),
        target: Some(Target::AtMost((LIMIT + objects as f64 * EACH / f64::from(1 << 20)).round())),
        detail: format!(
            "rounds: {}; {:.0} of it program; {} created, in {:.1} s and {:.1} CPU s; {:.1} MB of result",
            peaks.join(", "),
            highest.program_mib,
            highest.objects,
            highest.seconds,
            highest.cpu,
            mb(highest.bytes)
        ),
    })?;
    let Some(first) = earlier.filter(|first| first.objects < objects) else { return Ok(()) };
    figures.add(&Figure {
        what: format!("growth of a restore's memory from {} to {objects} objects", first.objects),
        objects,
        measured: (highest.peak_mib - first.measured) * f64::from(1 << 20) / (objects - first.objects) as f64,
        unit: " bytes an object".to_owned(),
        target: Some(Target::AtMost(EACH)),
        detail: format!("{:.1} against {:.1} MiB", highest.peak_mib, first.measured),
    })
}

async fn process(location: &str, args: &[&str]) -> anyhow::Result<Said> {
    let mut command = Command::new(std::env::current_exe()?);
    command.envs(WORKER_ENV).args(["--location", location]).args(args);
    let output = command.stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "the worker ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("what the worker said")
}
