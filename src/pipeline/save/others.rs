//! How many objects the flags leave out. Where the API server looks for what is asked for, the others are never read:
//! it is asked how many there were at the revision of the list. Where that can't be had for certain no number is told.

use super::list::{ListTask, Listed};
use super::{Saving, Wanted};
use crate::report::Omission;
use crate::resource::Kind;
use crate::rules::selection::Chosen;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};

/// What the flags leave out of the kinds that are listed.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// How many objects of a kind; `None` where nobody knows.
    objects: BTreeMap<Kind, Option<u64>>,
    /// Objects that the flags leave out, and that others need after all or another rule leaves out.
    needed: BTreeMap<Kind, u64>,
    /// Lists whose rest is still to be counted, by kind and namespace.
    picked: BTreeMap<(Kind, Option<String>), Picked>,
}

/// What lists gave of which the API server has picked the objects.
#[derive(Debug)]
struct Picked {
    objects: u64,
    /// At which revision; `None` where they failed or say different ones.
    revision: Option<String>,
}

impl Others {
    /// Notes what a list gave, and whether to its end.
    pub(super) fn note(&mut self, task: &ListTask, listed: &Listed, whole: bool) {
        if !task.leaves_others {
            self.add(&task.kind, Some(listed.others));
            return;
        }
        let objects = listed.objects + listed.omitted.values().sum::<u64>();
        let revision = (whole && !listed.revision.is_empty()).then(|| listed.revision.clone());
        let place = (task.kind.clone(), task.namespace.clone());
        let picked = self.picked.entry(place).or_insert_with(|| Picked { objects: 0, revision: revision.clone() });
        picked.objects += objects;
        if picked.revision != revision {
            picked.revision = None;
        }
    }

    /// Notes that an object is looked at again since others need it.
    pub(super) fn note_needed(&mut self, kind: &Kind) {
        *self.needed.entry(kind.clone()).or_default() += 1;
    }

    fn add(&mut self, kind: &Kind, objects: Option<u64>) {
        let sum = self.objects.entry(kind.clone()).or_insert(Some(0));
        *sum = sum.zip(objects).map(|(sum, objects)| sum + objects);
    }

    /// What the report says of them.
    pub(super) fn omissions(&self, chosen: &Chosen) -> Vec<Omission> {
        let (mut omissions, mut unknown) = (Vec::new(), BTreeSet::new());
        for (kind, objects) in &self.objects {
            let needed = self.needed.get(kind).copied().unwrap_or_default();
            let rule = chosen.other_objects(kind);
            match objects.map(|objects| objects.saturating_sub(needed)) {
                Some(0) => (),
                Some(objects) => omissions.push(Omission { subject: kind.key(), rule, objects: Some(objects) }),
                None => _ = unknown.insert(rule),
            }
        }
        let unread = |rule| Omission { subject: "other objects".to_owned(), rule, objects: None };
        omissions.extend(unknown.into_iter().map(unread));
        omissions
    }
}

/// Has the API server count what it has passed over.
pub(super) async fn count(saving: &Saving<'_>) {
    let picked = std::mem::take(&mut saving.gathered().others.picked);
    let mut counts = stream::iter(picked)
        .map(|((kind, namespace), picked)| async move {
            let all = match &picked.revision {
                Some(revision) if is_countable(saving, namespace.as_deref()) => {
                    saving.cluster.count_at(&kind, namespace.as_deref(), revision).await
                }
                _ => Ok(None),
            };
            let all = all.unwrap_or_else(|error| {
                tracing::debug!(%kind, %error, "how many the flags leave out is not known");
                None
            });
            (kind, all.map(|all| all.saturating_sub(picked.objects)))
        })
        .buffer_unordered(saving.request.lists);
    while let Some((kind, others)) = counts.next().await {
        saving.gathered().others.add(&kind, others);
    }
}

/// Whether all that a list could hold is in a place that was asked for.
fn is_countable(saving: &Saving<'_>, namespace: Option<&str>) -> bool {
    let is_whole = matches!(saving.request.wanted, Wanted::Cluster);
    namespace.is_some() || (is_whole && !saving.request.chosen.leaves_out_some())
}
