//! `worker`: what this binary does in a Job's pod. Not for people.

use crate::failure::Failure;
use anyhow::Context as _;
use kubectl_backup::jobs::result;
use kubectl_backup::report::ExitCode;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What this binary does in a Job's pod
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
}

/// Parts of a worker.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Part {
    /// Copy the result that waits in this pod to stdout
    Result,
}

/// Works, or hands the waiting result over.
///
/// # Errors
/// There is no result, or nobody took it.
pub(crate) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match args.part {
        None => Ok(kubectl_backup::worker::run().await),
        Some(Part::Result) => {
            let stream = |fd: io::Result<OwnedFd>| fd.map(|fd| tokio::fs::File::from_std(fd.into()));
            let mut stdin = stream(io::stdin().as_fd().try_clone_to_owned()).context("opening stdin")?;
            let mut stdout = stream(io::stdout().as_fd().try_clone_to_owned()).context("opening stdout")?;
            let handed = result::client(&result::socket(), &mut stdin, &mut stdout).await;
            handed
                .map_err(|error| Failure::new(ExitCode::Failed, format!("the result can't be handed over: {error}")))?;
            Ok(ExitCode::Complete)
        }
    }
}
