//! What a restore gives back and leaves behind: the plan, or what became of it.

use super::super::log::RunLog;
use super::super::{Context, Done};
use crate::archive::manifest::{FORMAT, Manifest};
use crate::archive::record::{Record, record_key};
use crate::id::{BackupId, Digest};
use crate::pipeline::apply::{Applied, Restored};
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::{Plan, PlanItem};
use crate::pipeline::save::commit;
use crate::report::{Events, ExitCode, Outcome, Problem};
use crate::rules::compare::Change;
use crate::rules::owners::Uid;
use crate::rules::verdict::Verdict;
use crate::store::Store;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemResult {
    /// The kind's key.
    pub kind: String,
    /// The namespace in the target; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// `create`, `update`, `recreate`, `unchanged`, `skip`, `forbidden`, `not served`, `refused`, `unverified`; after a
    /// restore also `created`, `updated`, `recreated`, `failed`.
    pub verdict: String,
    /// Why, where it isn't plain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The uid of what was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// In a plan, what would change in an object that is there. Values of Secrets are masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// What a plan comes to, when nothing else is asked for. What can't be restored makes it partial.
pub(super) fn planned(backup: &Backup, plan: &Plan, problems: Vec<Problem>) -> anyhow::Result<Done> {
    let all = plan.count(Verdict::is_problem) == 0 && problems.is_empty();
    let restored = Restored { problems, ..Restored::default() };
    done(&result(backup, plan, restored, true), if all { Outcome::Complete } else { Outcome::Partial })
}

/// The end of an operation that gives this back.
pub(super) fn done(result: &RestoreResult, outcome: Outcome) -> anyhow::Result<Done> {
    Ok(Done {
        outcome,
        exit_code: ExitCode::from(outcome),
        message: message(result),
        result: Some(Bytes::from(serde_json::to_vec(result)?)),
    })
}

/// Plan or restore in words.
pub(in crate::operations) fn result(backup: &Backup, plan: &Plan, restored: Restored, dry_run: bool) -> RestoreResult {
    let mut problems = restored.problems;
    let items = plan.items.iter().map(|item| {
        let applied = restored.applied.get(&(item.entry as usize));
        let uid = restored.uids.get(&(item.entry as usize)).filter(|_| applied.is_some_and(Applied::is_written));
        let found = ItemResult { uid: uid.map(Uid::to_string), ..item_result(backup, plan, item, applied, dry_run) };
        if !dry_run && item.verdict.is_problem() {
            let subject = match &found.namespace {
                Some(namespace) => format!("{} {namespace}/{}", found.kind, found.name),
                None => format!("{} {}", found.kind, found.name),
            };
            problems.push(Problem { subject, message: format!("{}: {}", found.verdict, found.reason) });
        }
        found
    });
    let items = items.collect();
    RestoreResult {
        backup: backup.manifest.clone(),
        plan_digest: plan.digest,
        dry_run,
        items,
        problems,
        notes: plan.notes.iter().cloned().chain(restored.notes).collect(),
    }
}

fn item_result(backup: &Backup, plan: &Plan, item: &PlanItem, applied: Option<&Applied>, dry_run: bool) -> ItemResult {
    let number = item.entry as usize;
    let entry = &backup.index.entries()[number];
    let kind = &backup.index.frame(entry).kind;
    let target = plan.adaptation.target(kind, &backup.index.object_name(entry));
    let (verdict, reason) = match applied {
        Some(Applied::Created) => ("created", String::new()),
        Some(Applied::Updated) => ("updated", String::new()),
        Some(Applied::Recreated) => ("recreated", String::new()),
        Some(Applied::Unchanged) => ("unchanged", String::new()),
        Some(Applied::Exists) => ("skip", "it appeared since the plan was made".to_owned()),
        Some(Applied::Failed(message)) => ("failed", message.clone()),
        None => (item.verdict.word(), item.verdict.reason().unwrap_or_default().to_owned()),
    };
    let changed = plan.changed.get(&number).filter(|_| dry_run);
    ItemResult {
        kind: kind.key(),
        namespace: target.namespace,
        name: target.name,
        verdict: verdict.to_owned(),
        reason,
        uid: None,
        changes: changed.map(|changed| changed.changes.clone()).unwrap_or_default(),
    }
}

fn message(result: &RestoreResult) -> String {
    let count = |verdict: &str| result.items.iter().filter(|item| item.verdict == verdict).count();
    let id = &result.backup.id;
    let (made, others) = if result.dry_run {
        (
            format!("restoring `{id}` would create {} of {} objects", count("create"), result.items.len()),
            ["update", "recreate"],
        )
    } else {
        let (skipped, failed) = (count("skip") + count("unchanged"), count("failed"));
        (
            format!("restored `{id}`: {} created, {skipped} left alone, {failed} failed", count("created")),
            ["updated", "recreated"],
        )
    };
    let others = others.into_iter().filter(|verdict| count(verdict) > 0);
    others.fold(made, |text, verdict| format!("{text}, {verdict} {}", count(verdict)))
}

/// A run that leaves its record.
pub(super) struct Run<'a> {
    pub(super) id: &'a BackupId,
    pub(super) started: Timestamp,
    /// The uid of the cluster.
    pub(super) cluster: &'a str,
    pub(super) safety: Option<BackupId>,
    pub(super) store: &'a dyn Store,
    pub(super) context: &'a Context,
    pub(super) events: &'a Events,
    pub(super) log: &'a RunLog,
}

impl Run<'_> {
    /// Stores report, log and record. The record is written last.
    pub(super) async fn record(self, result: &RestoreResult, outcome: Outcome) -> anyhow::Result<()> {
        let Self { id, started, cluster, safety, store, context, events, log } = self;
        events.note(message(result));
        let ended_at = (context.now)();
        let report = Bytes::from(serde_json::to_vec_pretty(result)?);
        let report = commit::put_file(store, id, &context.attempt, "report.json", report).await?;
        let log = commit::put_file(store, id, &context.attempt, "log.jsonl.zst", log.take()?).await?;
        let count = |verdict: &str| result.items.iter().filter(|item| item.verdict == verdict).count() as u64;
        let record = Record {
            format: FORMAT.to_owned(),
            id: id.clone(),
            attempt: context.attempt.clone(),
            cluster: cluster.to_owned(),
            backup: result.backup.id.clone(),
            safety,
            plan_digest: result.plan_digest,
            started_at: started,
            ended_at,
            outcome,
            created: count("created"),
            updated: count("updated"),
            recreated: count("recreated"),
            report,
            log,
        };
        match store.create(&record_key(id), Bytes::from(serde_json::to_vec_pretty(&record)?)).await {
            // an earlier attempt's, or our own whose answer got lost: that the restore was carried out is on record
            Err(crate::store::Error::Exists { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}
