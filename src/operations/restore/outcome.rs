//! What a restore gives back and leaves behind: the plan, or what became of it.

use super::super::log::RunLog;
use super::super::{Context, Done};
use crate::archive::manifest::{FORMAT, Manifest};
use crate::archive::packed::Packed;
use crate::archive::record::{End, Record, record_key};
use crate::id::{BackupId, Digest};
use crate::pipeline::apply::{Applied, MISSING, Restored};
use crate::pipeline::fetch::Backup;
use crate::pipeline::plan::{Plan, PlanItem};
use crate::pipeline::save::commit;
use crate::report::{Events, ExitCode, Outcome, Problem};
use crate::resource::ObjectName;
use crate::rules::compare::Change;
use crate::rules::owners::Uid;
use crate::rules::rights::Missing;
use crate::rules::verdict::Verdict;
use crate::store::Store;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

/// What `restore` gives back: the plan, or what became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoreResult<Items = Vec<ItemResult>> {
    /// The backup.
    pub backup: Manifest,
    /// The digest of the plan.
    pub plan_digest: Digest,
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// Every object with its verdict.
    pub items: Items,
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

/// A plan and what became of it, from which each object's line is made when it is written down, and packed: all of them at
/// once would take as much memory as all else that a restore holds of an object.
pub(in crate::operations) struct Told<'a> {
    backup: &'a Backup,
    plan: &'a Plan,
    restored: Restored,
    /// Objects that the backup doesn't hold and the restore made.
    besides: Vec<ItemResult>,
    dry_run: bool,
}

impl<'a> Told<'a> {
    /// Of a plan, or of a restore.
    pub(in crate::operations) fn new(
        backup: &'a Backup,
        plan: &'a Plan,
        mut restored: Restored,
        dry_run: bool,
    ) -> Self {
        let refused = plan.items.iter().filter(|item| !dry_run && item.verdict.is_problem()).map(|item| {
            let found = item_result(backup, plan, item, &restored, dry_run);
            let name = ObjectName::new(found.namespace.as_deref(), &found.name);
            Problem {
                subject: format!("{} {name}", found.kind),
                message: format!("{}: {}", found.verdict, found.reason),
            }
        });
        let refused: Vec<Problem> = refused.collect();
        restored.problems.extend(refused);
        let told = Self { backup, plan, restored, besides: Vec::new(), dry_run };
        told.with_missing_rights()
    }

    /// With objects that the backup doesn't hold, and the restore made.
    pub(super) fn with(self, besides: Vec<ItemResult>) -> Self {
        Self { besides, ..self }
    }

    /// The rights that a dry run found missing, each told once.
    fn with_missing_rights(mut self) -> Self {
        let mut missing = Missing::default();
        for item in &self.plan.items {
            let Verdict::Forbidden(message) = &item.verdict else { continue };
            let kind = &self.backup.index.frame(&self.backup.index.entries()[item.entry as usize]).kind;
            missing.note(kind, &target(self.backup, self.plan, item), message);
        }
        let problems = missing.lines().map(|message| Problem { subject: MISSING.to_owned(), message });
        self.restored.problems.extend(problems);
        self
    }

    /// How it ended, and the code for that: nothing is done where for all of it rights are missing.
    fn outcome(&self) -> (Outcome, ExitCode) {
        let refused = self.dry_run && self.plan.count(Verdict::is_problem) > 0;
        let outcome = if refused || !self.restored.problems.is_empty() { Outcome::Partial } else { Outcome::Complete };
        let is_forbidden = |verdict: &Verdict| matches!(verdict, Verdict::Forbidden(_));
        let is_open = |verdict: &Verdict| verdict.writes() || matches!(verdict, Verdict::Unverified(_));
        match self.dry_run {
            false if self.restored.is_forbidden() => (Outcome::Failed, ExitCode::Forbidden),
            true if self.plan.count(is_forbidden) > 0 && self.plan.count(is_open) == 0 => {
                (outcome, ExitCode::Forbidden)
            }
            _ => (outcome, ExitCode::from(outcome)),
        }
    }

    /// All of it, for whom it is told: what it was made from can go then.
    pub(super) fn end(&self) -> Result<Ended, crate::archive::Error> {
        let (outcome, exit_code) = self.outcome();
        Ok(Ended {
            backup: self.backup.manifest.id.clone(),
            plan_digest: self.plan.digest,
            outcome,
            exit_code,
            created: self.count("created"),
            updated: self.count("updated"),
            recreated: self.count("recreated"),
            message: self.message(),
            result: Packed::of(&self.result(Lines(self)))?,
        })
    }

    /// All of it at once, for the few objects that an undo puts back.
    pub(in crate::operations) fn whole(&self) -> RestoreResult {
        self.result(self.items().collect())
    }

    fn result<Items>(&self, items: Items) -> RestoreResult<Items> {
        RestoreResult {
            backup: self.backup.manifest.clone(),
            plan_digest: self.plan.digest,
            dry_run: self.dry_run,
            items,
            problems: self.restored.problems.clone(),
            notes: self.plan.notes.iter().chain(&self.restored.notes).cloned().collect(),
        }
    }

    fn items(&self) -> impl Iterator<Item = ItemResult> {
        let items = self.plan.items.iter();
        let items = items.map(|item| item_result(self.backup, self.plan, item, &self.restored, self.dry_run));
        items.chain(self.besides.iter().cloned())
    }

    fn count(&self, word: &str) -> u64 {
        let is = |item: &&PlanItem| verdict(item, &self.restored).0 == word;
        self.plan.items.iter().filter(is).count() as u64
    }

    fn message(&self) -> String {
        let id = &self.backup.manifest.id;
        let (made, others) = if self.dry_run {
            let (creates, all) = (self.count("create"), self.plan.items.len());
            (format!("restoring `{id}` would create {creates} of {all} objects"), ["update", "recreate"])
        } else {
            let (skipped, failed) = (self.count("skip") + self.count("unchanged"), self.count("failed"));
            let created = self.count("created");
            (
                format!("restored `{id}`: {created} created, {skipped} left alone, {failed} failed"),
                ["updated", "recreated"],
            )
        };
        let others = others.into_iter().filter(|verdict| self.count(verdict) > 0);
        others.fold(made, |text, verdict| format!("{text}, {verdict} {}", self.count(verdict)))
    }
}

/// What is left of a restore, or of a plan, when it is over.
pub(super) struct Ended {
    backup: BackupId,
    plan_digest: Digest,
    outcome: Outcome,
    exit_code: ExitCode,
    created: u64,
    updated: u64,
    recreated: u64,
    message: String,
    /// What goes to the person and into the report.
    result: Packed,
}

impl Ended {
    /// The end of the operation.
    pub(super) fn done(self) -> Done {
        let Self { outcome, exit_code, message, result, .. } = self;
        Done { outcome, exit_code, message, result: Some(result) }
    }
}

/// The lines of all objects.
struct Lines<'a>(&'a Told<'a>);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.items())
    }
}

/// An object's verdict in a word, and the reason.
fn verdict<'a>(item: &'a PlanItem, restored: &'a Restored) -> (&'static str, &'a str) {
    let number = item.entry as usize;
    match restored.get(number).map(|(applied, _)| applied) {
        Some(Applied::Created) => ("created", ""),
        Some(Applied::Updated) => ("updated", ""),
        Some(Applied::Recreated) => ("recreated", ""),
        Some(Applied::Unchanged) => ("unchanged", ""),
        Some(Applied::Exists) => ("skip", "it appeared since the plan was made"),
        Some(Applied::Failed) => ("failed", restored.why(number).unwrap_or_default()),
        None => (item.verdict.word(), item.verdict.reason().unwrap_or_default()),
    }
}

/// Where the object of an item goes.
fn target(backup: &Backup, plan: &Plan, item: &PlanItem) -> ObjectName {
    let entry = &backup.index.entries()[item.entry as usize];
    plan.adaptation.target(&backup.index.frame(entry).kind, &backup.index.object_name(entry))
}

fn item_result(backup: &Backup, plan: &Plan, item: &PlanItem, restored: &Restored, dry_run: bool) -> ItemResult {
    let number = item.entry as usize;
    let entry = &backup.index.entries()[number];
    let kind = &backup.index.frame(entry).kind;
    let target = target(backup, plan, item);
    let (word, reason) = verdict(item, restored);
    let uid = restored.get(number).and_then(|(_, uid)| uid);
    let changed = plan.changed.get(&number).filter(|_| dry_run);
    ItemResult {
        kind: kind.key(),
        namespace: target.namespace,
        name: target.name,
        verdict: word.to_owned(),
        reason: reason.to_owned(),
        uid: uid.map(Uid::to_string),
        changes: changed.map(|changed| changed.changes.clone()).unwrap_or_default(),
    }
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
    pub(super) async fn record(self, ended: &Ended) -> anyhow::Result<()> {
        let Self { id, started, cluster, safety, store, context, events, log } = self;
        events.note(&ended.message);
        let ended_at = (context.now)();
        let report = commit::put_packed(store, id, &context.attempt, "report.json", &ended.result).await?;
        let log = commit::put_file(store, id, &context.attempt, "log.jsonl.zst", log.take()?).await?;
        let record = Record {
            format: FORMAT.to_owned(),
            id: id.clone(),
            attempt: context.attempt.clone(),
            cluster: cluster.to_owned(),
            backup: ended.backup.clone(),
            plan_digest: ended.plan_digest,
            started_at: started,
            job_namespace: context.job_namespace(),
            end: Some(End {
                safety,
                ended_at,
                outcome: ended.outcome,
                created: ended.created,
                updated: ended.updated,
                recreated: ended.recreated,
                report,
                log,
            }),
        };
        match store.create(&record_key(id), Bytes::from(serde_json::to_vec_pretty(&record)?)).await {
            // an earlier attempt's, or our own whose answer got lost: that the restore was carried out is on record
            Err(crate::store::Error::Exists { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}
