//! A backup against the live cluster, or against another backup. Only what can differ is read: an object that has the same
//! uid and resourceVersion on both sides was not written in between.

mod backups;
mod live;

pub use backups::between;
pub use live::against_live;

use super::adapt::Adaptation;
use super::fetch::Backup;
use crate::report::Problem;
use crate::resource::{Kind, ObjectName};
use crate::rules::restorable::{Facts, Protected, made_by_controller, never_restored};
use crate::rules::{compare, diff};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Bytes of objects that a comparison gives back; of what comes after, only that it differs.
const SHOWN: usize = 24 * 1024 * 1024;

/// What to compare.
pub struct DiffRequest<'a> {
    /// The backup.
    pub backup: &'a Backup,
    /// The entries that were asked for; `None`: all.
    pub chosen: Option<BTreeSet<usize>>,
    /// Whether they were asked for by kind and name: then nothing else is looked for, and nothing left out.
    pub named: bool,
    /// What isn't compared, as a restore leaves it alone.
    pub protected: Protected<'a>,
}

impl DiffRequest<'_> {
    fn numbers(&self) -> BTreeSet<usize> {
        self.chosen.clone().unwrap_or_else(|| (0..self.backup.index.entries().len()).collect())
    }

    /// Whether an object is left out: controllers make it anew, and no restore writes it.
    fn is_left_out(&self, kind: &Kind, name: &ObjectName, facts: &Facts) -> bool {
        let by_rule = never_restored(kind, name, facts, &self.protected).is_some();
        !self.named && (by_rule || made_by_controller(kind, facts, None).is_some() || kind.is("endpoints"))
    }
}

/// An object that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The kind's key.
    pub kind: String,
    /// Group and version.
    pub api_version: String,
    /// The namespace; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The object in the backup, noise and Secret values aside; absent where it isn't in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Value>,
    /// The object in the cluster or the other backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Value>,
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Differences {
    /// The objects that differ.
    pub found: Vec<Difference>,
    /// What could not be compared.
    pub problems: Vec<Problem>,
    shown: usize,
}

impl Differences {
    /// Compares two states of an object, and keeps them if they differ.
    fn compare(
        &mut self,
        adaptation: &Adaptation,
        kind: &Kind,
        name: &ObjectName,
        mut left: Option<Value>,
        mut right: Option<Value>,
    ) {
        for side in [&mut left, &mut right].into_iter().flatten() {
            adaptation.strip(kind, side);
            compare::normal(side);
        }
        if left == right {
            return;
        }
        diff::mask(kind, left.as_mut(), right.as_mut());
        let size = |side: &Option<Value>| side.as_ref().map_or(0, |side| side.to_string().len());
        self.shown += size(&left) + size(&right);
        if self.shown > SHOWN {
            let message = "it differs; there is too much that does, and this is not shown".to_owned();
            self.problems.push(Problem { subject: format!("{kind} {name}"), message });
            return;
        }
        self.found.push(Difference {
            kind: kind.key(),
            api_version: kind.api_version(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            left,
            right,
        });
    }

    fn sorted(mut self) -> Self {
        self.found.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
        self
    }
}

/// The kind, namespace and name of an entry, for sorting and finding.
fn place(backup: &Backup, number: usize) -> (String, &str, &str) {
    let entry = &backup.index.entries()[number];
    (backup.index.frame(entry).kind.key(), backup.index.namespace(entry).unwrap_or(""), backup.index.name(entry))
}
