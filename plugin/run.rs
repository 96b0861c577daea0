//! Carries a task out, in a Job ([`job`]) or in this process ([`local`]), and tells meanwhile on stderr how it gets on.

mod job;
mod local;

use crate::failure::Failure;
use crate::screen::{Color, Screen, print, tell};
use crate::session::{Session, Target};
use crate::text::{count, safe};
use jiff::Timestamp;
use kubectl_backup::id::BackupId;
use kubectl_backup::operations::{Task, Verb};
use kubectl_backup::report::{Counts, ExitCode, Outcome, Problem};
use serde::de::DeserializeOwned;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// How to carry a task out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether to wait for the end.
    pub(crate) wait: bool,
    /// For how long.
    pub(crate) timeout: Option<Duration>,
    /// Whether a run that nobody waits for any more has a use: a backup and a restore do, an answer doesn't.
    pub(crate) lasting: bool,
}

impl Manner {
    /// To get an answer. Who waits for one doesn't wait for ever.
    pub(crate) fn answer(timeout: Option<Duration>) -> Self {
        Self { wait: true, timeout: timeout.or(Some(Duration::from_secs(600))), lasting: false }
    }

    /// To get work done.
    pub(crate) fn work(args: crate::args::WaitArgs) -> Self {
        Self { wait: args.wait, timeout: args.timeout.timeout, lasting: true }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The run.
    pub(crate) id: BackupId,
    /// Whether all of it was done.
    pub(crate) outcome: Outcome,
    /// How the program ends.
    pub(crate) code: ExitCode,
    /// What was counted.
    pub(crate) counts: Counts,
    /// The first problems.
    pub(crate) problems: Vec<Problem>,
    /// How many problems there are.
    pub(crate) problems_total: u64,
    /// What the verb gives back.
    pub(crate) result: Option<Vec<u8>>,
    /// How long it took, seen from here.
    pub(crate) took: Duration,
}

/// What became of a run.
#[derive(Debug)]
pub(crate) enum Run {
    /// It ended.
    Ended(Ended),
    /// It goes on without us; the person knows how to follow it.
    Left {
        /// The run.
        id: BackupId,
        /// How the program ends.
        code: ExitCode,
    },
}

impl Ended {
    /// What the verb gave back.
    ///
    /// # Errors
    /// An answer that this version can't read.
    pub(crate) fn result<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let unreadable = |why: String| {
            let hint = "hint: the worker's image may be of another version than this plugin; `kubectl backup version` tells both";
            Failure::new(ExitCode::Failed, format!("the worker's answer can't be understood: {why}\n{hint}"))
        };
        let bytes = self.result.as_deref().ok_or_else(|| unreadable("there is none".to_owned()))?;
        // where, not what: the answer may hold Secret values
        let place = |error: serde_json::Error| unreadable(format!("line {}, column {}", error.line(), error.column()));
        Ok(serde_json::from_slice(bytes).map_err(place)?)
    }

    /// Tells the first problems.
    pub(crate) fn tell_problems(&self, screen: &Screen) {
        tell_problems(&self.problems, self.problems_total, &self.id, screen);
    }
}

/// Problems that are told after a run.
const TOLD: usize = 10;

/// Tells problems, and how many more there are.
pub(crate) fn tell_problems(problems: &[Problem], total: u64, id: &BackupId, screen: &Screen) {
    let label = screen.err(Color::Yellow, "problem:");
    for problem in problems.iter().take(TOLD) {
        tell(&format!("{label} {}: {}", safe(&problem.subject), safe(&problem.message)));
    }
    let told = problems.len().min(TOLD) as u64;
    if total > told {
        let more = count(total - told, "more problem");
        tell(&format!("{label} … {more}; `kubectl backup describe {id}` lists them all"));
    }
}

/// A name for a new run.
pub(crate) fn new_id(name: &str) -> BackupId {
    BackupId::generate(name, Timestamp::now(), random())
}

/// Carries a verb out.
///
/// # Errors
/// What kept it from being done, with the exit code that it means.
pub(crate) async fn run(
    session: &Session,
    target: &Target,
    id: BackupId,
    verb: Verb,
    manner: Manner,
) -> anyhow::Result<Run> {
    let task = Task { id, location: target.location.clone(), verb };
    if target.local {
        local::run(session, &task).await.map(Run::Ended)
    } else {
        job::run(session, target, &task, manner).await
    }
}

/// Carries a verb out that gives an answer, and waits for it. `name` begins the run's id.
///
/// # Errors
/// As [`run`], and when the wait ended before there was an answer.
pub(crate) async fn answer(
    session: &Session,
    target: &Target,
    name: &str,
    verb: Verb,
    timeout: Option<Duration>,
) -> anyhow::Result<Ended> {
    match run(session, target, new_id(name), verb, Manner::answer(timeout)).await? {
        Run::Ended(ended) => Ok(ended),
        Run::Left { code, .. } => Err(Failure::new(code, "interrupted; nothing was changed").into()),
    }
}

/// Ends the program where a run goes on: who detached wants to know what to ask for later.
///
/// # Errors
/// A stdout that takes nothing.
pub(crate) fn left(id: &BackupId, code: ExitCode) -> anyhow::Result<ExitCode> {
    if code == ExitCode::Complete {
        print(&format!("{id}\n"))?;
    }
    Ok(code)
}

/// A number that nobody guesses and that differs between two runs of one second: std's own per-process keys.
fn random() -> u32 {
    let bits = std::hash::RandomState::new().build_hasher().finish();
    u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(result: Option<&str>) -> Ended {
        Ended {
            id: BackupId::parse("x").unwrap(),
            outcome: Outcome::Complete,
            code: ExitCode::Complete,
            counts: Counts::default(),
            problems: Vec::new(),
            problems_total: 0,
            result: result.map(|text| text.as_bytes().to_vec()),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn an_unreadable_answer_is_not_shown() {
        assert_eq!(ended(Some("[1,2]")).result::<Vec<u8>>().unwrap(), [1, 2]);
        let error = ended(Some("[\"hunter2\"]")).result::<Vec<u8>>().unwrap_err().to_string();
        assert!(error.contains("line 1, column") && !error.contains("hunter2"), "{error}");
        assert!(ended(None).result::<Vec<u8>>().is_err());
    }

    #[test]
    fn chance_differs() {
        let drawn: std::collections::BTreeSet<u32> = (0..16).map(|_| random()).collect();
        assert!(drawn.len() > 12, "{drawn:?}");
    }
}
