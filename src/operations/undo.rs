//! `undo`: puts back what a restore changed, from the safety backup that it made, takes back what it did besides, and
//! removes what it made. Planned, shown and approved as a restore is, and like one it can be run again: what is undone
//! already stays so.

mod approval;
mod besides;
mod part;
mod put_back;
mod standing;
mod volumes;
mod written;

use super::backup::target::cluster_uid;
use super::{Context, Done, Usage};
use crate::archive::manifest::FORMAT;
use crate::archive::packed::Packed;
use crate::archive::record::{Record, Undone, undone_key};
use crate::cluster::Cluster;
use crate::cluster::object::manager_of;
use crate::config::Location;
use crate::id::{BackupId, Digest};
use crate::operations::restore::{ItemResult, RestoreResult};
use crate::pipeline::restores::{self, Found};
use crate::pipeline::undo::{Made, Removal, Undo};
use crate::pipeline::{Error, until_cancelled};
use crate::report::{ExitCode, Outcome, Phase, Problem};
use crate::resource::ObjectName;
use crate::rules::kinds::ObjectArg;
use crate::store::Store;
use anyhow::Context as _;
use besides::TakenBack;
use bytes::Bytes;
use jiff::Timestamp;
use part::{Named, Part, means};
use put_back::PutBack;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use volumes::Volumes;
use written::Written;

pub use standing::Standing;
pub use volumes::EBS as EBS_VOLUMES;

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
    pub restores: Vec<Listed>,
    /// Records that can't be read.
    pub problems: Vec<Problem>,
}

/// A restore on record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its record.
    #[serde(flatten)]
    pub record: Record,
    /// Where it has no end, how it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
    /// When it was undone, all of it but what is spared, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_at: Option<Timestamp>,
}

/// All restores on record in a location. The cluster is asked only for those that have not ended.
///
/// # Errors
/// The bucket's.
pub async fn list(cluster: &Cluster, store: &dyn Store, context: &Context) -> anyhow::Result<Done> {
    context.events.phase(Phase::Reading);
    let (records, problems) = restores::read(store).await?;
    let message = format!("{} restores in {}", records.len(), store.describe());
    let mut uid = String::new();
    if records.iter().any(|found| found.record.end.is_none()) {
        let discovery = cluster.discover().await.context("discovery")?;
        uid = cluster_uid(cluster, &discovery).await?;
    }
    let mut restores = Vec::with_capacity(records.len());
    for Found { record, undone_at } in records {
        let standing = standing::of(&record, cluster, &uid).await;
        restores.push(Listed { record, standing, undone_at });
    }
    let result = RestoresResult { read_at: (context.now)(), restores, problems };
    let result = Some(Packed::of(&result)?);
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
    /// The EBS volumes that it made.
    volumes: Volumes,
    /// What it did besides.
    taken_back: TakenBack,
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
    let named = task.objects.iter().map(|text| ObjectArg::parse(text)).collect::<Result<Vec<_>, _>>();
    let named = named.map_err(|error| Usage(error.to_string()))?;
    let discovery = cluster.discover().await.context("discovery")?;
    let uid = cluster_uid(cluster, &discovery).await?;
    let Found { record, undone_at } = restores::find(store, task.restore.as_deref(), &uid).await?;
    let is_meant = task.dry_run || task.restore.is_some();
    let unended = standing::check(&record, is_meant, cluster, context).await?;
    let (cluster, manager) = (&cluster.of_run(id), manager_of(&record.id));
    let ended = record.end.as_ref().map(|end| end.ended_at);
    let undo = Undo { cluster, manager, ended, events, cancel: &context.cancel };
    let written = written::find(&undo, &record, &discovery, store).await?;
    let named = Named { args: &named, discovery: &discovery };
    let mut decided = decide(&undo, &record, written, &named, store, context).await?;
    decided.notes.extend(unended);
    decided
        .notes
        .extend(undone_at.map(|time| format!("it was undone already, {}", standing::ago(time, (context.now)()))));
    let deeds = approval::deeds(&decided);
    let digest = approval::digest(&record, named.args, &deeds)?;
    let planned = planned(&decided);
    if task.dry_run {
        return done(planned.result(record, digest, true));
    }
    approval::check(id, task.approved, digest, &deeds, store).await?;
    if !location.read_only {
        approval::begin(id, digest, &deeds, store, context).await?;
    }
    events.phase(Phase::Restoring);
    let part = carry_out(&undo, decided, store).await?;
    let done = done(part.result(record.clone(), digest, false))?;
    if done.outcome == Outcome::Complete && !named.is_some() && !location.read_only {
        note_undone(id, &record.id, store, context).await;
    }
    Ok(done)
}

/// Notes for `list --restores` that a restore is undone. The undo is done, also where that can't be noted.
async fn note_undone(undo: &BackupId, restore: &BackupId, store: &dyn Store, context: &Context) {
    let (undone_at, key) = ((context.now)(), undone_key(restore));
    let undone = Undone { format: FORMAT.to_owned(), id: restore.clone(), undo: undo.clone(), undone_at };
    let noted = match serde_json::to_vec_pretty(&undone) {
        Ok(bytes) => store.create(&key, Bytes::from(bytes)).await,
        Err(error) => return tracing::warn!(%error, "that it is undone isn't noted"),
    };
    match noted {
        Ok(()) | Err(crate::store::Error::Exists { .. }) => (),
        Err(error) => tracing::warn!(%error, "that it is undone isn't noted"),
    }
}

async fn decide(
    undo: &Undo<'_>,
    record: &Record,
    mut written: Written,
    named: &Named<'_>,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<Decided> {
    let discovery = named.discovery;
    let back = put_back::plan(undo, record, named.args, &written, discovery, store, context).await?;
    let (besides, recorded) = besides::sorted(std::mem::take(&mut written.besides), discovery);
    let mut made = written.made;
    made.retain_mut(|one| {
        one.named = named.has(&one.kind.key(), &one.name.name);
        let is_apart = one.kind.is("persistentvolumes") && recorded.iter().any(|made| made.volume == one.name.name);
        let is_change = back.saved.contains(&format!("{} {}", one.kind, one.name));
        !is_apart && !is_change && (!named.is_some() || one.named)
    });
    let mut removals = undo.judge(&made).await?;
    besides::protect(undo, &besides, &made, &mut removals).await?;
    let goes = |claim: &ObjectName| {
        let goes = |removal: &Removal| matches!(removal, Removal::Delete | Removal::Gone);
        made.iter().zip(&removals).any(|(one, removal)| one.named && goes(removal) && besides::takes(one, claim))
    };
    let volumes = volumes::decide(undo, &record.id, recorded, named, goes, discovery).await?;
    let taken_back = besides::decide(undo, besides, named, goes).await?;
    for arg in named.args {
        let alone = named.only(arg);
        let is_made = made.iter().any(|one| alone.has(&one.kind.key(), &one.name.name));
        if !is_made
            && !back.named.contains(&arg.to_string())
            && !volumes.are_meant(&alone)
            && !taken_back.is_meant(&alone)
        {
            let id = &record.id;
            let text = format!(
                "restore `{id}` wrote no `{arg}`\nhint: `kubectl backup undo {id} --dry-run=client -o wide` lists what it wrote"
            );
            return Err(Error::NotFound(text).into());
        }
    }
    Ok(Decided { made, removals, volumes, taken_back, back: back.chosen, notes: Vec::new() })
}

fn name_of(item: &ItemResult) -> ObjectName {
    ObjectName::new(item.namespace.as_deref(), &item.name)
}

/// The plan in words.
fn planned(decided: &Decided) -> Part {
    let mut part = Part { notes: decided.notes.clone(), ..Part::default() };
    for (made, removal) in decided.made.iter().zip(&decided.removals) {
        part.removal(&made.kind.key(), &made.name, removal);
    }
    part.add(decided.volumes.planned());
    part.add(decided.taken_back.planned());
    if let Some(back) = &decided.back {
        part.add(back.planned().into());
    }
    part
}

/// Removes, then takes and puts back: what was made may be in the way of what was there, a policy or a webhook.
async fn carry_out(undo: &Undo<'_>, decided: Decided, store: &dyn Store) -> anyhow::Result<Part> {
    let Decided { made, removals, volumes, taken_back, back, notes } = decided;
    let mut part = Part { notes, ..Part::default() };
    let chosen: BTreeSet<usize> = (0..made.len()).filter(|at| removals[*at] == Removal::Delete).collect();
    let mut failed = undo.remove(&made, &chosen).await?;
    for (at, (made, removal)) in made.iter().zip(&removals).enumerate() {
        part.removed(&made.kind.key(), &made.name, removal, failed.remove(&at));
    }
    part.add(volumes.carry_out(undo).await);
    part.add(taken_back.carry_out(undo).await);
    if let Some(back) = back {
        part.add(back.carry_out(undo, store).await?.into());
    }
    Ok(part)
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
    let result = Some(Packed::of(&result)?);
    Ok(Done { outcome, exit_code: ExitCode::from(outcome), message, result })
}
