use crate::report::ExitCode;
pub use crate::rules::rights::Rule;
use std::time::Duration;

/// What went wrong with a Job, or with what belongs to one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RBAC doesn't allow a request.
    #[error("can't {deed}: {message}\nhint: needs {rule}")]
    Forbidden {
        /// What was being done: `create jobs.batch foo`.
        deed: String,
        /// What would allow it.
        rule: Rule,
        /// The API server's words.
        message: String,
    },
    /// Writing a role or binding would give rights that the caller doesn't have.
    #[error(
        "can't {deed}: {message}\n\
         hint: only who holds these rights, or `bind` and `escalate` on that role, can give them; ask a cluster administrator"
    )]
    Escalation {
        /// What was being done.
        deed: String,
        /// The API server's words, which list the missing rights.
        message: String,
    },
    /// Admission refused it: a quota, Pod Security, a webhook. The text says which.
    #[error("can't {deed}: {message}")]
    Refused {
        /// What was being done.
        deed: String,
        /// The API server's words.
        message: String,
    },
    /// It isn't there.
    #[error("can't {deed}: {message}")]
    NotFound {
        /// What was being done.
        deed: String,
        /// The API server's words.
        message: String,
    },
    /// The install namespace isn't there.
    #[error(
        "can't {deed}: {message}\nhint: run `kubectl backup init`, or name the namespace it was run for with `--install-namespace`"
    )]
    NotInstalled {
        /// What was being done.
        deed: String,
        /// The API server's words.
        message: String,
    },
    /// The API server answered with another error.
    #[error("can't {deed}: {message}")]
    Api {
        /// What was being done.
        deed: String,
        /// The HTTP status.
        code: u16,
        /// The reason in one word, such as `Conflict`.
        reason: String,
        /// The API server's words.
        message: String,
    },
    /// The API server couldn't be reached, or its answer couldn't be read.
    #[error("can't {deed}: the API server can't be reached: {message}")]
    Unreachable {
        /// What was being done.
        deed: String,
        /// What went wrong.
        message: String,
    },
    /// The API server didn't answer in time.
    #[error("can't {deed}: the API server didn't answer within {} s", timeout.as_secs_f32())]
    TimedOut {
        /// What was being done.
        deed: String,
        /// The time it had.
        timeout: Duration,
    },
    /// A task doesn't fit a Job.
    #[error(
        "the task has {size} bytes of JSON, a Job carries at most {limit}\n\
         hint: select by kind or label instead of naming single objects, split the run, or use `--local`, which has no such limit"
    )]
    TaskTooLarge {
        /// Bytes it has.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A setting can't be used in a Job.
    #[error("`{field}` in `kubectl-backup-config`: {message}")]
    Settings {
        /// The field.
        field: String,
        /// What is wrong, and the way out.
        message: String,
    },
    /// A name is taken by something that isn't ours.
    #[error("{what} exists already and {why}\nhint: {hint}")]
    Taken {
        /// What exists: `job foo`.
        what: String,
        /// Why it can't be ours.
        why: String,
        /// The way out.
        hint: String,
    },
    /// A Job that was waited for is gone, and left no result.
    #[error("job `{id}` is gone: it was deleted or cancelled while it was waited for")]
    Gone {
        /// The Job.
        id: String,
    },
    /// A result couldn't be fetched whole.
    #[error("can't fetch the result: {message}")]
    Result {
        /// What went wrong.
        message: String,
        /// Whether it may work when tried again.
        transient: bool,
    },
    /// Running a command in the worker's pod failed.
    #[error(transparent)]
    Exec(#[from] crate::cluster::exec::Error),
    /// A manifest that this program carries can't be read; a mistake in the program.
    #[error("manifest `{name}` in this program is damaged: {message}")]
    Manifest {
        /// The manifest.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The task that writes the status is gone, as happens when the program is being shut down.
    #[error("can't publish the status: {0}")]
    Publish(String),
    /// Writing where the caller wanted it failed.
    #[error("can't write: {0}")]
    Write(#[source] std::io::Error),
}

impl Error {
    /// Whether the same may work a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Api { code, .. } => *code == 429 || *code >= 500,
            Self::Result { transient, .. } => *transient,
            Self::Exec(error) => error.is_transient(),
            _ => false,
        }
    }

    /// How a program ends that ends with this.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Forbidden { .. } | Self::Escalation { .. } => ExitCode::Forbidden,
            Self::Exec(crate::cluster::exec::Error::Forbidden { .. }) => ExitCode::Forbidden,
            Self::TaskTooLarge { .. } | Self::Settings { .. } => ExitCode::Usage,
            Self::NotFound { .. } | Self::Gone { .. } => ExitCode::NotFound,
            _ => ExitCode::Failed,
        }
    }
}
