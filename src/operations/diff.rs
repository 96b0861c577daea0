//! `diff`: a backup against the live cluster, or against another backup. Writes nothing.

use super::backup::target::cluster_uid;
use super::{Context, Done, Query, Usage, read};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::id::BackupQuery;
use crate::pipeline::catalog;
use crate::pipeline::diff::{self, DiffRequest, Difference};
use crate::pipeline::fetch::{self, Backup};
use crate::report::{ExitCode, Outcome, Phase, Problem};
use crate::rules::restorable::Protected;
use crate::rules::selection::Namespaces;
use crate::store::Store;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiffTask {
    /// Which backup.
    #[serde(flatten)]
    pub query: Query,
    /// Another backup; `None`: the live cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<BackupQuery>,
    /// `KIND/NAME`, as typed; empty: everything.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Only these namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// What `diff` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiffResult {
    /// The backup's id.
    pub left: String,
    /// The other backup's; absent: the live cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    /// The objects that differ, by kind and name.
    pub differences: Vec<Difference>,
    /// What could not be compared.
    pub problems: Vec<Problem>,
}

/// Compares.
///
/// # Errors
/// The bucket's or the API server's; [`crate::pipeline::Error::NotFound`]; damage.
pub async fn run(task: &DiffTask, cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let discovery = cluster.discover().await.context("discovery")?;
    let uid = match &task.query.from_cluster {
        Some(uid) => uid.clone(),
        None => cluster_uid(cluster, &discovery).await?,
    };
    let backup = fetch::with_index(store, catalog::find(store, &task.query.backup, Some(&uid)).await?).await?;
    let other = match &task.other {
        Some(query) => Some(fetch::with_index(store, catalog::find(store, query, Some(&uid)).await?).await?),
        None => None,
    };
    let asked = if task.namespaces.is_empty() { Ok(Namespaces::all()) } else { Namespaces::parse(&task.namespaces) };
    let asked = asked.map_err(|error| Usage(error.to_string()))?;
    // two backups are compared as they are, our own namespace and the cluster's too
    let protected = Protected { install_namespace: Some(&context.install_namespace), asked: &asked };
    let left = request(&backup, task, &asked, protected, true)?;
    let found = match &other {
        Some(other) => diff::between(store, &left, &request(other, task, &asked, protected, false)?).await?,
        None => diff::against_live(cluster, &discovery, store, &left).await?,
    };
    let result = DiffResult {
        left: backup.manifest.id.to_string(),
        right: other.map(|other| other.manifest.id.to_string()),
        differences: found.found,
        problems: found.problems,
    };
    let outcome = if result.problems.is_empty() { Outcome::Complete } else { Outcome::Partial };
    let against = result.right.as_deref().unwrap_or("the cluster");
    Ok(Done {
        outcome,
        exit_code: ExitCode::from(outcome),
        message: format!("{} objects differ between `{}` and {against}", result.differences.len(), result.left),
        result: Some(Packed::of(&result)?),
    })
}

/// What of a backup is compared. Of the first backup, what was asked for must be in it.
fn request<'a>(
    backup: &'a Backup,
    task: &DiffTask,
    asked: &Namespaces,
    protected: Protected<'a>,
    must_be_there: bool,
) -> anyhow::Result<DiffRequest<'a>> {
    let in_namespace = |namespace: Option<&str>| namespace.is_some_and(|namespace| asked.matches(namespace));
    let named = !task.objects.is_empty();
    let chosen = if named {
        let within =
            |namespace: Option<&str>| task.namespaces.is_empty() || namespace.is_none() || in_namespace(namespace);
        match read::chosen(backup, &task.objects, &within) {
            Err(error) if must_be_there => return Err(error),
            chosen => Some(chosen.unwrap_or_default()),
        }
    } else if task.namespaces.is_empty() {
        None
    } else {
        let entries = backup.index.entries();
        let chosen: BTreeSet<usize> =
            (0..entries.len()).filter(|number| in_namespace(backup.index.namespace(&entries[*number]))).collect();
        if chosen.is_empty() && must_be_there {
            let (id, namespaces) = (&backup.manifest.id, task.namespaces.join("`, `"));
            let text = format!("backup `{id}` holds nothing in namespace `{namespaces}`");
            return Err(crate::pipeline::Error::NotFound(text).into());
        }
        Some(chosen)
    };
    Ok(DiffRequest { backup, chosen, named, protected })
}
