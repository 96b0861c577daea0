//! The Kubernetes API, as backups and restores need it: which kinds are served ([`discover`]), lists pinned to one
//! revision ([`list`]), their items cut out while they come in ([`items`], [`cut`]), metadata looked through ([`metadata`]),
//! single objects written and read ([`object`]), commands run in pods ([`exec`]), rights asked for ([`review`]).
//!
//! One retry policy for all of it ([`call`]): reads are repeated, writes only where repeating can't do harm; a run waits for
//! an API server that is away, a person doesn't. Every wait has a deadline. Knows nothing of archives, rules and Jobs.

pub mod call;
pub mod connect;
pub mod cut;
mod direct;
pub mod discover;
pub mod exec;
pub mod items;
pub mod list;
pub mod metadata;
pub mod object;
pub mod review;

use crate::id::BackupId;
use crate::resource::Kind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// A connection to one API server.
#[derive(Clone)]
pub struct Cluster {
    api: kube::Client,
    streams: kube::Client,
    /// The name under which the API server notes our writes in `managedFields`.
    manager: Arc<str>,
    /// Whether to wait for an API server that is away for a while.
    patient: bool,
    /// Whether it has ever answered: one that hasn't may not exist.
    reached: Arc<AtomicBool>,
}

impl Cluster {
    /// A cluster behind two clients: `api` for requests that answer soon (it may have a read timeout), `streams` for
    /// watches, logs and exec, which may be silent for long. Waits for two minutes for an API server that is away.
    pub fn new(api: kube::Client, streams: kube::Client) -> Self {
        let reached = Arc::new(AtomicBool::new(true));
        Self { api, streams, manager: object::FIELD_MANAGER.into(), patient: true, reached }
    }

    /// The same for somebody who waits for an answer: gives up after some ten seconds.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { patient: false, ..self }
    }

    /// The same for a long run that somebody watches: gives up soon where no API server answers at all, and waits for one
    /// that has answered.
    #[must_use]
    pub fn patient_once_reached(&self) -> Self {
        Self { patient: true, reached: Arc::default(), ..self.clone() }
    }

    /// The same, whose creates and updates the API server notes as those of one run.
    pub fn of_run(&self, id: &BackupId) -> Self {
        Self { manager: object::manager_of(id).into(), ..self.clone() }
    }

    /// The name under which the API server notes creates and updates.
    pub fn manager(&self) -> &str {
        &self.manager
    }

    /// The client for watches, logs, exec, and for typed requests outside the data path.
    pub fn client(&self) -> &kube::Client {
        &self.streams
    }
}

/// Why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig or the pod's service account can't be used.
    #[error(
        "can't find out how to reach the cluster: {message}\nhint: check `--kubeconfig`, `--context` and `kubectl cluster-info`"
    )]
    Connect {
        /// What is wrong.
        message: String,
    },
    /// The API server answered with an error.
    #[error("{what}: {status}")]
    Api {
        /// What was asked for.
        what: String,
        /// The answer.
        status: Box<Status>,
    },
    /// No answer, or one that broke off.
    #[error("{what}: {message}")]
    Transport {
        /// What was asked for.
        what: String,
        /// The connection's error.
        message: String,
    },
    /// No answer in time.
    #[error("{what}: no answer within {seconds} s")]
    Timeout {
        /// What was asked for.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// An answer that is not what the API promises.
    #[error("{what}: the answer can't be understood: {message}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with it. Never its text, which may hold Secret values.
        message: String,
    },
}

/// The parts of a `metav1.Status` that people and decisions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The machine-readable reason, such as `Forbidden`.
    pub reason: String,
    /// The text for people. Of requests about Secrets only the reason and the fields' paths, since the API server's
    /// text may echo values.
    pub message: String,
    /// Seconds after which to try again, where the server says so.
    pub retry_after: Option<u64>,
    /// The fields that causes name.
    pub fields: Vec<String>,
    /// The causes' types, such as `FieldValueInvalid` or `NamespaceTerminating`.
    pub causes: Vec<String>,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.message.is_empty() {
            write!(f, "{} ({})", if self.reason.is_empty() { "error" } else { &self.reason }, self.code)
        } else {
            f.write_str(&self.message)
        }
    }
}

impl Error {
    /// The API server's answer, where there was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The HTTP status code, where there was an answer.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Api { status, .. } => matches!(status.code, 429 | 500 | 502 | 503 | 504),
            Self::Transport { .. } | Self::Timeout { .. } => true,
            Self::Connect { .. } | Self::Answer { .. } => false,
        }
    }

    /// Whether an answer came that the API server can't have meant: a proxy's error page goes away, another program stays.
    pub fn is_nonsense(&self) -> bool {
        matches!(self, Self::Answer { .. })
    }

    /// Whether the rights are missing.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some(401 | 403))
    }

    /// Whether the thing isn't there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the revision asked for is no longer kept (410 `Expired` or `Gone`).
    pub fn is_expired(&self) -> bool {
        self.code() == Some(410)
    }
}

/// How long a server may stay silent in the middle of an answer.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// An error with its causes, each said once: many of the layers below repeat what the next one says.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// What a request is about, for error texts: `listing secrets in namespace shop`.
pub(crate) fn about(deed: &str, kind: &Kind, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => format!("{deed} `{kind}` in namespace `{namespace}`"),
        None => format!("{deed} `{kind}`"),
    }
}
