//! `restore`: find the backup, verify what is selected, plan, and carry out the plan that was approved.

use super::log::RunLog;
use super::volumes::Wishes;
use super::{Context, Done, Query, Usage, read};
use crate::archive::manifest::{Manifest, data_key};
use crate::cluster::Cluster;
use crate::config::Location;
use crate::id::{BackupId, Digest};
use crate::pipeline::apply::{Applied, Apply, Restored};
use crate::pipeline::fetch::{self, Backup};
use crate::pipeline::plan::{self, Plan, PlanRequest};
use crate::pipeline::save::commit;
use crate::pipeline::{Error, until_cancelled};
use crate::report::{Events, ExitCode, Outcome, Phase, Problem};
use crate::rules::mapping::NamespaceMapping;
use crate::rules::restorable::Protected;
use crate::rules::selection::Namespaces;
use crate::rules::tidy::{Tidy, TidyOptions};
use crate::store::Store;
use crate::volumes::restore::Options as VolumeOptions;
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What to restore, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreTask {
    /// Which backup.
    #[serde(flatten)]
    pub query: Query,
    /// `KIND/NAME` or `KIND`, as typed; empty: everything.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Only these namespaces of the backup (and, where the list is empty, what is cluster-scoped too).
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// `a=b`: objects of namespace `a` go to `b`.
    #[serde(default)]
    pub map_namespace: Vec<String>,
    /// Plan only: nothing is written.
    #[serde(default)]
    pub dry_run: bool,
    /// The digest of the plan that the person approved; another plan is not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Digest>,
    /// How volumes are made again.
    #[serde(default)]
    pub volumes: VolumeOptions,
}

/// What `restore` gives back: the plan, or what became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResult {
    /// The backup.
    pub backup: Manifest,
    /// The digest of the plan.
    pub plan_digest: Digest,
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// Every object with its verdict.
    pub items: Vec<ItemResult>,
    /// What could not be restored.
    pub problems: Vec<Problem>,
    /// What the person should know: paths that were stripped, owners that are gone.
    pub notes: Vec<String>,
}

/// One object of a plan, or of a restore.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemResult {
    /// The kind's key.
    pub kind: String,
    /// The namespace in the target; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// `create`, `skip`, `not served`; after a restore also `created`, `failed`.
    pub verdict: String,
    /// Why, where it isn't plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `restores/<id>.json`: that a restore was carried out, and where its report and log are.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    format: &'a str,
    id: &'a BackupId,
    backup: &'a BackupId,
    plan_digest: Digest,
    started_at: Timestamp,
    ended_at: Timestamp,
    outcome: Outcome,
    created: usize,
    report: String,
    log: String,
}

/// `plan.json`: written before the first write, so that a retry knows whose objects it finds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    plan_digest: Digest,
}

/// Bytes of a `plan.json` that are read.
const BEGUN_LIMIT: u64 = 64 * 1024;

/// Restores, or plans to.
///
/// # Errors
/// Before the first write: when anything selected is damaged, or the plan is not the approved one. Later only what
/// stops the whole run; an object that fails is a problem in the result.
pub async fn run(
    id: &BackupId,
    task: &RestoreTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    until_cancelled(&context.cancel, restore(id, task, location, cluster, store, context)).await
}

async fn restore(
    id: &BackupId,
    task: &RestoreTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    let (log, events) = RunLog::tee(context.now.clone(), &context.events)?;
    let started = (context.now)();
    events.phase(Phase::Planning);
    let manifest = read::find(&task.query, cluster, store).await?;
    let backup = fetch::with_index(store, manifest).await?;
    let mapping = NamespaceMapping::parse(&task.map_namespace).map_err(|error| Usage(error.to_string()))?;
    let asked = if task.namespaces.is_empty() { Ok(Namespaces::all()) } else { Namespaces::parse(&task.namespaces) };
    let asked = asked.map_err(|error| Usage(error.to_string()))?;
    check_mapping(&backup, &mapping)?;
    let chosen = chosen(&backup, task, &asked)?;
    let named = if task.objects.is_empty() { BTreeSet::new() } else { chosen.clone().unwrap_or_default() };
    let request = PlanRequest {
        backup: &backup,
        chosen,
        named,
        mapping: &mapping,
        protected: Protected { install_namespace: Some(&context.install_namespace), asked: &asked },
    };
    events.phase(Phase::Verifying);
    let mut plan = plan::make(cluster, store, &request, &events).await?;
    let mut wishes =
        Wishes::find(task, &backup, &plan, &mapping, id, store).await.context("looking for saved volumes")?;
    plan.notes.append(&mut wishes.notes);
    let restored = if task.dry_run {
        Restored::default()
    } else {
        check_approval(id, task, &plan, store).await?;
        if !location.read_only {
            let begun = serde_json::to_vec(&Begun { plan_digest: plan.digest })?;
            commit::put_file(store, id, &context.attempt, "plan.json", Bytes::from(begun)).await?;
        }
        events.phase(Phase::Restoring);
        let owners = std::mem::take(&mut plan.owners);
        let tidy = Tidy::committed()?;
        let mut kept_volumes = plan.kept_volumes(&backup, &mapping);
        let volumes = wishes.make(cluster, store, &backup, &tidy, context, &events).await.context("making volumes")?;
        kept_volumes.extend(volumes.new.claims.values().cloned());
        let apply = Apply {
            cluster,
            store,
            backup: &backup,
            plan: &plan,
            mapping: &mapping,
            events: &events,
            tidy: &tidy,
            options: TidyOptions { with_status: false, keep_node_ports: false, kept_volumes: &kept_volumes },
            volumes: &volumes.new,
            cancel: &context.cancel,
        };
        let applied = apply.run(owners).await.context("restoring");
        volumes.settle(cluster, &events).await;
        applied?
    };
    let outcome = if restored.problems.is_empty() { Outcome::Complete } else { Outcome::Partial };
    let result = result(&backup, &plan, &mapping, restored, task.dry_run);
    if !task.dry_run && !location.read_only {
        record(id, &result, outcome, started, store, context, &events, &log)
            .await
            .context("storing the restore's record")?;
    }
    Ok(Done {
        outcome,
        exit_code: ExitCode::from(outcome),
        message: message(&result),
        result: Some(Bytes::from(serde_json::to_vec(&result)?)),
    })
}

/// A mapping must mean namespaces of the backup, and no two of them may land in one.
fn check_mapping(backup: &Backup, mapping: &NamespaceMapping) -> Result<(), Usage> {
    let saved: BTreeSet<&str> =
        backup.index.entries().iter().filter_map(|entry| backup.index.namespace(entry)).collect();
    if let Some(unused) = mapping.unused(|namespace| saved.contains(namespace)).first() {
        let id = &backup.manifest.id;
        return Err(Usage(format!(
            "`--map-namespace {unused}=…`: backup `{id}` holds nothing in namespace `{unused}`"
        )));
    }
    mapping.check(saved).map_err(|error| Usage(error.to_string()))
}

/// The entries that were asked for; `None`: all.
fn chosen(backup: &Backup, task: &RestoreTask, asked: &Namespaces) -> anyhow::Result<Option<BTreeSet<usize>>> {
    if task.objects.is_empty() && task.namespaces.is_empty() {
        return Ok(None);
    }
    let in_namespace =
        |namespace: Option<&str>| task.namespaces.is_empty() || namespace.is_some_and(|n| asked.matches(n));
    if !task.objects.is_empty() {
        // a namespace that was named restricts namespaced objects only; `clusterrole/x` names its object by itself
        let named = |namespace: Option<&str>| namespace.is_none() || in_namespace(namespace);
        return Ok(Some(read::chosen(backup, &task.objects, &named)?));
    }
    let entries = backup.index.entries();
    let chosen: BTreeSet<usize> =
        (0..entries.len()).filter(|number| in_namespace(backup.index.namespace(&entries[*number]))).collect();
    if chosen.is_empty() {
        let text =
            format!("backup `{}` holds nothing in namespace `{}`", backup.manifest.id, task.namespaces.join("`, `"));
        return Err(Error::NotFound(text).into());
    }
    Ok(Some(chosen))
}

/// What runs is what was approved. A plan that differs only because an earlier attempt of this very restore has begun
/// to carry it out is the same plan: what exists by now is left alone.
async fn check_approval(id: &BackupId, task: &RestoreTask, plan: &Plan, store: &dyn Store) -> anyhow::Result<()> {
    let Some(approved) = task.approved else { return Ok(()) };
    if approved == plan.digest {
        return Ok(());
    }
    for object in store.list(&format!("data/{id}/")).await? {
        if object.key.ends_with("/plan.json") {
            let bytes = store.get(&object.key, BEGUN_LIMIT).await?;
            if serde_json::from_slice::<Begun>(&bytes).is_ok_and(|begun| begun.plan_digest == approved) {
                return Ok(());
            }
        }
    }
    Err(Error::PlanChanged { approved, found: plan.digest }.into())
}

fn result(
    backup: &Backup,
    plan: &Plan,
    mapping: &NamespaceMapping,
    restored: Restored,
    dry_run: bool,
) -> RestoreResult {
    let item = |(number, item): (usize, &plan::PlanItem)| {
        let entry = &backup.index.entries()[item.entry as usize];
        let kind = &backup.index.frame(entry).kind;
        let target = plan::target_name(kind, &backup.index.object_name(entry), mapping);
        let (verdict, reason) = match restored.applied.get(&number) {
            Some(Applied::Created) => ("created".to_owned(), String::new()),
            Some(Applied::Exists) => ("skip".to_owned(), "it appeared since the plan was made".to_owned()),
            Some(Applied::Failed(message)) => ("failed".to_owned(), message.clone()),
            None => (item.verdict.word().to_owned(), item.verdict.reason().unwrap_or_default().to_owned()),
        };
        ItemResult { kind: kind.key(), namespace: target.namespace, name: target.name, verdict, reason }
    };
    RestoreResult {
        backup: backup.manifest.clone(),
        plan_digest: plan.digest,
        dry_run,
        items: plan.items.iter().enumerate().map(item).collect(),
        problems: restored.problems,
        notes: plan.notes.iter().cloned().chain(restored.notes).collect(),
    }
}

fn message(result: &RestoreResult) -> String {
    let count = |verdict: &str| result.items.iter().filter(|item| item.verdict == verdict).count();
    let id = &result.backup.id;
    if result.dry_run {
        return format!("restoring `{id}` would create {} of {} objects", count("create"), result.items.len());
    }
    format!("restored `{id}`: {} created, {} left alone, {} failed", count("created"), count("skip"), count("failed"))
}

/// Stores report, log and record. The record is written last.
#[expect(clippy::too_many_arguments, reason = "the parts of one record, called once")]
async fn record(
    id: &BackupId,
    result: &RestoreResult,
    outcome: Outcome,
    started: Timestamp,
    store: &dyn Store,
    context: &Context,
    events: &Events,
    log: &RunLog,
) -> anyhow::Result<()> {
    events.note(message(result));
    let report = Bytes::from(serde_json::to_vec_pretty(result)?);
    commit::put_file(store, id, &context.attempt, "report.json", report).await?;
    commit::put_file(store, id, &context.attempt, "log.jsonl.zst", log.take()?).await?;
    let record = Record {
        format: "kubectl-backup/1",
        id,
        backup: &result.backup.id,
        plan_digest: result.plan_digest,
        started_at: started,
        ended_at: (context.now)(),
        outcome,
        created: result.items.iter().filter(|item| item.verdict == "created").count(),
        report: data_key(id, &context.attempt, "report.json"),
        log: data_key(id, &context.attempt, "log.jsonl.zst"),
    };
    let key = format!("restores/{id}.json");
    match store.create(&key, Bytes::from(serde_json::to_vec_pretty(&record)?)).await {
        // an earlier attempt's, or our own whose answer got lost: that the restore was carried out is on record
        Err(crate::store::Error::Exists { .. }) => Ok(()),
        other => Ok(other?),
    }
}
