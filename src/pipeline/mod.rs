//! Where cluster, archive and store are joined by bounded channels: [`save`] (list, cut, frame, upload, commit),
//! [`catalog`] and [`restores`] (which backups and restores there are), [`logs`] (what other runs told), [`fetch`] (verify frames, read objects), [`plan`] and [`apply`] (compare with
//! the target, write wave by wave; [`adapt`] says what is written, [`check`] tries it out), [`undo`] (what a restore made, removed; and what it did [`besides`], taken back), [`delete`] (a backup, removed), [`verify`] (a backup, compared with its manifest), [`copy`] (its files, to another location), [`diff`] (a backup against the cluster or another one). Knows nothing of Jobs, flags and terminals.

pub mod adapt;
pub mod apply;
pub mod besides;
pub mod catalog;
pub mod check;
pub mod copy;
pub mod delete;
pub mod diff;
pub mod fetch;
pub mod logs;
pub mod plan;
pub mod restores;
pub mod save;
pub mod sweep;
pub mod target;
pub mod undo;
mod upload;
pub mod verify;
mod walk;

use crate::report::ExitCode;
use crate::{archive, cluster, store};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Why a stage of a backup or restore failed. A failed object is a problem in the report instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// The bucket.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The format.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// Nothing is there by that name.
    #[error("{0}")]
    NotFound(String),
    /// Another worker's backup of this id stands; ours changed nothing.
    #[error("another worker has written the backup `{0}` already; what this one wrote is removed")]
    Lost(crate::id::BackupId),
    /// The manifest was sent, and nobody knows whether it arrived. Its data stays: were it removed and the manifest
    /// there, a backup would look good and hold nothing.
    #[error(
        "it is not known whether the backup `{id}` exists, its manifest may have arrived: {source}\nhint: `kubectl backup list --refresh` tells; if it isn't there, run the backup again, and a later run sweeps what this one stored"
    )]
    Unsure {
        /// The backup.
        id: crate::id::BackupId,
        /// What happened to the manifest.
        source: Box<Error>,
    },
    /// A manifest that names so many namespaces that no reader takes it.
    #[error(
        "the manifest of `{id}` names {namespaces} namespaces and would have {bytes} bytes, more than any reader takes\nhint: `kubectl backup cluster` saves all of them and names none; or save fewer in one backup"
    )]
    ManifestTooLarge {
        /// The backup.
        id: crate::id::BackupId,
        /// The manifest's size.
        bytes: u64,
        /// How many namespaces it names.
        namespaces: usize,
    },
    /// What a run stored is not there any more.
    #[error(
        "`{key}` that this run stored is {found}, so there is no backup: a run that takes about a day has its data swept by others, as garbage\nhint: make smaller backups, or wait less for snapshots (`--volume-timeout`)"
    )]
    Swept {
        /// What is missing.
        key: String,
        /// What is there instead.
        found: String,
    },
    /// What runs is not what was approved.
    #[error(
        "the plan has changed: approved was {approved}, now it is {found}\nhint: look at the plan again with `--dry-run=client`"
    )]
    PlanChanged {
        /// The digest that the person approved.
        approved: crate::id::Digest,
        /// The digest now.
        found: crate::id::Digest,
    },
    /// A namespace that somebody deleted before the restore doesn't go.
    #[error(
        "namespace `{namespace}` was deleted and is still there after {seconds} s: {why}\nhint: `kubectl get namespace {namespace} -o yaml` tells what holds it; restore again when it is gone"
    )]
    StillThere {
        /// The namespace.
        namespace: String,
        /// How long was waited.
        seconds: u64,
        /// What holds it, in the API server's words.
        why: String,
    },
    /// What claims are filled from isn't there.
    #[error("{0}; no claim and no workload was written")]
    Claims(String),
    /// Stopped by a signal.
    #[error("cancelled; nothing that looks like a backup is left behind")]
    Cancelled,
    /// A task of our own ended without an answer.
    #[error("a worker thread ended unexpectedly: {0}")]
    Thread(String),
}

impl Error {
    /// How a program ends that ends with this.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Cluster(error) if error.is_forbidden() => ExitCode::Forbidden,
            Self::Store(error) => error.exit_code(),
            Self::Unsure { source, .. } => source.exit_code(),
            Self::Archive(_) => ExitCode::Integrity,
            Self::NotFound(_) => ExitCode::NotFound,
            Self::Cancelled => ExitCode::Interrupted,
            _ => ExitCode::Failed,
        }
    }

    /// Whether the revision that was asked for is no longer kept.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Cluster(error) if error.is_expired())
    }
}

/// Does something until it is done or the run is cancelled. What is done counts, also when both happen at once.
///
/// # Errors
/// [`Error::Cancelled`], or what the deed returns.
pub async fn until_cancelled<T, E: From<Error>>(
    cancel: &CancellationToken,
    deed: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        biased;
        result = deed => result,
        () = cancel.cancelled() => Err(Error::Cancelled.into()),
    }
}

/// How long what is nearly done may take after a signal.
const SETTLING: Duration = Duration::from_secs(5);

/// As [`until_cancelled`], for what is better ended than dropped: a file that is being completed in the bucket may
/// appear there after it was dropped, when nobody removes it any more. The caller looks at the token afterwards.
///
/// # Errors
/// [`Error::Cancelled`] where it takes too long after the signal, or what the deed returns.
pub async fn until_settled<T, E: From<Error>>(
    cancel: &CancellationToken,
    deed: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let overdue = async {
        cancel.cancelled().await;
        tokio::time::sleep(SETTLING).await;
    };
    tokio::select! {
        biased;
        result = deed => result,
        () = overdue => Err(Error::Cancelled.into()),
    }
}
