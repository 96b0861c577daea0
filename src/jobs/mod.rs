//! Runs this binary in the cluster. Defines the Job of a run ([`JobSpec`]), what its worker reports ([`Status`]), what a
//! waiting person sees of it ([`View`], [`Diagnosis`]) and what `init` installs ([`install`]).
//!
//! A Job carries its task as a sealed letter: any serialisable value, not looked into. The plugin's side submits,
//! watches, fetches results and logs; the worker's side publishes and serves. Nothing here knows what a verb does, and
//! nothing here reads a clock or the environment: times and names are arguments.

mod api;
mod at_work;
pub mod binding;
pub mod diagnose;
mod error;
pub mod install;
pub mod list_cache;
pub mod logs;
pub mod publish;
pub mod result;
pub mod status;
pub mod submit;
mod text;
pub mod watch;

#[cfg(test)]
mod fake;

pub use at_work::is_at_work;
pub use diagnose::{Cause, Diagnosis};
pub use error::{Error, Rule};
pub use status::Status;
pub use submit::{Account, JobSpec, Submitted, delete, submit};
pub use watch::{Ended, How, JobState, PodView, Until, View, Wait, watch};

/// The value of `app.kubernetes.io/name` on everything that is ours.
pub const APP: &str = "kubectl-backup";
/// The label that says what a Job does.
pub const VERB_LABEL: &str = "kubectl-backup/verb";
/// The service account that reads the cluster.
pub const READER: &str = "kubectl-backup-reader";
/// The service account that restores.
pub const WRITER: &str = "kubectl-backup-writer";
/// The container in a worker's pod.
pub const CONTAINER: &str = "worker";
/// The folder in the worker's pod for what lives as long as the run.
pub const RUN_FOLDER: &str = "/run/kubectl-backup";
/// The key in the ConfigMap of a run under which its status is.
pub const STATUS_KEY: &str = "status";
/// Bytes of JSON a task may have: Linux takes 128 KiB for one variable of the environment.
pub const TASK_LIMIT: usize = 100 * 1024;

/// The field manager under which we write.
const MANAGER: &str = "kubectl-backup";
/// The annotation that tells one submission from another.
const SUBMISSION: &str = "kubectl-backup/submission";

/// Selects the pods of a run. The Job controller sets the label (Kubernetes 1.27 and later).
fn selector(id: &crate::id::BackupId) -> String {
    format!("batch.kubernetes.io/job-name={id}")
}

/// Whether a Job is over, one way or the other.
fn has_ended(job: &k8s_openapi::api::batch::v1::Job) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}
