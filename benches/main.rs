//! The figures of the contract, measured on a real API server and a real S3 server. `run.sh` starts both, calls the
//! steps one after another, and ends with `report`, which fails when a figure is missed. `README.md` says what each
//! figure is and why it is measured so.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints figures")]

mod backup;
mod client;
mod figures;
mod load;
mod memory;
mod neighbour;
mod objects;
mod plan;
mod process;
mod restore;
mod stages;
#[cfg(feature = "ec2")]
#[path = "../tests/ec2/standin/mod.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "of the tests")]
mod standin;
#[cfg(feature = "ec2")]
mod volumes;
mod worker;
#[cfg(feature = "ec2")]
#[path = "../tests/ec2/world.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "of the tests")]
mod world;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    step: Step,
    /// Where backups go: `s3://…`, with credentials in the environment.
    #[arg(long, env = "BENCH_LOCATION", default_value = "")]
    location: String,
    /// The file that steps add their figures to.
    #[arg(long, env = "BENCH_FIGURES", default_value = "")]
    figures: PathBuf,
}

#[derive(Subcommand)]
enum Step {
    /// Fills the cluster up to this many mixed objects.
    Load { objects: usize },
    /// Fills the cluster with Secrets of 1 MiB.
    LoadSecrets { secrets: usize },
    /// Fills the cluster with Secrets of 4 KiB.
    LoadKind { secrets: usize },
    /// Makes this many namespaces with a few objects each.
    LoadNamespaces { namespaces: usize },
    /// What other clients' requests wait while a backup runs.
    Neighbour,
    /// Backup against plain lists.
    Backup {
        #[arg(long, default_value_t = 5)]
        rounds: usize,
    },
    /// The CPU time of each stage of a backup, on one core.
    Stages,
    /// Peak memory of a worker in a process of its own.
    Memory {
        /// What the cluster holds, as the figure says it.
        holds: String,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Restore against plain POSTs, and a second restore onto what is there by then.
    Restore {
        /// Namespaces of the load, of 1,000 objects each.
        #[arg(default_value_t = 10)]
        namespaces: usize,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Planning against metadata-only lists.
    Plan {
        /// Namespaces of the load, of 1,000 objects each.
        #[arg(default_value_t = 50)]
        namespaces: usize,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Peak memory of a restore in a process of its own.
    RestoreMemory {
        /// Namespaces of the load, of 1,000 objects each.
        namespaces: usize,
        #[arg(long, default_value_t = 2)]
        rounds: usize,
    },
    /// How soon the snapshots of many volumes are begun.
    #[cfg(feature = "ec2")]
    Volumes,
    /// What `memory` runs.
    #[command(hide = true)]
    Worker,
    /// What `restore-memory` runs.
    #[command(hide = true)]
    RestoreWorker { backup: String, namespaces: usize, trial: String },
    /// Prints all figures; fails when one is missed.
    Report,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => 0.into(),
        Ok(false) => 1.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            2.into()
        }
    }
}

/// Whether all is well.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let figures = figures::Book::new(&arguments.figures);
    if matches!(arguments.step, Step::Report) {
        return figures.report();
    }
    if !matches!(arguments.step, Step::Worker | Step::RestoreWorker { .. }) {
        eprintln!("   (before this step the machine was busy to {:.0} %)", process::busy_percent()?);
    }
    let runtime = kubectl_backup::runtime::build().context("starting")?;
    runtime.block_on(async {
        let location = &arguments.location;
        match &arguments.step {
            Step::Load { objects } => load::mixed(*objects).await,
            Step::LoadSecrets { secrets } => load::secrets(*secrets).await,
            Step::LoadKind { secrets } => load::one_kind(*secrets).await,
            Step::LoadNamespaces { namespaces } => load::many_namespaces(*namespaces).await,
            Step::Neighbour => neighbour::run(location, &figures).await,
            Step::Backup { rounds } => backup::run(location, *rounds, &figures).await,
            Step::Stages => stages::run().await,
            Step::Memory { holds, rounds } => memory::run(location, holds, *rounds, &figures).await,
            Step::Restore { namespaces, rounds } => restore::run(location, *namespaces, *rounds, &figures).await,
            Step::Plan { namespaces, rounds } => plan::run(location, *namespaces, *rounds, &figures).await,
            Step::RestoreMemory { namespaces, rounds } => {
                memory::restore(location, *namespaces, *rounds, &figures).await
            }
            #[cfg(feature = "ec2")]
            Step::Volumes => volumes::run(&figures).await,
            Step::Worker => worker::run(location).await,
            Step::RestoreWorker { backup, namespaces, trial } => {
                worker::restore(location, backup, *namespaces, trial).await
            }
            Step::Report => Ok(()),
        }
    })?;
    Ok(true)
}
