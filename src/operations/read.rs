//! The verbs that read the bucket and change nothing: `list`, `describe`, `show`, `logs`.

use super::backup::Report;
use super::backup::target::meant_cluster;
use super::{Context, Done, Query, Usage};
use crate::archive::lines::each_line;
use crate::archive::manifest::{File, Manifest};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::id::{BackupQuery, Digest};
use crate::pipeline::fetch::{self, Backup};
use crate::pipeline::logs::{self, LOG_LIMIT};
use crate::pipeline::{Error, catalog};
use crate::report::{ExitCode, Outcome, Phase, Problem};
use crate::resource::Kind;
use crate::rules::kinds::{ObjectArg, Served};
use crate::rules::mask;
use crate::store::Store;
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes of a report that are read.
const REPORT_LIMIT: u64 = 64 * 1024 * 1024;

/// What `list` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListResult {
    /// When the bucket was asked.
    pub read_at: Timestamp,
    /// The backups, oldest first.
    pub backups: Vec<Manifest>,
    /// Manifests that can't be read.
    pub problems: Vec<Problem>,
}

/// What `describe` gives back.
#[derive(Debug, Serialize, Deserialize)]
pub struct DescribeResult {
    /// The manifest.
    pub manifest: Manifest,
    /// The report.
    pub report: Report,
}

/// What `show` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShowTask {
    /// Which backup.
    #[serde(flatten)]
    pub query: Query,
    /// `KIND/NAME` or `KIND`, as typed; empty: a list of all objects.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Only objects of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Whether Secret values are given as they are.
    #[serde(default)]
    pub reveal: bool,
}

/// What `show` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ShowResult {
    /// Without arguments: what there is.
    Entries(Vec<Shown>),
    /// The objects that were named.
    Objects(Vec<Value>),
}

/// A line of `show`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The kind's key.
    pub kind: String,
    /// Group and version.
    pub api_version: String,
    /// The namespace; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// Bytes of JSON.
    pub size: u64,
}

/// Finds a backup for a verb, in the cluster that the query means.
pub(super) async fn find(query: &Query, cluster: &Cluster, store: &dyn Store) -> anyhow::Result<Manifest> {
    let uid = meant_cluster(query.from_cluster.as_deref(), cluster).await?;
    Ok(catalog::find(store, &query.backup, Some(&uid)).await?)
}

fn done(message: String, result: Packed) -> Done {
    Done { outcome: Outcome::Complete, exit_code: ExitCode::Complete, message, result: Some(result) }
}

/// All backups of the location.
///
/// # Errors
/// The bucket's.
pub async fn list(store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let catalog = catalog::read(store).await?;
    let result = ListResult { read_at: (context.now)(), backups: catalog.backups, problems: catalog.problems };
    Ok(done(format!("{} backups in {}", result.backups.len(), store.describe()), Packed::of(&result)?))
}

/// One backup, with its report.
///
/// # Errors
/// The bucket's; [`Error::NotFound`]; [`Error::Archive`].
pub async fn describe(query: &Query, cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let manifest = find(query, cluster, store).await?;
    let report = report(store, &manifest).await?;
    Ok(done(format!("backup `{}`", manifest.id), Packed::of(&DescribeResult { manifest, report })?))
}

/// The report of a backup.
///
/// # Errors
/// The bucket's; [`Error::Archive`].
pub(super) async fn report(store: &dyn Store, manifest: &Manifest) -> anyhow::Result<Report> {
    let bytes = whole(store, &manifest.files.report, REPORT_LIMIT, "the report").await?;
    let damaged = |error: serde_json::Error| crate::archive::Error::damaged("the report", error.to_string());
    Ok(serde_json::from_slice(&bytes).map_err(|error| Error::from(damaged(error)))?)
}

/// A file that a manifest or a record names, of so many bytes at most, compared with its digest.
///
/// # Errors
/// The bucket's; [`Error::Archive`].
pub(super) async fn whole(store: &dyn Store, file: &File, limit: u64, what: &str) -> anyhow::Result<Bytes> {
    let bytes = store.get(&file.key, limit.min(file.size)).await.with_context(|| format!("reading {what}"))?;
    let found = Digest::of(&bytes);
    if found == file.sha256 {
        return Ok(bytes);
    }
    let why = format!("its SHA-256 is {found}, and was {} when it was written", file.sha256);
    Err(Error::from(crate::archive::Error::damaged(what, why)).into())
}

/// The log of a finished run, as JSON lines: of a backup, of a restore, or of a run that failed.
///
/// # Errors
/// The bucket's; [`Error::NotFound`]; [`Error::Archive`].
pub async fn logs(query: &Query, cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let (id, stored) = match find(query, cluster, store).await {
        Ok(manifest) => {
            let log = whole(store, &manifest.files.log, LOG_LIMIT, "the log").await?;
            (manifest.id, vec![log])
        }
        // a restore, or a run that failed
        Err(error) => match (&query.backup, error.downcast_ref()) {
            (BackupQuery::Prefix(name), Some(Error::NotFound(_))) => logs::find(store, name).await?.ok_or(error)?,
            _ => return Err(error),
        },
    };
    let mut lines = Vec::new();
    for log in stored {
        each_line("the log", &log, |line| {
            lines.extend_from_slice(line);
            lines.push(b'\n');
            Ok::<_, crate::archive::Error>(())
        })
        .map_err(Error::from)?;
    }
    Ok(done(format!("log of `{id}`"), Packed::of_bytes(&lines)?))
}

/// What a backup holds, or some of its objects.
///
/// # Errors
/// The bucket's; [`Error::NotFound`], also for an object that isn't there; [`Error::Archive`].
pub async fn show(task: &ShowTask, cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let backup = fetch::with_index(store, find(&task.query, cluster, store).await?).await?;
    let id = backup.manifest.id.clone();
    let in_namespace = |namespace: Option<&str>| task.namespace.is_none() || task.namespace.as_deref() == namespace;
    if task.objects.is_empty() {
        let entries = backup.index.entries().iter().filter(|entry| in_namespace(backup.index.namespace(entry)));
        let shown: Vec<Shown> = entries.map(|entry| shown(&backup, entry)).collect();
        return Ok(done(format!("{} objects in `{id}`", shown.len()), Packed::of(&ShowResult::Entries(shown))?));
    }
    let chosen = chosen(&backup, &task.objects, &in_namespace)?;
    let objects = objects(store, &backup, &chosen, task.reveal).await?;
    Ok(done(format!("{} objects of `{id}`", objects.len()), Packed::of(&ShowResult::Objects(objects))?))
}

fn shown(backup: &Backup, entry: &crate::archive::index::Entry) -> Shown {
    let kind = &backup.index.frame(entry).kind;
    Shown {
        kind: kind.key(),
        api_version: kind.api_version(),
        namespace: backup.index.namespace(entry).map(str::to_owned),
        name: backup.index.name(entry).to_owned(),
        size: entry.size(),
    }
}

/// The kinds that a backup holds, with the names that kubectl's users know them by.
pub(super) fn kinds_of(backup: &Backup) -> Vec<Served> {
    let kinds: BTreeSet<&Kind> = backup.index.frames().iter().map(|frame| &frame.kind).collect();
    kinds.into_iter().cloned().map(Served::of).collect()
}

/// The numbers of the entries that arguments name. Each argument must name something.
pub(super) fn chosen(
    backup: &Backup,
    arguments: &[String],
    in_namespace: &dyn Fn(Option<&str>) -> bool,
) -> anyhow::Result<BTreeSet<usize>> {
    let kinds = kinds_of(backup);
    let mut chosen = BTreeSet::new();
    for argument in arguments {
        let wanted = ObjectArg::parse(argument).map_err(|error| Usage(error.to_string()))?;
        let matching: BTreeSet<&Kind> =
            kinds.iter().filter(|served| wanted.kind.matches(served)).map(|served| &served.kind).collect();
        let before = chosen.len();
        for (number, entry) in backup.index.entries().iter().enumerate() {
            if wanted.name == backup.index.name(entry)
                && matching.contains(&backup.index.frame(entry).kind)
                && in_namespace(backup.index.namespace(entry))
            {
                chosen.insert(number);
            }
        }
        if chosen.len() == before {
            let id = &backup.manifest.id;
            return Err(Error::NotFound(format!(
                "backup `{id}` holds no `{argument}`\nhint: `kubectl backup show {id}` lists what it holds"
            ))
            .into());
        }
    }
    Ok(chosen)
}

pub(super) async fn objects(
    store: &dyn Store,
    backup: &Backup,
    chosen: &BTreeSet<usize>,
    reveal: bool,
) -> anyhow::Result<Vec<Value>> {
    let entries = backup.index.entries();
    let mut found = std::collections::BTreeMap::new();
    fetch::frames(store, backup, &backup.index.frames_of(chosen), |frame, tar| {
        let mut read = || {
            for number in chosen.range(backup.index.of_frame(frame)) {
                let bytes = backup.index.object(&entries[*number], &tar)?;
                let mut object: Value = serde_json::from_slice(bytes)
                    .map_err(|error| crate::archive::Error::damaged("an object", error.to_string()))?;
                if !reveal {
                    mask::mask(&backup.index.frame(&entries[*number]).kind, &mut object);
                }
                found.insert(*number, object);
            }
            Ok(())
        };
        std::future::ready(read())
    })
    .await?;
    Ok(found.into_values().collect())
}
