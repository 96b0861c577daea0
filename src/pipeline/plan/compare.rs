//! The second half of a plan that touches what exists: every object that is there is read and compared with what would be
//! written in its place.

use super::super::adapt;
use super::super::walk::{self, Load, Saved};
use super::pages::Comparing;
use super::{Changed, Plan};
use crate::cluster::Cluster;
use crate::pipeline::Error;
use crate::pipeline::fetch::Backup;
use crate::resource::Kind;
use crate::rules;
use crate::rules::compare::{self, Change};
use crate::rules::owners::Owners;
use crate::rules::verdict::{self, Existing, Verdict};
use crate::store::Store;
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes of changes that a plan keeps to show; of what comes after, only that it differs.
const SHOWN: usize = 4 * 1024 * 1024;

/// What an object is compared to.
pub(in crate::pipeline) struct Compared {
    /// What an update writes.
    pub(in crate::pipeline) wanted: Value,
    /// What that changes.
    pub(in crate::pipeline) changes: Vec<Change>,
}

impl Plan {
    /// What an update of this object of the target would write and change. `saved` is the object as it was saved.
    pub(in crate::pipeline) fn against(
        &self,
        kind: &Kind,
        mut saved: Value,
        live: &Value,
        owners: &Owners,
    ) -> Result<Compared, rules::Error> {
        self.adaptation.apply(kind, &mut saved)?;
        owners.rewrite(kind, &mut saved);
        let mut bare = live.clone();
        self.adaptation.strip(kind, &mut bare);
        let wanted = compare::wanted(kind, saved, live, &bare);
        Ok(Compared { changes: compare::changes(live, &wanted), wanted })
    }
}

/// What came of one comparison.
pub(super) struct Found {
    number: usize,
    verdict: Verdict,
    changes: Vec<Change>,
}

/// Compares these entries, which all have something in their place, and gives them their verdicts.
pub(super) async fn all(
    cluster: &Cluster,
    store: &dyn Store,
    backup: &Backup,
    plan: &mut Plan,
    existing: Existing,
    numbers: &BTreeSet<usize>,
) -> Result<(), Error> {
    let mut found = Vec::new();
    {
        let plan = &*plan;
        let one = |saved: Saved| async move { one(cluster, backup, plan, existing, &saved).await };
        let mut shown = 0;
        let mut tell = |result: Result<Found, Error>| match result {
            Ok(Found { verdict: Verdict::Unchanged, .. }) => (), // most are, and take no memory
            other => found.push(other.map(|found| kept(found, backup, &mut shown))),
        };
        let listed = Comparing { cluster, store, backup, plan, existing };
        let left = listed.by_pages(numbers, &mut tell).await?;
        walk::each(store, backup, &left, Load::WithLive, one, tell).await?;
    }
    numbers.iter().for_each(|number| plan.decide(*number, Verdict::Unchanged));
    for found in found {
        let (number, verdict, changed) = found?;
        plan.decide(number, verdict);
        if let Some(changed) = changed {
            plan.changed.insert(number, changed);
        }
    }
    Ok(())
}

/// What a plan keeps of a comparison.
fn kept(found: Found, backup: &Backup, shown: &mut usize) -> (usize, Verdict, Option<Changed>) {
    if found.changes.is_empty() {
        return (found.number, found.verdict, None);
    }
    let digest = compare::digest(&found.changes);
    let kind = &backup.index.frame(&backup.index.entries()[found.number]).kind;
    let mut changes = compare::masked(kind, found.changes);
    *shown += serde_json::to_vec(&changes).map_or(0, |text| text.len());
    if *shown > SHOWN {
        changes = Vec::new();
    }
    (found.number, found.verdict, Some(Changed { digest, changes }))
}

async fn one(
    cluster: &Cluster,
    backup: &Backup,
    plan: &Plan,
    existing: Existing,
    saved: &Saved,
) -> Result<Found, Error> {
    let number = saved.number;
    let entry = &backup.index.entries()[number];
    let kind = &backup.index.frame(entry).kind;
    let target = plan.adaptation.target(kind, &backup.index.object_name(entry));
    let kind = &plan.adaptation.written_as(kind);
    let Some(live) = cluster.get(kind, &target).await? else {
        return Ok(Found { number, verdict: Verdict::Create, changes: Vec::new() }); // it went meanwhile
    };
    let live: Value = adapt::live(kind, &target, &live)?;
    judged(backup, plan, existing, number, &saved.json, &live)
}

/// Compares one object with what stands in its place.
pub(super) fn judged(
    backup: &Backup,
    plan: &Plan,
    existing: Existing,
    number: usize,
    json: &[u8],
    live: &Value,
) -> Result<Found, Error> {
    let object = adapt::parse(backup, number, json)?;
    let kind = &plan.adaptation.written_as(&backup.index.frame(&backup.index.entries()[number]).kind);
    let compared = match plan.against(kind, object, live, &plan.owners) {
        Ok(compared) => compared,
        Err(error) => {
            return Ok(Found { number, verdict: Verdict::Refused(error.to_string().into()), changes: Vec::new() });
        }
    };
    let verdict = verdict::compared(existing, kind, live, &compared.changes);
    Ok(Found { number, verdict, changes: compared.changes })
}
