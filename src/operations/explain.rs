//! `ns --explain` and `cluster --explain`: the lists of a backup, and nothing written. No hook runs; those that would are
//! named.

use super::backup::BackupTask;
use super::backup::places::Places;
use super::backup::target::Target;
use super::hooks::{Around, NamedHook};
use super::{Context, Done};
use crate::archive::packed::Packed;
use crate::cluster::Cluster;
use crate::id::BackupId;
use crate::pipeline::save::{self, SaveRequest, Seen, Wanted};
use crate::pipeline::until_cancelled;
use crate::report::{ExitCode, Omission, Outcome, Phase, Problem};
use crate::resource::Kind;
use crate::rules::selection::Selection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Names of needed objects that are told of a kind.
const TOLD: usize = 100;

/// What a backup would hold and leave out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What was asked for.
    pub selection: Selection,
    /// The namespaces that this meant.
    pub namespaces: Vec<String>,
    /// What would be saved.
    pub taken: Vec<Taken>,
    /// What rules and flags leave out.
    pub omissions: Vec<Omission>,
    /// What could not be saved.
    pub problems: Vec<Problem>,
    /// The commands that would run in pods.
    #[serde(default)]
    pub hooks: Vec<NamedHook>,
}

/// The objects of a kind that would be saved for one reason.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The kind's key.
    pub kind: String,
    /// How many.
    pub objects: u64,
    /// Why.
    pub why: String,
    /// Their names, where others need them; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Looks at what a backup would hold.
///
/// # Errors
/// As those of a backup, the bucket's excepted.
pub async fn run(id: &BackupId, task: &BackupTask, cluster: &Cluster, context: &Context) -> anyhow::Result<Done> {
    let events = &context.events;
    events.phase(Phase::Discovering);
    let mut target = until_cancelled(&context.cancel, Target::discover(&task.selection, cluster, events)).await?;
    events.phase(Phase::Planning);
    let Places { wanted, chosen, .. } = &target.places;
    let around = Around::new(task.hooks, wanted, chosen, &target.kinds, cluster, context, events);
    let named = async { Ok::<_, crate::pipeline::Error>(around.named().await) };
    let (hooks, mut found) = until_cancelled(&context.cancel, named).await?;
    let mut restart_when_compacted = true;
    let (seen, places) = loop {
        let (pin, places) = target.begin(task, cluster, context, events).await?;
        let request = SaveRequest { restart_when_compacted, ..target.request(&places, id, task, context) };
        match Box::pin(save::look(cluster, &request, pin, events, &context.cancel)).await {
            Err(error) if restart_when_compacted && error.is_expired() => restart_when_compacted = false,
            other => break (other?, places),
        }
    };
    target.settle(places, false, events);
    let taken = taken(&target, &seen);
    let (mut problems, mut omissions) = (seen.problems, seen.omissions);
    problems.append(&mut target.problems);
    omissions.append(&mut target.omissions);
    problems.append(&mut found.problems);
    omissions.append(&mut found.omissions);
    let outcome = if problems.is_empty() { Outcome::Complete } else { Outcome::Partial };
    let message = format!("a backup would hold {} objects; nothing was written", seen.counts.objects);
    let namespaces = target.namespaces();
    let explained = Explanation { selection: task.selection.clone(), namespaces, taken, omissions, problems, hooks };
    let result = Some(Packed::of(&explained)?);
    Ok(Done { outcome, exit_code: ExitCode::from(outcome), message, result })
}

fn taken(target: &Target, seen: &Seen) -> Vec<Taken> {
    let none = BTreeSet::new();
    let mut taken = Vec::new();
    for kind in &seen.kinds {
        let needed = seen.needed.get(&kind.kind).unwrap_or(&none);
        let asked = kind.objects - (needed.len() as u64).min(kind.objects);
        if asked > 0 {
            let why = why(target, &kind.kind);
            taken.push(Taken { kind: kind.kind.clone(), objects: asked, why, names: Vec::new() });
        }
        if !needed.is_empty() {
            let names = needed.iter().take(TOLD).cloned().collect();
            let why = "needed by what is taken".to_owned();
            taken.push(Taken { kind: kind.kind.clone(), objects: needed.len() as u64, why, names });
        }
    }
    taken
}

/// Why objects of a kind are taken that were asked for.
fn why(target: &Target, key: &str) -> String {
    let is_namespaces = matches!(target.places.wanted, Wanted::Namespaces(_));
    let kind = target.kinds.iter().find(|kind| kind.is(key));
    let narrowed = |kind: &Kind| target.places.chosen.reason(kind);
    match (kind, is_namespaces) {
        (Some(kind), true) if kind.is("namespaces") => "asked for".to_owned(),
        (Some(kind), true) => narrowed(kind).unwrap_or_else(|| "in the namespaces".to_owned()),
        (Some(kind), false) => narrowed(kind).unwrap_or_else(|| "in the cluster".to_owned()),
        (None, _) => "defined since discovery".to_owned(),
    }
}
