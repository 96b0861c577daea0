//! Words for progress and result: [`Event`] while a run works, [`Problem`] and [`Omission`] for what it could not or was
//! told not to do, [`Outcome`] for how it ended. No text here is printed by the engine; `plugin` and `worker` do that.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Something that was selected and could not be saved or restored. Any problem makes the outcome `Partial`.
///
/// `message` never holds an object's content: the API server's texts about Secrets may echo values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What it is about: a kind (`secrets`), an object (`secrets foo/db`), a namespace, a step.
    pub subject: String,
    /// What happened and, where known, the way out. Lower case, one sentence.
    pub message: String,
}

/// A message as a problem has it: one line, the hint a part of the sentence.
pub fn one_line(message: impl std::fmt::Display) -> String {
    message.to_string().replace("\nhint: ", "; hint: ")
}

/// What a rule or a flag left out on purpose. Omissions don't make a run partial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Omission {
    /// What was left out: a kind, or an object.
    pub subject: String,
    /// The rule or flag that says so.
    pub rule: String,
    /// How many objects; `None` where they were not read, nor counted by the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Everything selected was done.
    Complete,
    /// Done, with problems that the report lists.
    Partial,
    /// Not done; nothing that looks whole is left behind.
    Failed,
    /// Stopped by a signal or by `cancel`; nothing that looks whole is left behind.
    Cancelled,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "Complete",
            Self::Partial => "Partial",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        })
    }
}

/// How a program ends, as the contract of the command line states it. The worker uses the same numbers, so that the
/// Job's pod failure policy can tell our own verdicts (never retried) from kills and disruptions (retried).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, all of it.
    Complete = 0,
    /// Failed.
    Failed = 1,
    /// Wrong usage: flags, names, configuration.
    Usage = 2,
    /// Done in part; the report names what is missing.
    Partial = 3,
    /// The run goes on, but the wait for it ended.
    StillRunning = 4,
    /// Nothing is there by that name.
    NotFound = 5,
    /// The API server or the bucket forbids it.
    Forbidden = 6,
    /// A digest doesn't match, or an archive is damaged.
    Integrity = 7,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Complete => Self::Complete,
            Outcome::Partial => Self::Partial,
            Outcome::Failed => Self::Failed,
            Outcome::Cancelled => Self::Interrupted,
        }
    }
}

/// Where a run is. The order is the order of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// The worker runs and reads its task.
    Starting,
    /// Asking the API server what it serves.
    Discovering,
    /// Running the commands that pods ask for before a backup.
    PreHooks,
    /// Listing, framing, uploading.
    Saving,
    /// Running the commands that pods ask for after a backup.
    PostHooks,
    /// Waiting until snapshots of volumes are completed.
    Snapshots,
    /// Writing report, index and manifest.
    Committing,
    /// Finding out what would be done: of a restore from manifest, index and target; of a backup by `--explain`.
    Planning,
    /// Reading and hashing frames before the first write.
    Verifying,
    /// Writing objects, wave by wave.
    Restoring,
    /// Reading from the bucket.
    Reading,
    /// The result waits to be fetched through `worker result`.
    ResultReady,
    /// Ended; the outcome says how.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What was counted so far. All counters only grow within one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Kinds to go through, once known.
    pub kinds: u64,
    /// Kinds done.
    pub kinds_done: u64,
    /// Objects done: saved, or given a verdict.
    pub objects: u64,
    /// Objects in all, where that is known beforehand (restore).
    pub objects_total: u64,
    /// Bytes of JSON read from or written to the API server.
    pub bytes: u64,
    /// Bytes written to or read from the bucket.
    pub bytes_stored: u64,
    /// Volumes that are saved, once known.
    #[serde(default)]
    pub volumes: u64,
    /// Volumes whose snapshots are completed.
    #[serde(default)]
    pub volumes_done: u64,
}

/// What happens during a run; goes to the log, the status and the person's terminal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// A new phase began.
    Phase {
        /// The phase that begins.
        phase: Phase,
    },
    /// Counters moved. Sent often; a receiver may keep only the last.
    Progress {
        /// The counters now.
        counts: Counts,
    },
    /// Something could not be done.
    Problem(Problem),
    /// What was told as a problem is none so far: what it is about is done anew.
    Withdrawn(Problem),
    /// Worth a line in the log.
    Note {
        /// The line.
        message: String,
    },
}

/// Where a run tells its events. Cheap to clone; a receiver must not block.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Events that go to a function.
    pub fn new(receiver: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receiver))
    }

    /// Events that nobody wants.
    pub fn ignored() -> Self {
        Self::new(|_| ())
    }

    /// Tells one event.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }

    /// Tells that a phase begins.
    pub fn phase(&self, phase: Phase) {
        self.send(Event::Phase { phase });
    }

    /// Takes back what was told as problems.
    pub fn withdraw(&self, problems: impl IntoIterator<Item = Problem>) {
        problems.into_iter().for_each(|problem| self.send(Event::Withdrawn(problem)));
    }

    /// Tells a line for the log.
    pub fn note(&self, message: impl Into<String>) {
        self.send(Event::Note { message: message.into() });
    }

    /// Tells where the counters stand.
    pub fn progress(&self, counts: Counts) {
        self.send(Event::Progress { counts });
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
