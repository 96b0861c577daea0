//! `kubectl backup`: everything that a person sees. Typed arguments (`args`, and each verb's own in `verbs`) become a
//! session, a target and a task (`session`), which are carried out in a Job or in this process (`run`). Data goes to
//! stdout, everything else to stderr (`screen`); errors and exit codes are in `failure`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod args;
mod ask;
mod document;
mod failure;
mod progress;
mod run;
mod screen;
mod session;
mod table;
mod text;
mod verbs;

use crate::args::{Cli, Verb};
use crate::screen::Screen;
use crate::session::Session;
use crate::verbs::{
    backup, copy, delete, describe, diff, init, list, logs, restore, show, undo, verify, version, worker,
};
use anyhow::Context as _;
use kubectl_backup::report::ExitCode;

fn main() -> std::process::ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => {
            let _ = usage.print(); // nobody is left to tell
            return u8::try_from(usage.exit_code()).unwrap_or(ExitCode::Usage as u8).into();
        }
    };
    let screen = Screen::new(cli.common.color);
    let code = start(cli, screen).unwrap_or_else(|error| {
        failure::tell_error(&error, &screen);
        failure::exit_code(&error)
    });
    (code as u8).into()
}

fn start(cli: Cli, screen: Screen) -> anyhow::Result<ExitCode> {
    if let Verb::Version(args) = &cli.verb
        && args.client
    {
        return version::client(args); // starts nothing, so that it takes no time
    }
    let runtime = kubectl_backup::runtime::build().context("starting")?;
    let result = runtime.block_on(carry_out(&cli, screen));
    runtime.shutdown_background(); // a thread may still wait for a keystroke
    result
}

async fn carry_out(cli: &Cli, screen: Screen) -> anyhow::Result<ExitCode> {
    let common = &cli.common;
    if !matches!(cli.verb, Verb::Worker(_)) {
        screen::start_warnings(screen);
    }
    let connect = || Session::connect(common, screen);
    match &cli.verb {
        Verb::Worker(args) => worker::run(args).await,
        Verb::Version(args) => version::run(common, args, screen).await,
        Verb::Init(args) => init::run(common, args, screen).await,
        Verb::Ns(args) => {
            let task = args.task()?;
            backup::run(&connect().await?, task, &args.shared).await
        }
        Verb::Cluster(args) => backup::run(&connect().await?, args.task(), &args.shared).await,
        Verb::List(args) => list::run(&connect().await?, args).await,
        Verb::Describe(args) => describe::run(&connect().await?, args).await,
        Verb::Show(args) => show::run(&connect().await?, args).await,
        Verb::Diff(args) => diff::run(&connect().await?, args).await,
        Verb::Logs(args) => logs::run(&connect().await?, args).await,
        Verb::Restore(args) => restore::run(&connect().await?, args).await,
        Verb::Verify(args) => verify::run(&connect().await?, args).await,
        Verb::Copy(args) => copy::run(&connect().await?, args).await,
        Verb::Delete(args) => delete::run(&connect().await?, args).await,
        Verb::Undo(args) => undo::run(&connect().await?, args).await,
    }
}
