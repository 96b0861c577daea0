//! `worker`: what this binary does in a Job's pod. Not for people.

use crate::failure::Failure;
use kubectl_backup::jobs::result;
use kubectl_backup::report::ExitCode;

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
            let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
            let handed = result::client(&result::socket(), &mut stdin, &mut stdout).await;
            handed.map_err(|error| Failure::new(ExitCode::Failed, format!("the result can't be handed over: {error}")))?;
            Ok(ExitCode::Complete)
        }
    }
}
