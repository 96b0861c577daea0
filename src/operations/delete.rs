//! `delete`: removes backups with their snapshots. What holds a snapshot is asked first, and then the backup stays as it is.
//! The order is: mark, manifest, snapshots, data, mark. So what is listed can be restored, no snapshot is lost sight of,
//! and a deletion that was killed goes on when it is asked for again.

mod one;

use super::backup::target::meant_cluster;
use super::restore::DryRun;
use super::{Context, Done, Usage};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::config::Location;
use crate::id::{BackupId, BackupQuery};
use crate::pipeline::{Error, catalog, until_cancelled};
use crate::report::{ExitCode, Outcome, Phase, Problem, one_line};
use crate::store::Store;
use crate::volumes::life::Named;
use jiff::Timestamp;
use one::Deleting;
use serde::{Deserialize, Serialize};

/// What to delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteTask {
    /// The backups: ids, or the beginnings of ids.
    pub backups: Vec<BackupQuery>,
    /// The uid of the cluster whose backups are meant; `None`: this cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_cluster: Option<String>,
    /// Whether anything goes. `Server`: EC2 is asked whether it would remove the snapshots.
    #[serde(default)]
    pub dry_run: DryRun,
}

/// What `delete` gives back: what would go, or what went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteResult {
    /// Whether anything went.
    pub dry_run: DryRun,
    /// The backups, in the order in which they were named.
    pub backups: Vec<Deletion>,
    /// What could not be removed, and why.
    pub problems: Vec<Problem>,
}

/// A backup that goes, or stays.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deletion {
    /// The backup.
    pub id: BackupId,
    /// What becomes of it.
    pub verdict: Verdict,
    /// When it was begun, where its manifest can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Of a safety backup: the restore that can't be undone without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_of: Option<BackupId>,
    /// Keys in the bucket.
    pub keys: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Its snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<Named>,
    /// GiB of the volumes that they are of.
    #[serde(default)]
    pub snapshot_gib: u64,
}

/// What becomes of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It would go.
    Delete,
    /// It is gone.
    Deleted,
    /// It is no backup any more, and some of it is still there: a problem says what.
    Unfinished,
    /// It stays as it was: a problem says why.
    Kept,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Delete => "delete",
            Self::Deleted => "deleted",
            Self::Unfinished => "unfinished",
            Self::Kept => "kept",
        })
    }
}

/// Deletes backups, or says what that would mean.
///
/// # Errors
/// Before anything goes: a read-only location, names that mean another backup each time. [`Error::NotFound`] where none of
/// the names means anything. What fails for one backup is a problem, and the others go.
pub async fn run(
    task: &DeleteTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    until_cancelled(&context.cancel, Box::pin(delete(task, location, cluster, store, context))).await
}

async fn delete(
    task: &DeleteTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    if location.read_only {
        return Err(crate::store::Error::ReadOnly { place: store.describe() }.into());
    }
    context.events.phase(Phase::Reading);
    let uid = meant_cluster(task.from_cluster.as_deref(), cluster).await?;
    let result = DeleteResult { dry_run: task.dry_run, backups: Vec::new(), problems: Vec::new() };
    let mut deleting = Deleting { store, cluster, context, result, regions: None };
    let mut missing = Vec::new();
    for query in &task.backups {
        let (id, otherwise) = named(query, &uid, store).await?;
        if deleting.result.backups.iter().any(|one| one.id == id) {
            continue;
        }
        match deleting.one(&id).await {
            Err(error) if is_missing(&error) => missing.push((query, otherwise.map_or(error, anyhow::Error::from))),
            other => other?,
        }
    }
    let mut result = deleting.result;
    if result.backups.is_empty()
        && result.problems.is_empty()
        && let Some((_, error)) = missing.pop()
    {
        return Err(error);
    }
    let problem = |(query, error): (&BackupQuery, anyhow::Error)| Problem {
        subject: query.to_string(),
        message: one_line(error),
    };
    result.problems.extend(missing.into_iter().map(problem));
    done(result)
}

/// The id that a name means, and the answer where nothing is left of it. Of a backup that is damaged or half gone only the
/// whole id tells which it is.
async fn named(query: &BackupQuery, uid: &str, store: &dyn Store) -> anyhow::Result<(BackupId, Option<Error>)> {
    if !matches!(query, BackupQuery::Prefix(_)) {
        let text = format!(
            "`{query}` means another backup each time that it is said\nhint: name its id: `kubectl backup list -o name`"
        );
        return Err(Usage(text).into());
    }
    let error = match catalog::find(store, query, Some(uid)).await {
        Ok(manifest) => return Ok((manifest.id, None)),
        Err(error) => error,
    };
    match (BackupId::parse(&query.to_string()), error) {
        (Ok(id), error @ (Error::NotFound(_) | Error::Archive(_))) => Ok((id, Some(error))),
        (_, error) => Err(error.into()),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::NotFound(_)))
}

fn done(result: DeleteResult) -> anyhow::Result<Done> {
    let outcome = if result.problems.is_empty() { Outcome::Complete } else { Outcome::Partial };
    let went = |verdict| result.backups.iter().filter(move |one| one.verdict == verdict);
    let message = match result.dry_run {
        DryRun::None => {
            let snapshots: usize = went(Verdict::Deleted).map(|one| one.snapshots.len()).sum();
            format!("deleted {} backups with {snapshots} snapshots", went(Verdict::Deleted).count())
        }
        _ => format!("would delete {} of {} backups", went(Verdict::Delete).count(), result.backups.len()),
    };
    let result = Some(Packed::of(&result)?);
    Ok(Done { outcome, exit_code: ExitCode::from(outcome), message, result })
}
