//! The same work in this process, with the person's kubeconfig and AWS credentials.

use super::Ended;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::Session;
use crate::text::safe;
use jiff::Timestamp;
use kubectl_backup::id::Attempt;
use kubectl_backup::operations::{self, Context, Done, Task};
use kubectl_backup::report::{Counts, Event, Events, ExitCode, Phase, Problem};
use kubectl_backup::store;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a run has told so far.
struct Told {
    progress: Progress,
    phase: Phase,
    counts: Counts,
    problems: Vec<Problem>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Phase { phase } => self.phase = phase,
            Event::Progress { counts } => self.counts = counts,
            Event::Problem(problem) => return self.problems.push(problem),
            Event::Withdrawn(problem) => {
                let told = self.problems.iter().position(|told| *told == problem);
                return told.map_or((), |at| _ = self.problems.remove(at));
            }
            Event::Note { message } => return tracing::info!("{}", safe(&message)),
        }
        self.progress.status(self.phase, self.counts);
    }
}

/// Carries a task out. The first Ctrl-C lets it clean up, the second one doesn't wait.
///
/// # Errors
/// What kept it from being done.
pub(super) async fn run(session: &Session, task: &Task) -> anyhow::Result<Ended> {
    let began = Instant::now();
    let progress = Progress::new(session.screen, "connecting");
    let told = Told { progress, phase: Phase::Starting, counts: Counts::default(), problems: Vec::new() };
    let told = Arc::new(Mutex::new(told));
    let receiver = told.clone();
    let context = Context {
        now: Arc::new(Timestamp::now),
        events: Events::new(move |event| receiver.lock().unwrap_or_else(PoisonError::into_inner).take(event)),
        cancel: CancellationToken::new(),
        attempt: attempt(),
        install_namespace: session.install_namespace.clone(),
    };
    let done = interruptible(session, task, &context).await;
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.progress.end();
    let done = done?;
    Ok(Ended {
        id: task.id.clone(),
        outcome: done.outcome,
        code: done.exit_code,
        counts: told.counts,
        problems: told.problems.clone(),
        problems_total: told.problems.len() as u64,
        result: done.result.map(|packed| packed.open()).transpose()?,
        took: began.elapsed(),
    })
}

async fn interruptible(session: &Session, task: &Task, context: &Context) -> anyhow::Result<Done> {
    let work = async {
        let store = store::open(&task.location).await?;
        let cluster = session.cluster.patient_once_reached();
        operations::run(task, &cluster, store.as_ref(), context).await
    };
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        _ = tokio::signal::ctrl_c() => context.cancel.cancel(),
    }
    tokio::select! {
        done = &mut work => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(
            ExitCode::Interrupted,
            "interrupted before it could clean up; what it left is no backup, and a later run sweeps it",
        ).into()),
    }
}

/// A name for this try, which nobody else uses: there is no pod whose uid it could be.
fn attempt() -> Attempt {
    Attempt::local((u64::from(super::random()) << 32) | u64::from(super::random()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_differ() {
        assert_ne!(attempt(), attempt());
        assert!(attempt().is_local() && Attempt::parse(attempt().as_str()).is_ok());
    }
}
