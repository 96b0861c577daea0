//! What runs is what was approved: by a digest over the backup, the cluster, the options, and every object with what
//! becomes of it. An attempt writes down what it is about to do, so that the next one knows the first one's own writes
//! from other people's.

use super::super::Context;
use super::{DryRun, RestoreTask};
use crate::archive::manifest::Manifest;
use crate::id::{BackupId, BackupQuery, Digest};
use crate::pipeline::Error;
use crate::pipeline::plan::Plan;
use crate::pipeline::save::commit;
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
struct Begun {
    plan_digest: Digest,
    /// The verdicts, a letter for each object in the order of the backup.
    #[serde(default)]
    verdicts: String,
    /// Of objects that are changed, the digest of what changes, by their number in the backup.
    #[serde(default)]
    changed: BTreeMap<usize, Digest>,
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
pub(super) async fn begin(id: &BackupId, plan: &Plan, store: &dyn Store, context: &Context) -> anyhow::Result<()> {
    let begun = Begun {
        plan_digest: plan.digest,
        verdicts: plan.items.iter().map(|item| letter(&item.verdict)).collect(),
        changed: changed(plan),
    };
    let begun = Bytes::from(serde_json::to_vec(&begun)?);
    commit::put_file(store, id, &context.attempt, "plan.json", begun).await?;
    Ok(())
}

/// Checks that this is the approved plan. One that differs only because an earlier attempt of this very restore has begun
/// to carry it out is the same plan; what that attempt made is left alone then.
pub(super) async fn check(id: &BackupId, task: &RestoreTask, plan: &mut Plan, store: &dyn Store) -> anyhow::Result<()> {
    let Some(approved) = task.approved.filter(|approved| *approved != plan.digest) else { return Ok(()) };
    for object in store.list(&format!("data/{id}/")).await? {
        if object.key.ends_with("/plan.json") {
            let bytes = store.get(&object.key, BEGUN_LIMIT).await?;
            let begun = serde_json::from_slice::<Begun>(&bytes).ok();
            if begun.is_some_and(|begun| begun.plan_digest == approved && continues(&begun, plan)) {
                plan.digest = approved;
                return Ok(());
            }
        }
    }
    Err(Error::PlanChanged { approved, found: plan.digest }.into())
}

/// Whether a plan is what is left of one that was begun. What the earlier attempt made, and somebody changed since, is not
/// changed again.
fn continues(begun: &Begun, plan: &mut Plan) -> bool {
    let now = changed(plan);
    let then: Vec<char> = begun.verdicts.chars().collect();
    if then.len() != plan.items.len() {
        return false;
    }
    let Plan { items, changed, .. } = plan;
    items.iter_mut().zip(then).all(|(item, then)| {
        let number = item.entry as usize;
        match (then, letter(&item.verdict)) {
            ('c' | 'u' | 'r', '=') | ('r', 'c') => true,
            ('c', 'u' | 'r' | 'x') => {
                item.verdict = Verdict::Skip(Skip::Exists);
                changed.remove(&number);
                true
            }
            (then, now_is) => then == now_is && begun.changed.get(&number) == now.get(&number),
        }
    })
}
