//! The lists of what others need: after those of the objects that were asked for, the cluster-scoped objects that were
//! found to be needed.

use super::frames::Frames;
use super::list::ListTask;
use super::select::OWN_NAMES;
use super::{Error, Saving};
use crate::pipeline::save::list::{Choice, Item};
use crate::resource::Kind;
use crate::rules::needs::needs_of;
use std::collections::BTreeSet;

/// Lists what the saved objects need, and what that needs in turn, until nothing new is needed.
pub(super) async fn cluster_scoped(saving: &Saving<'_>, frames: &Frames) -> Result<(), Error> {
    {
        let mut gathered = saving.gathered();
        let with_objects: Vec<Kind> =
            gathered.kinds.iter().filter(|(_, listed)| listed.objects > 0).map(|(kind, _)| kind.clone()).collect();
        with_objects.iter().for_each(|kind| gathered.needs.need_crd(kind));
    }
    if let Some(kind) = find(saving, "clusterrolebindings.rbac.authorization.k8s.io") {
        list_needed(saving, frames, &kind, &Which::MatchingBindings).await?;
    }
    loop {
        let open = saving.gathered().needs.take();
        if open.is_empty() {
            break;
        }
        for (key, names) in open {
            let Some(kind) = find(saving, &key) else { continue };
            list_needed(saving, frames, &kind, &Which::Named(names)).await?;
        }
    }
    let aggregates = saving.gathered().needs.aggregates();
    match find(saving, "clusterroles.rbac.authorization.k8s.io") {
        Some(kind) if aggregates => list_needed(saving, frames, &kind, &Which::Aggregated).await,
        _ => Ok(()),
    }
}

/// Which objects of a cluster-scoped kind are needed.
enum Which {
    /// Those of these names.
    Named(BTreeSet<String>),
    /// ClusterRoleBindings about a service account that is saved.
    MatchingBindings,
    /// ClusterRoles that an aggregated one, which is saved, is made of.
    Aggregated,
}

fn find(saving: &Saving<'_>, key: &str) -> Option<Kind> {
    saving.request.kinds.iter().find(|kind| kind.is(key) && !kind.namespaced).cloned()
}

async fn list_needed(saving: &Saving<'_>, frames: &Frames, kind: &Kind, which: &Which) -> Result<(), Error> {
    let tasks: Vec<ListTask> = match which {
        Which::Named(names) if names.len() <= OWN_NAMES => {
            names.iter().map(|name| ListTask::named(kind, name)).collect()
        }
        _ => vec![ListTask::whole(kind)],
    };
    saving.gathered().counts.kinds += tasks.len() as u64;
    for task in tasks {
        let choose = |item: &Item<'_>, text: &str| saving.choose_needed(kind, which, item, text);
        saving.list(&task, frames, &choose).await?;
    }
    Ok(())
}

impl Saving<'_> {
    /// Decides on one cluster-scoped object, and notes what it needs in turn.
    fn choose_needed(&self, kind: &Kind, which: &Which, item: &Item<'_>, text: &str) -> Choice {
        let meta = &item.metadata;
        let mut gathered = self.gathered();
        let needs = &mut gathered.needs;
        let is_needed = match which {
            Which::Named(names) => names.contains(&*meta.name),
            Which::MatchingBindings if needs.knows(&kind.key(), &meta.name) => false,
            Which::MatchingBindings => needs.binding_matches(text).unwrap_or_else(|error| {
                tracing::warn!(%error, name = &*meta.name, "a ClusterRoleBinding can't be understood and is saved");
                true
            }),
            Which::Aggregated => needs.is_aggregated(&meta.labels) && !needs.knows(&kind.key(), &meta.name),
        };
        if !is_needed {
            return Choice::Pass;
        }
        gathered.others.note_needed(kind);
        let needs = &mut gathered.needs;
        if meta.labels.has("kubernetes.io/bootstrapping", "rbac-defaults") {
            return Choice::Omit("every API server makes it for itself");
        }
        needs.have(&kind.key(), &meta.name);
        if let Err(error) = needs_of(kind, text, needs) {
            tracing::warn!(%kind, name = &*meta.name, %error, "what it needs is not known");
        }
        if let Some(rule) = self.omitted(kind, None, meta, false) {
            return Choice::Omit(rule);
        }
        gathered.needed.entry(kind.key()).or_default().insert(meta.name.to_string());
        Choice::Take
    }
}
