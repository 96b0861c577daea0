//! One file per verb: the order of its steps, and nothing of how a step is done. [`Task`] is a verb with all it needs,
//! as it travels to the Job; [`run`] carries one out, in a Job's pod or with `--local` in the plugin's process alike.

pub mod backup;
pub mod copy;
pub mod delete;
pub mod diff;
pub mod explain;
pub mod hooks;
mod log;
pub mod orphans;
pub mod read;
pub mod restore;
pub mod undo;
pub mod verify;
mod volumes;

use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::config::Location;
use crate::id::{Attempt, BackupId, BackupQuery};
use crate::report::{Events, ExitCode, Outcome};
use crate::store::Store;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What an operation needs of the world.
#[derive(Clone)]
pub struct Context {
    /// The clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where to tell what happens.
    pub events: Events,
    /// Cancelled by the first signal.
    pub cancel: CancellationToken,
    /// This worker's try.
    pub attempt: Attempt,
    /// The namespace of our own Jobs.
    pub install_namespace: String,
}

impl Context {
    /// The namespace of this run's Job; `None` where the work is done in the plugin's process.
    pub(crate) fn job_namespace(&self) -> Option<String> {
        (!self.attempt.is_local()).then(|| self.install_namespace.clone())
    }
}

/// A verb with all it needs. Holds no credential: it stands in the pod template's environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The name of this run: of its Job, its status, and of the backup or restore that it makes.
    pub id: BackupId,
    /// Where the backups are.
    pub location: Location,
    /// What to do.
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// `ns` and `cluster`.
    Backup(backup::BackupTask),
    /// `ns --explain` and `cluster --explain`.
    Explain(backup::BackupTask),
    /// `restore`.
    Restore(Box<restore::RestoreTask>),
    /// `undo`.
    Undo(undo::UndoTask),
    /// `copy`.
    Copy(Box<copy::CopyTask>),
    /// `delete`.
    Delete(delete::DeleteTask),
    /// `verify`.
    Verify(verify::VerifyTask),
    /// `list --refresh`.
    List,
    /// `list --restores`.
    ListRestores,
    /// `list --orphans`.
    ListOrphans,
    /// `describe`.
    Describe(Query),
    /// `show`.
    Show(read::ShowTask),
    /// `diff`.
    Diff(diff::DiffTask),
    /// `logs` of a run whose Job is gone.
    Logs(Query),
}

/// Which backup is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// As the person wrote it.
    pub backup: BackupQuery,
    /// The uid of the cluster whose backups are meant; `None`: this cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_cluster: Option<String>,
}

/// How an operation ended.
#[derive(Debug)]
pub struct Done {
    /// Whether all of it was done.
    pub outcome: Outcome,
    /// How the program ends.
    pub exit_code: ExitCode,
    /// One line for the person.
    pub message: String,
    /// What goes to the person's standard output, where the verb gives something back. JSON; may hold Secret values
    /// (`show --reveal`) and so travels through exec only.
    pub result: Option<Packed>,
}

impl Verb {
    /// The word on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backup(_) => "backup",
            Self::Explain(_) => "explain",
            Self::Restore(_) => "restore",
            Self::Undo(_) => "undo",
            Self::Copy(_) => "copy",
            Self::Delete(_) => "delete",
            Self::Verify(_) => "verify",
            Self::List | Self::ListRestores | Self::ListOrphans => "list",
            Self::Describe(_) => "describe",
            Self::Show(_) => "show",
            Self::Diff(_) => "diff",
            Self::Logs(_) => "logs",
        }
    }

    /// A second location that it works in.
    pub fn other_location(&self) -> Option<&Location> {
        match self {
            Self::Copy(task) => Some(&task.to),
            Self::Restore(task) => task.safety_location.as_ref(),
            _ => None,
        }
    }

    /// Whether it writes to the cluster, or tries writes out, and so runs as the writer.
    pub fn writes_cluster(&self) -> bool {
        match self {
            Self::Restore(task) => task.needs_rights(),
            Self::Undo(task) => !task.dry_run,
            _ => false,
        }
    }
}

/// Carries a task out.
///
/// # Errors
/// What stopped it, with the step it was at; [`exit_code`] tells how a program ends that ends with it.
pub async fn run(task: &Task, cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    // boxed: a thread's stack, 2 MiB at times, is soon full of such futures where nothing is optimised
    let verb: BoxFuture<'_, anyhow::Result<Done>> = match &task.verb {
        Verb::Backup(backup) => Box::pin(backup::run(&task.id, backup, cluster, store, context)),
        Verb::Explain(backup) => Box::pin(explain::run(&task.id, backup, cluster, context)),
        Verb::Restore(restore) => Box::pin(restore::run(&task.id, restore, &task.location, cluster, store, context)),
        Verb::Undo(undo) => Box::pin(undo::run(&task.id, undo, &task.location, cluster, store, context)),
        Verb::Copy(copy) => Box::pin(copy::run(copy, &task.location, cluster, store, context)),
        Verb::Delete(delete) => Box::pin(delete::run(delete, &task.location, cluster, store, context)),
        Verb::Verify(verify) => Box::pin(verify::run(verify, cluster, store, context)),
        Verb::ListRestores => Box::pin(undo::list(cluster, store, context)),
        Verb::ListOrphans => Box::pin(orphans::run(cluster, store, context)),
        Verb::List => Box::pin(read::list(store, context)),
        Verb::Describe(query) => Box::pin(read::describe(query, cluster, store, context)),
        Verb::Show(show) => Box::pin(read::show(show, cluster, store, context)),
        Verb::Diff(task) => Box::pin(diff::run(task, cluster, store, context)),
        Verb::Logs(query) => Box::pin(read::logs(query, cluster, store, context)),
    };
    verb.await
}

/// How a program ends that ends with this error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<crate::pipeline::Error>() {
            return error.exit_code();
        }
        if let Some(error) = cause.downcast_ref::<crate::store::Error>() {
            return error.exit_code();
        }
        if let Some(error) = cause.downcast_ref::<crate::cluster::Error>() {
            return if error.is_forbidden() { ExitCode::Forbidden } else { ExitCode::Failed };
        }
        if cause.downcast_ref::<Usage>().is_some() {
            return ExitCode::Usage;
        }
    }
    ExitCode::Failed
}

/// Something that the person asked for and that can't be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);
