//! Which lists a backup makes, what it takes of each, and whether it found what was asked for.

use super::list::{Choice, Item, ItemMeta, ListTask};
use super::{SaveRequest, Saving, Wanted};
use crate::cluster::call::TRIES;
use crate::pipeline::Error;
use crate::report::Problem;
use crate::resource::{Kind, ObjectName};
use crate::rules::claims::{self, VolumeData};
use crate::rules::lists::one_by_one;
use crate::rules::needs::needs_of;
use crate::rules::selection::{self, Reach};
use crate::rules::volumes::Claim;
use std::collections::{BTreeMap, BTreeSet};

/// Namespaces up to which each is listed on its own where the API server picks the objects: so it is known what it passes
/// over in them.
const OWN_LISTS: usize = 16;
/// Names up to which each object is fetched on its own.
pub(super) const OWN_NAMES: usize = 8;

/// What was found of what was asked for.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// Objects that a narrow selection means; those that a rule leaves out count too.
    objects: u64,
    /// Those asked for by name: the kind's key and the name.
    named: BTreeSet<(String, String)>,
}

/// The lists of what was asked for itself; what it needs is found afterwards. `sizes` says how many objects kinds have.
pub(super) fn own_lists(kinds: &[Kind], request: &SaveRequest<'_>, sizes: &BTreeMap<String, u64>) -> Vec<ListTask> {
    let all = sizes.get("namespaces").copied();
    let each = |kind: &Kind, wanted: usize| match request.chosen.reach(kind) {
        Reach::Whole => one_by_one(wanted, sizes.get(&kind.key()).copied(), all),
        _ => wanted <= OWN_LISTS,
    };
    let mut tasks = Vec::new();
    for kind in kinds {
        match request.wanted {
            // without its namespace nothing can be restored
            Wanted::Namespaces(names) if kind.is("namespaces") => {
                tasks.extend(names.iter().map(|name| ListTask::named(kind, name)));
            }
            Wanted::Namespaces(_) if !kind.namespaced => (),
            _ if !request.chosen.lists(kind) => (),
            Wanted::Namespaces(names) if each(kind, names.len()) => {
                let within = names.iter().map(|namespace| ListTask::within(kind, namespace));
                tasks.extend(within.flat_map(|task| reaching(task, request)));
            }
            _ => tasks.extend(reaching(ListTask::whole(kind), request)),
        }
    }
    tasks
}

/// The same list with what the API server can pick for us.
fn reaching(task: ListTask, request: &SaveRequest<'_>) -> Vec<ListTask> {
    match request.chosen.reach(&task.kind) {
        Reach::Matching(selector) => {
            vec![ListTask { selector: Some(selector.as_str().to_owned()), leaves_others: true, ..task }]
        }
        Reach::Named(names) if names.len() <= OWN_NAMES => {
            let one = |name: &String| ListTask { name: Some(name.clone()), leaves_others: true, ..task.clone() };
            names.iter().map(one).collect()
        }
        _ => vec![task],
    }
}

impl Saving<'_> {
    /// Whether cluster-scoped objects are looked for that others need: not where all are saved anyway.
    pub(super) fn finds_needs(&self) -> bool {
        self.request.chosen.is_narrow() || matches!(self.request.wanted, Wanted::Namespaces(_))
    }

    /// Decides on one item, and notes what it needs.
    pub(super) fn choose(&self, kind: &Kind, item: &Item<'_>, text: &str) -> Choice {
        let (meta, chosen) = (&item.metadata, self.request.chosen);
        let namespace = kind.namespaced.then_some(&*meta.namespace);
        let is_chosen = chosen.takes(kind, namespace, &meta.name, &meta.labels);
        match (self.request.wanted, namespace) {
            (Wanted::Namespaces(namespaces), Some(namespace)) if !namespaces.contains(namespace) => {
                return Choice::Pass;
            }
            // the namespaces themselves, by their names
            (Wanted::Namespaces(_), None) => (),
            _ if is_chosen => (),
            (Wanted::Cluster, namespace) if chosen.leaves_out_place(kind, namespace, &meta.name) => {
                return Choice::Pass;
            }
            _ => return Choice::Other,
        }
        let is_named = chosen.names(kind, &meta.name);
        if is_chosen && chosen.is_narrow() {
            let picked = &mut self.gathered().picked;
            picked.objects += 1;
            if is_named {
                picked.named.insert((kind.key(), meta.name.to_string()));
            }
        }
        if self.finds_needs() && namespace.is_none() {
            self.gathered().needs.have(&kind.key(), &meta.name);
        }
        if let Some(rule) = self.omitted(kind, namespace, meta, is_named) {
            return Choice::Omit(rule);
        }
        if self.finds_needs() {
            self.note_needs(kind, namespace, &meta.name, text);
        }
        if kind.is("persistentvolumeclaims") {
            self.note_claim(namespace, &meta.name, text);
        }
        Choice::Take
    }

    fn note_needs(&self, kind: &Kind, namespace: Option<&str>, name: &str, text: &str) {
        let needs = &mut self.gathered().needs;
        if let (Wanted::Cluster, Some(namespace)) = (self.request.wanted, namespace) {
            needs.want("namespaces", namespace);
        }
        if let Err(error) = needs_of(kind, text, needs) {
            tracing::warn!(%kind, namespace, name, %error, "what it needs is not known");
        }
    }

    /// Hands a claim that is saved to who saves its data.
    fn note_claim(&self, namespace: Option<&str>, name: &str, text: &str) {
        let claim = Claim::of(namespace.unwrap_or_default(), name, text);
        let mut gathered = self.gathered();
        match (claim, self.request.volumes) {
            (Ok(None), _) => (),
            (_, VolumeData::Skip) => gathered.skipped_claims += 1,
            (Ok(Some(claim)), VolumeData::Save) => {
                // nobody takes them where the run ends anyway
                _ = gathered.claims.as_ref().map(|claims| claims.send(claim));
            }
            (Err(error), VolumeData::Save) => {
                drop(gathered);
                let subject = format!("persistentvolumeclaims {}", ObjectName::new(namespace, name));
                self.tell(Problem { subject, message: claims::unsaved(&error.to_string()) });
            }
        }
    }

    /// The rule that leaves an object out, if one does. Who names an object means it, whatever its labels say; a namespace
    /// whose label excludes it is left out with all that is in it, or not at all ([`Chosen::among`]).
    ///
    /// [`Chosen::among`]: crate::rules::selection::Chosen::among
    pub(super) fn omitted(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        meta: &ItemMeta<'_>,
        is_named: bool,
    ) -> Option<&'static str> {
        let heeds_label = !is_named && !kind.is("namespaces");
        let by_label = if heeds_label { selection::excluded_by_label(&meta.labels) } else { None };
        by_label.or_else(|| {
            selection::never_backed_up_object(kind, namespace, &meta.labels, self.request.install_namespace)
        })
    }

    /// Checks that what was asked for is there: a backup of nothing would look good. Where lists failed nobody can tell,
    /// and what is missing is a problem besides theirs.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(super) fn check_found(&self) -> Result<(), Error> {
        let chosen = self.request.chosen;
        if !chosen.is_narrow() {
            return Ok(());
        }
        let (found, is_sure) = {
            let mut gathered = self.gathered();
            (std::mem::take(&mut gathered.picked), gathered.problems.is_empty())
        };
        let place = match self.request.wanted {
            Wanted::Cluster => "the cluster".to_owned(),
            Wanted::Namespaces(names) => match names.iter().collect::<Vec<_>>().as_slice() {
                [only] => format!("namespace `{only}`"),
                more => format!("{} namespaces", more.len()),
            },
        };
        let missing = chosen.named().filter(|(key, name)| !found.named.contains(&((*key).into(), (*name).into())));
        for (key, name) in missing {
            let text = format!("there is no `{key}/{name}` in {place}");
            if is_sure {
                return Err(Error::NotFound(format!("{text}\nhint: `kubectl get {key} -A` lists what there is")));
            }
            self.tell(Problem { subject: format!("{key} {name}"), message: text });
        }
        if found.objects == 0 && is_sure {
            let flags = chosen.selection().flags().unwrap_or_default();
            return Err(Error::NotFound(format!(
                "nothing in {place} matches `{flags}`\nhint: `--explain` tells what a selection takes, without saving it"
            )));
        }
        Ok(())
    }
}

impl ListTask {
    /// All objects of a kind.
    pub(super) fn whole(kind: &Kind) -> Self {
        Self { kind: kind.clone(), namespace: None, name: None, selector: None, tries: TRIES, leaves_others: false }
    }

    /// The objects of a kind in one namespace.
    fn within(kind: &Kind, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..Self::whole(kind) }
    }

    /// One object of a kind that has no namespaces.
    pub(super) fn named(kind: &Kind, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::whole(kind) }
    }
}
