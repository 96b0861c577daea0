//! What the parts of an undo tell, of their plan and of what became of it, and which objects its arguments name.

use super::{Digest, ItemResult, Record, RestoreResult, UndoResult};
use crate::cluster::discover::Discovery;
use crate::pipeline::undo::Removal;
use crate::report::Problem;
use crate::resource::ObjectName;
use crate::rules::kinds::{ObjectArg, Served};

/// The objects that a person named.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    pub(super) args: &'a [ObjectArg],
    pub(super) discovery: &'a Discovery,
}

impl<'a> Named<'a> {
    /// Whether any is named; else all that the restore did is meant.
    pub(super) fn is_some(&self) -> bool {
        !self.args.is_empty()
    }

    /// Whether this object is named, in any namespace.
    pub(super) fn has(&self, kind: &str, name: &str) -> bool {
        self.discovery.get(kind).is_some_and(|served| self.args.iter().any(|arg| means(arg, served, name)))
    }

    /// One of them alone.
    pub(super) fn only(&self, arg: &'a ObjectArg) -> Self {
        Self { args: std::slice::from_ref(arg), ..*self }
    }
}

/// Whether an argument means this object.
pub(super) fn means(arg: &ObjectArg, served: &Served, name: &str) -> bool {
    arg.name == name && arg.kind.matches(served)
}

/// What a part of an undo tells.
#[derive(Default)]
pub(super) struct Part {
    pub(super) items: Vec<ItemResult>,
    pub(super) problems: Vec<Problem>,
    pub(super) notes: Vec<String>,
}

impl Part {
    /// An object with its verdict.
    pub(super) fn item(&mut self, kind: &str, name: &ObjectName, verdict: &str, reason: &str) {
        self.items.push(ItemResult {
            kind: kind.to_owned(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            verdict: verdict.to_owned(),
            reason: reason.to_owned(),
            ..ItemResult::default()
        });
    }

    /// An object that is a problem.
    pub(super) fn problem(&mut self, kind: &str, name: &ObjectName, verdict: &str, why: &str) {
        self.item(kind, name, verdict, why);
        self.problems.push(Problem { subject: format!("{kind} {name}"), message: why.to_owned() });
    }

    /// What is to become of something that the restore made.
    pub(super) fn removal(&mut self, kind: &str, name: &ObjectName, removal: &Removal) {
        match removal {
            Removal::Delete => self.item(kind, name, "delete", ""),
            Removal::Gone => self.item(kind, name, "unchanged", "it is gone already"),
            Removal::Kept(why) => self.item(kind, name, "skip", why),
            Removal::Refused(why) => self.problem(kind, name, "refused", why),
        }
    }

    /// What became of it.
    pub(super) fn removed(&mut self, kind: &str, name: &ObjectName, removal: &Removal, failed: Option<String>) {
        match (removal, failed) {
            (Removal::Delete, Some(why)) => self.problem(kind, name, "failed", &why),
            (Removal::Delete, None) => self.item(kind, name, "deleted", ""),
            _ => self.removal(kind, name, removal),
        }
    }

    /// Adds what another part tells.
    pub(super) fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.problems.extend(other.problems);
        self.notes.extend(other.notes);
    }

    /// All of it, of a restore.
    pub(super) fn result(self, restore: Record, plan_digest: Digest, dry_run: bool) -> UndoResult {
        let Self { items, problems, notes } = self;
        UndoResult { restore, plan_digest, dry_run, items, problems, notes }
    }
}

impl From<RestoreResult> for Part {
    fn from(RestoreResult { items, problems, notes, .. }: RestoreResult) -> Self {
        Self { items, problems, notes }
    }
}
