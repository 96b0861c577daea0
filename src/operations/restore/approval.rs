//! What runs is what was approved: by a digest over the backup, the cluster, the options, and every object with what
//! becomes of it. An attempt writes down what it is about to do, so that the next one knows the first one's own writes
//! from other people's.

use super::super::Context;
use super::{DryRun, RestoreTask};
use crate::archive::manifest::{Manifest, data_key};
use crate::id::{Attempt, BackupId, BackupQuery, Digest};
use crate::pipeline::Error;
use crate::pipeline::apply::{Applied, Restored};
use crate::pipeline::plan::Plan;
use crate::pipeline::save::commit;
use crate::report::Problem;
use crate::rules::verdict::{Skip, Verdict};
use crate::store::Store;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Bytes of a `plan.json` that are read: a letter for each object, and a digest for each that is changed.
const BEGUN_LIMIT: u64 = 64 * 1024 * 1024;

/// What tells a plan from others with the same objects and verdicts.
pub(super) fn seal(task: &RestoreTask, manifest: &Manifest, cluster: &str) -> anyhow::Result<Vec<u8>> {
    let mut options = task.clone();
    // `latest` and the digest of its index are two names of one thing; whether it is tried out or done is none of it
    (options.approved, options.dry_run) = (None, DryRun::None);
    options.query.backup = BackupQuery::Prefix(manifest.id.to_string());
    options.query.from_cluster = None;
    Ok(serde_json::to_vec(&json!({
        "backup": manifest.id, "index": manifest.files.index.sha256, "cluster": cluster, "options": options,
    }))?)
}

/// `plan.json`: written before the first write.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Begun {
    plan_digest: Digest,
    /// The verdicts, a letter for each object in the order of the backup.
    #[serde(default)]
    verdicts: String,
    /// Of objects that are changed, the digest of what changes, by their number in the backup.
    #[serde(default)]
    changed: BTreeMap<usize, Digest>,
    /// Of volumes that are made, what they are made of.
    #[serde(default)]
    volumes: BTreeMap<String, Digest>,
    /// Why others can't be made. The next attempt finds their claims there, waiting, and has nothing to say of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

fn letter(verdict: &Verdict) -> char {
    match verdict {
        Verdict::Create => 'c',
        Verdict::Update => 'u',
        Verdict::Recreate => 'r',
        Verdict::Unchanged | Verdict::Skip(Skip::Exists) => '=',
        Verdict::Skip(_) => 's',
        _ => 'x',
    }
}

fn changed(plan: &Plan) -> BTreeMap<usize, Digest> {
    let is_changed = |number: &usize| plan.item(*number).is_some_and(|item| item.verdict.writes());
    plan.changed
        .iter()
        .filter(|(number, _)| is_changed(number))
        .map(|(number, changed)| (*number, changed.digest))
        .collect()
}

/// Writes down what is about to be done.
pub(super) async fn begin(
    id: &BackupId,
    plan: &Plan,
    problems: &[Problem],
    home: Option<&dyn Store>,
    context: &Context,
) -> anyhow::Result<()> {
    let Some(store) = home else { return Ok(()) };
    let begun = Begun {
        plan_digest: plan.digest,
        verdicts: plan.items.iter().map(|item| letter(&item.verdict)).collect(),
        changed: changed(plan),
        volumes: plan.volumes.clone(),
        problems: problems.to_vec(),
    };
    let begun = Bytes::from(serde_json::to_vec(&begun)?);
    commit::put_file(store, id, &context.attempt, "plan.json", begun).await?;
    Ok(())
}

/// What earlier attempts of this very restore have begun.
pub(super) async fn earlier(id: &BackupId, store: Option<&dyn Store>) -> anyhow::Result<Vec<Begun>> {
    let mut found = Vec::new();
    let Some(store) = store else { return Ok(found) };
    for object in store.list(&format!("data/{id}/")).await? {
        if object.key.ends_with("/plan.json") {
            found.extend(read(&object.key, store).await?);
        }
    }
    Ok(found)
}

/// What an attempt has begun; `None` where that can't be read.
pub(super) async fn begun(id: &BackupId, attempt: &Attempt, store: &dyn Store) -> anyhow::Result<Option<Begun>> {
    read(&data_key(id, attempt, "plan.json"), store).await
}

async fn read(key: &str, store: &dyn Store) -> anyhow::Result<Option<Begun>> {
    Ok(serde_json::from_slice(&store.get(key, BEGUN_LIMIT).await?).ok())
}

/// Checks that this is the approved plan. One that differs only because an earlier attempt of this very restore has begun
/// to carry it out is the same plan; what that attempt made is left alone then.
pub(super) fn check(task: &RestoreTask, plan: &mut Plan, earlier: &[Begun]) -> Result<(), Error> {
    let Some(approved) = task.approved.filter(|approved| *approved != plan.digest) else { return Ok(()) };
    if earlier.iter().any(|begun| begun.plan_digest == approved && continues(begun, plan)) {
        plan.digest = approved;
        return Ok(());
    }
    Err(Error::PlanChanged { approved, found: plan.digest })
}

/// The problems of volumes that earlier attempts have told, and those of this one.
pub(super) fn problems(earlier: &[Begun], now: Vec<Problem>) -> Vec<Problem> {
    let mut all = now;
    for problem in earlier.iter().flat_map(|begun| &begun.problems) {
        if !all.iter().any(|told| told.subject == problem.subject) {
            all.push(problem.clone());
        }
    }
    all
}

/// What earlier attempts have made and changed that this plan leaves as it is now: the restore's deeds, too.
pub(super) fn done_before(earlier: &[Begun], plan: &Plan) -> Restored {
    let mut restored = Restored::default();
    for begun in earlier.iter().filter(|begun| begun.verdicts.len() == plan.items.len()) {
        for (item, then) in plan.items.iter().zip(begun.verdicts.chars()) {
            let number = item.entry as usize;
            let (Some(uid), '=') = (plan.ours.get(&number), letter(&item.verdict)) else { continue };
            let applied = match then {
                'c' => Applied::Created,
                'u' => Applied::Updated,
                'r' => Applied::Recreated,
                _ => continue,
            };
            restored.note(number, applied, Some(uid.clone()));
        }
    }
    restored
}

/// Leaves alone what isn't as it was when an earlier attempt saved it: of that nothing is saved.
pub(super) fn spare(plan: &mut Plan, saved: Option<&Begun>) {
    let is_saved =
        |number: usize, digest: Digest| saved.is_some_and(|begun| begun.changed.get(&number) == Some(&digest));
    let unsaved: Vec<usize> = changed(plan).into_iter().filter(|(n, d)| !is_saved(*n, *d)).map(|(n, _)| n).collect();
    for number in unsaved {
        let text = "it was changed since this restore saved what it changes; restore again";
        plan.decide(number, Verdict::Refused(text.into()));
    }
}

/// Whether a plan is what is left of one that was begun. What the earlier attempt made, and somebody changed since, is not
/// changed again.
fn continues(begun: &Begun, plan: &mut Plan) -> bool {
    let now = changed(plan);
    let then: Vec<char> = begun.verdicts.chars().collect();
    let same_volumes = plan.volumes.iter().all(|(claim, digest)| begun.volumes.get(claim) == Some(digest));
    if then.len() != plan.items.len() || !same_volumes {
        return false;
    }
    let Plan { items, changed, .. } = plan;
    items.iter_mut().zip(then).all(|(item, then)| {
        let number = item.entry as usize;
        match (then, letter(&item.verdict)) {
            ('c' | 'u' | 'r', '=') | ('r', 'c') => true,
            // a PersistentVolume whose claim has got another one by now, and asks for nothing any more
            ('s', 'c') => {
                item.verdict = Verdict::Skip(Skip::NeverRestored("an earlier try of this restore left it out"));
                true
            }
            ('c', 'u' | 'r' | 'x') => {
                item.verdict = Verdict::Skip(Skip::Exists);
                changed.remove(&number);
                true
            }
            (then, now_is) => then == now_is && begun.changed.get(&number) == now.get(&number),
        }
    })
}
