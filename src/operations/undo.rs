//! `undo`: puts back what a restore changed, from the safety backup that it made, and removes what it made. Planned, shown
//! and approved as a restore is, and like one it can be run again: what is undone already stays so.

mod approval;
mod put_back;

use super::backup::target::cluster_uid;
use super::{Context, Done, Usage};
use crate::archive::manifest::{File, manifest_key};
use crate::archive::record::Record;
use crate::cluster::Cluster;
use crate::cluster::discover::Discovery;
use crate::cluster::object::manager_of;
use crate::config::Location;
use crate::id::{BackupId, Digest};
use crate::operations::restore::{ItemResult, RestoreResult};
use crate::pipeline::undo::{Made, Removal, Undo};
use crate::pipeline::{Error, restores, until_cancelled};
use crate::report::{ExitCode, Outcome, Phase, Problem};
use crate::resource::{ObjectName, check_namespace, check_object_name};
use crate::rules::kinds::{ObjectArg, Served};
use crate::store::Store;
use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use put_back::PutBack;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes of a restore's report that are read: some hundred for each object.
const REPORT_LIMIT: u64 = 256 * 1024 * 1024;

/// What is said of a restore without an end.
const UNENDED: &str = "the restore has not ended: it was interrupted, or is still at work, and then it must be stopped \
                       first; undone is what bears its name in `managedFields`";

/// What to undo.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UndoTask {
    /// The restore's id or the beginning of it; `None`: the last one of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<String>,
    /// `KIND/NAME`, as typed; empty: all that the restore did.
    #[serde(default)]
    pub objects: Vec<String>,
    /// Plan only: nothing is written.
    #[serde(default)]
    pub dry_run: bool,
    /// The digest of the plan that the person approved; another plan is not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Digest>,
}

/// What `undo` gives back: the plan, or what became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UndoResult {
    /// The restore.
    pub restore: Record,
    /// The digest of the plan.
    pub plan_digest: Digest,
    /// Whether this is only a plan.
    pub dry_run: bool,
    /// Every object that the restore wrote, with its verdict: as of a restore, and `delete`, `deleted`.
    pub items: Vec<ItemResult>,
    /// What could not be undone.
    pub problems: Vec<Problem>,
    /// What the person should know.
    pub notes: Vec<String>,
}

/// What `list --restores` gives back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestoresResult {
    /// When the bucket was asked.
    pub read_at: Timestamp,
    /// The restores, oldest first.
    pub restores: Vec<Record>,
    /// Records that can't be read.
    pub problems: Vec<Problem>,
}

/// All restores on record in a location.
///
/// # Errors
/// The bucket's.
pub async fn list(store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let (restores, problems) = restores::read(store).await?;
    let message = format!("{} restores in {}", restores.len(), store.describe());
    let result = RestoresResult { read_at: (context.now)(), restores, problems };
    let result = Some(Bytes::from(serde_json::to_vec(&result)?));
    Ok(Done { outcome: Outcome::Complete, exit_code: ExitCode::Complete, message, result })
}

/// Undoes a restore, or plans to.
///
/// # Errors
/// Before the first write: where there is no such restore, its safety backup is damaged, or the plan is not the approved
/// one. Later only what stops the whole run; an object that fails is a problem in the result.
pub async fn run(
    id: &BackupId,
    task: &UndoTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    until_cancelled(&context.cancel, Box::pin(undo(id, task, location, cluster, store, context))).await
}

/// What was decided.
struct Decided {
    made: Vec<Made>,
    removals: Vec<Removal>,
    /// What is put back, where anything is.
    back: Option<PutBack>,
    /// What the person should know of the restore.
    notes: Vec<String>,
}

async fn undo(
    id: &BackupId,
    task: &UndoTask,
    location: &Location,
    cluster: &Cluster,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Done> {
    let events = &context.events;
    events.phase(Phase::Planning);
    let discovery = cluster.discover().await.context("discovery")?;
    let uid = cluster_uid(cluster, &discovery).await?;
    let record = restores::find(store, task.restore.as_deref(), &uid).await?;
    let (cluster, manager) = (&cluster.of_run(id), manager_of(&record.id));
    let ended = record.end.as_ref().map(|end| end.ended_at);
    let undo = Undo { cluster, manager, ended, events, cancel: &context.cancel };
    let written = written(&undo, &record, &discovery, store).await?;
    let named = task.objects.iter().map(|text| ObjectArg::parse(text)).collect::<Result<Vec<_>, _>>();
    let named = named.map_err(|error| Usage(error.to_string()))?;
    let decided = decide(&undo, &record, written, &named, &discovery, store, context).await?;
    let deeds = approval::deeds(&decided);
    let digest = approval::digest(&record, &named, &deeds)?;
    let mut result = planned(record, digest, &decided);
    if task.dry_run {
        return done(result);
    }
    approval::check(id, task.approved, digest, &deeds, store).await?;
    if !location.read_only {
        approval::begin(id, digest, &deeds, store, context).await?;
    }
    events.phase(Phase::Restoring);
    carry_out(&undo, decided, &mut result, store).await?;
    done(result)
}

/// The report of a restore: what it did with each object.
async fn report(file: &File, store: &dyn Store) -> anyhow::Result<RestoreResult> {
    let what = "the restore's report";
    let bytes = super::read::whole(store, file, REPORT_LIMIT, what).await?;
    let damaged = |why: String| Error::from(crate::archive::Error::damaged(what, why));
    let report: RestoreResult =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("line {}", error.line())))?;
    // names go into URLs
    for item in &report.items {
        let namespace = item.namespace.as_deref().map_or(Ok(()), check_namespace);
        if let Err(error) = namespace.and_then(|()| check_object_name(&item.name)) {
            return Err(damaged(format!("`{}` can't be a name: {error}", item.name.escape_debug())).into());
        }
    }
    Ok(report)
}

/// What a restore has written.
#[derive(Default)]
struct Written {
    /// What it made; whether it is named is said later.
    made: Vec<Made>,
    /// The uids of all that it wrote, by kind and name, where it ended and says so.
    uids: HashMap<String, String>,
    /// The backup of what it changed.
    safety: Option<BackupId>,
    /// What the person should know of it.
    notes: Vec<String>,
}

async fn written(
    undo: &Undo<'_>,
    record: &Record,
    discovery: &Discovery,
    store: &dyn Store,
) -> anyhow::Result<Written> {
    let served = |key: &str, name: &ObjectName| {
        // another kind by that name now, where its scope is another
        let kind = discovery.get(key).map(|served| &served.kind)?;
        (kind.namespaced == name.namespace.is_some()).then(|| kind.clone())
    };
    let Some(end) = &record.end else {
        let creates = restores::creates(store, &record.id).await?.into_iter().filter_map(|create| {
            let name = ObjectName::new(create.ns.as_deref(), &create.name);
            Some((served(&create.kind, &name)?, name))
        });
        let made = undo.find_made(creates.collect()).await?;
        let safety = record.id.safety();
        let key = manifest_key(&safety);
        let is_saved = store.list(&key).await?.iter().any(|object| object.key == key);
        let (safety, notes) = (is_saved.then_some(safety), vec![UNENDED.to_owned()]);
        return Ok(Written { made, safety, notes, ..Written::default() });
    };
    let report = report(&end.report, store).await?;
    let mut written = Written { safety: end.safety.clone(), notes: report.stays, ..Written::default() };
    for item in report.items {
        let (name, Some(uid)) = (name_of(&item), item.uid) else { continue };
        if let (Some(kind), "created") = (served(&item.kind, &name), item.verdict.as_str()) {
            written.made.push(Made { kind, name: name.clone(), uid: uid.clone(), named: false });
        }
        written.uids.insert(format!("{} {name}", item.kind), uid);
    }
    Ok(written)
}

async fn decide(
    undo: &Undo<'_>,
    record: &Record,
    written: Written,
    named: &[ObjectArg],
    discovery: &Discovery,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Decided> {
    let back = put_back::plan(undo, record, named, &written, discovery, store, context).await?;
    let is_meant = |arg: &ObjectArg, one: &Made| {
        discovery.get(&one.kind.key()).is_some_and(|served| means(arg, served, &one.name.name))
    };
    let mut made = written.made;
    made.retain_mut(|one| {
        one.named = named.iter().any(|arg| is_meant(arg, one));
        !back.saved.contains(&format!("{} {}", one.kind, one.name)) && (named.is_empty() || one.named)
    });
    let is_written =
        |arg: &&ObjectArg| made.iter().any(|one| is_meant(arg, one)) || back.named.contains(&arg.to_string());
    if let Some(unknown) = named.iter().find(|arg| !is_written(arg)) {
        let id = &record.id;
        let text = format!(
            "restore `{id}` wrote no `{unknown}`\nhint: `kubectl backup undo {id} --dry-run=client -o wide` lists what it wrote"
        );
        return Err(Error::NotFound(text).into());
    }
    let removals = undo.judge(&made).await?;
    Ok(Decided { made, removals, back: back.chosen, notes: written.notes })
}

fn name_of(item: &ItemResult) -> ObjectName {
    ObjectName::new(item.namespace.as_deref(), &item.name)
}

/// Whether an argument means this object.
fn means(arg: &ObjectArg, served: &Served, name: &str) -> bool {
    arg.name == name && arg.kind.matches(served)
}

/// The plan in words.
fn planned(record: Record, digest: Digest, decided: &Decided) -> UndoResult {
    let (mut items, mut problems, mut notes) = (Vec::new(), Vec::new(), decided.notes.clone());
    for (made, removal) in decided.made.iter().zip(&decided.removals) {
        let (verdict, reason) = match removal {
            Removal::Delete => ("delete", ""),
            Removal::Gone => ("unchanged", "it is gone already"),
            Removal::Kept(why) => ("skip", why.as_str()),
            Removal::Refused(why) => ("refused", why.as_str()),
        };
        if matches!(removal, Removal::Refused(_)) {
            problems.push(Problem { subject: format!("{} {}", made.kind, made.name), message: reason.to_owned() });
        }
        items.push(ItemResult {
            kind: made.kind.key(),
            namespace: made.name.namespace.clone(),
            name: made.name.name.clone(),
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
            ..ItemResult::default()
        });
    }
    if let Some(back) = &decided.back {
        let back = back.planned();
        items.extend(back.items);
        problems.extend(back.problems);
        notes.extend(back.notes);
    }
    UndoResult { restore: record, plan_digest: digest, dry_run: true, items, problems, notes }
}

/// Removes, then puts back: what was made may be in the way of what was there, a policy or a webhook.
async fn carry_out(
    undo: &Undo<'_>,
    decided: Decided,
    result: &mut UndoResult,
    store: &dyn Store,
) -> anyhow::Result<()> {
    let Decided { made, removals, back, notes } = decided;
    let chosen: BTreeSet<usize> = (0..made.len()).filter(|at| removals[*at] == Removal::Delete).collect();
    let failed: BTreeMap<usize, String> = undo.remove(&made, &chosen).await?;
    for at in chosen {
        let item = &mut result.items[at];
        item.verdict = "deleted".to_owned();
        if let Some(why) = failed.get(&at) {
            (item.verdict, item.reason) = ("failed".to_owned(), why.clone());
            let subject = format!("{} {}", made[at].kind, made[at].name);
            result.problems.push(Problem { subject, message: why.clone() });
        }
    }
    if let Some(back) = back {
        result.items.truncate(made.len());
        // its problems are told anew, with what became of it
        result
            .problems
            .retain(|problem| made.iter().any(|one| problem.subject == format!("{} {}", one.kind, one.name)));
        let done = back.carry_out(undo, store).await?;
        result.items.extend(done.items);
        result.problems.extend(done.problems);
        result.notes = notes.into_iter().chain(done.notes).collect();
    }
    result.dry_run = false;
    Ok(())
}

fn done(result: UndoResult) -> anyhow::Result<Done> {
    let refused =
        result.items.iter().any(|item| matches!(item.verdict.as_str(), "refused" | "forbidden" | "not served"));
    let outcome = if result.problems.is_empty() && !refused { Outcome::Complete } else { Outcome::Partial };
    let count =
        |verdicts: &[&str]| result.items.iter().filter(|item| verdicts.contains(&item.verdict.as_str())).count();
    let id = &result.restore.id;
    let message = if result.dry_run {
        let back = count(&["update", "recreate", "create"]);
        format!("undoing `{id}` would put back {back} objects and remove {}", count(&["delete"]))
    } else {
        let back = count(&["updated", "recreated", "created"]);
        format!("undid `{id}`: {back} objects put back, {} removed, {} failed", count(&["deleted"]), count(&["failed"]))
    };
    let bytes = Some(Bytes::from(serde_json::to_vec(&result)?));
    Ok(Done { outcome, exit_code: ExitCode::from(outcome), message, result: bytes })
}
