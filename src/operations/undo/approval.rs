//! What runs is what was approved, or what an earlier attempt of the same undo has left of it.

use super::super::Context;
use super::Decided;
use crate::archive::record::Record;
use crate::id::{BackupId, Digest};
use crate::pipeline::Error;
use crate::pipeline::save::commit;
use crate::pipeline::undo::Removal;
use crate::rules::kinds::ObjectArg;
use crate::store::Store;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Bytes of a `plan.json` that are read.
const BEGUN_LIMIT: u64 = 64 * 1024 * 1024;

/// Every write, and of one that changes something what it changes.
type Deeds = BTreeMap<String, Option<Digest>>;

/// `plan.json`: written before the first write.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Begun {
    plan_digest: Digest,
    deeds: Deeds,
}

pub(super) fn deeds(decided: &Decided) -> Deeds {
    let removed = decided.made.iter().zip(&decided.removals).filter(|(_, removal)| **removal == Removal::Delete);
    let mut deeds: Deeds =
        removed.map(|(made, _)| (format!("delete {} {} {}", made.kind, made.name, made.uid), None)).collect();
    deeds.extend(decided.volumes.deeds().chain(decided.taken_back.deeds()).map(|deed| (deed, None)));
    if let Some(back) = &decided.back {
        for item in back.plan.items.iter().filter(|item| item.verdict.writes()) {
            let number = item.entry as usize;
            let entry = &back.backup.index.entries()[number];
            let (kind, name) = (&back.backup.index.frame(entry).kind, back.backup.index.object_name(entry));
            let change = back.plan.changed.get(&number).map(|changed| changed.digest);
            deeds.insert(format!("put {kind} {name}"), change);
        }
    }
    deeds
}

pub(super) fn digest(record: &Record, named: &[ObjectArg], deeds: &Deeds) -> anyhow::Result<Digest> {
    let named: Vec<String> = named.iter().map(ObjectArg::to_string).collect();
    let all = json!({"restore": record.id, "cluster": record.cluster, "named": named, "deeds": deeds});
    Ok(Digest::of(&serde_json::to_vec(&all)?))
}

/// Writes down what is about to be done.
pub(super) async fn begin(
    id: &BackupId,
    digest: Digest,
    deeds: &Deeds,
    store: &dyn Store,
    context: &Context,
) -> anyhow::Result<()> {
    let begun = Begun { plan_digest: digest, deeds: deeds.clone() };
    let bytes = Bytes::from(serde_json::to_vec(&begun)?);
    commit::put_file(store, id, &context.attempt, "plan.json", bytes).await?;
    Ok(())
}

/// Checks that this is the approved plan, or part of it where an earlier attempt has carried out the rest.
pub(super) async fn check(
    id: &BackupId,
    approved: Option<Digest>,
    found: Digest,
    deeds: &Deeds,
    store: &dyn Store,
) -> anyhow::Result<()> {
    let Some(approved) = approved.filter(|approved| *approved != found) else { return Ok(()) };
    for object in store.list(&format!("data/{id}/")).await? {
        if !object.key.ends_with("/plan.json") {
            continue;
        }
        let begun: Option<Begun> = serde_json::from_slice(&store.get(&object.key, BEGUN_LIMIT).await?).ok();
        if begun.is_some_and(|begun| begun.plan_digest == approved && is_part(deeds, &begun.deeds)) {
            return Ok(());
        }
    }
    Err(Error::PlanChanged { approved, found }.into())
}

/// Whether these deeds are among those. What was deleted to be made anew is only made by now.
fn is_part(deeds: &Deeds, of: &Deeds) -> bool {
    deeds.iter().all(|(deed, change)| of.get(deed).is_some_and(|then| change.is_none() || change == then))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_part_of_what_was_begun() {
        let (a, b) = (Some(Digest::of(b"a")), Some(Digest::of(b"b")));
        let deeds =
            |all: &[(&str, Option<Digest>)]| all.iter().map(|(deed, d)| ((*deed).to_owned(), *d)).collect::<Deeds>();
        let begun = deeds(&[("put x", a), ("delete y", None)]);
        for (now, is) in [
            (deeds(&[]), true),
            (begun.clone(), true),
            (deeds(&[("put x", None)]), true),
            (deeds(&[("put x", b)]), false),
            (deeds(&[("put z", a)]), false),
            (deeds(&[("delete z", None)]), false),
        ] {
            assert_eq!(is_part(&now, &begun), is, "{now:?}");
        }
    }
}
