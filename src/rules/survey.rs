//! What a plan says of objects beside their verdicts, so that a person sees it before it happens: what asks for power over
//! the cluster, what belongs to Argo CD, Flux or Helm, what binds to the old cluster, and what flags change. Gathered while
//! a backup is read through once, a few bytes for each find.

mod finds;

use super::adapt::{Adapt, Change};
use super::gitops::{self, Manager};
use super::head::{Head, Metadata};
use super::json::parse;
use super::restorable::{Facts, made_by_controller};
use super::{Error, claims};
use crate::resource::Kind;
use finds::Topic;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Objects that a note names before it counts.
const NAMED: usize = 3;

/// Looks at objects one by one.
#[derive(Debug)]
pub struct Survey<'a> {
    adapt: &'a Adapt,
    other_cluster: bool,
    finds: Vec<(u32, Find)>,
    /// Applications, kustomizations and releases, each once.
    managers: Vec<(Manager, String)>,
    refused: HashMap<u32, String>,
    plain_status: BTreeSet<String>,
    volumes: Vec<(u32, String)>,
}

#[derive(Clone, Copy, Debug)]
enum Find {
    Topic(Topic),
    Change(Change),
    /// The place in `managers`, and whether the object's namespace is mapped.
    Managed(u16, bool),
}

impl<'a> Survey<'a> {
    /// A survey of what `adapt` will write; `other_cluster` says that the backup is not the target's own.
    pub fn new(adapt: &'a Adapt, other_cluster: bool) -> Self {
        Self {
            adapt,
            other_cluster,
            finds: Vec::new(),
            managers: Vec::new(),
            refused: HashMap::new(),
            plain_status: BTreeSet::new(),
            volumes: Vec::new(),
        }
    }

    /// Looks at one object; `number` is the caller's own.
    ///
    /// # Errors
    /// When it isn't shaped as an object.
    pub fn look(&mut self, number: u32, kind: &Kind, facts: &Facts, head: &Head<'_>) -> Result<(), Error> {
        if made_by_controller(kind, facts, None).is_some() {
            return Ok(());
        }
        let (raw, Metadata { namespace, labels, annotations, .. }) = (head.raw(), &head.metadata);
        let is_mapped = self.adapt.mapping().target(namespace) != &**namespace;
        if let Some(manager) = gitops::managed_by(labels, annotations) {
            let known = self.managers.iter().position(|known| *known == manager);
            let at = known.unwrap_or_else(|| {
                self.managers.push(manager);
                self.managers.len() - 1
            });
            self.finds.push((number, Find::Managed(u16::try_from(at).unwrap_or(u16::MAX), is_mapped)));
        }
        let mut topics = finds::by_kind(kind);
        if self.other_cluster || is_mapped {
            topics.extend(finds::bound(kind, annotations));
        }
        if finds::is_read_whole(kind) {
            let object: Value = parse(raw)?;
            topics.extend(finds::in_object(kind, &object, self.other_cluster, is_mapped));
            if kind.is("customresourcedefinitions.apiextensions.k8s.io") && !finds::has_status_subresource(&object) {
                self.plain_status.extend(object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned));
            }
        }
        if kind.is("horizontalpodautoscalers.autoscaling") && self.adapt.scales_to_zero() {
            topics.insert(Topic::Autoscaler);
        }
        if kind.is("persistentvolumeclaims") {
            self.volumes.extend(claims::volume_of(raw)?.map(|volume| (number, volume)));
        }
        if !kind.is("secrets") && self.adapt.mapping().sources().any(|source| finds::names_host_in(raw, source)) {
            topics.insert(Topic::HostOfNamespace);
        }
        self.finds.extend(topics.into_iter().map(|topic| (number, Find::Topic(topic))));
        if self.adapt.is_asked() {
            self.try_out(number, kind, raw)?;
        }
        Ok(())
    }

    fn try_out(&mut self, number: u32, kind: &Kind, raw: &str) -> Result<(), Error> {
        match self.adapt.apply(kind, &mut parse(raw)?) {
            Ok(changes) => {
                let changes: BTreeSet<Change> = changes.into_iter().collect();
                self.finds.extend(changes.into_iter().map(|change| (number, Find::Change(change))));
            }
            Err(error) => {
                let text = error.to_string();
                self.refused.insert(number, text.lines().next().unwrap_or_default().to_owned());
            }
        }
        Ok(())
    }

    /// Why an object can't be written as it was asked for.
    pub fn refused(&self, number: u32) -> Option<&str> {
        self.refused.get(&number).map(String::as_str)
    }

    /// The kinds that the backup's own definitions define without a status subresource, by key.
    pub fn plain_status(&self) -> &BTreeSet<String> {
        &self.plain_status
    }

    /// The claims with the volumes that they were bound to.
    pub fn volumes(&self) -> impl Iterator<Item = (u32, &str)> {
        self.volumes.iter().map(|(number, volume)| (*number, volume.as_str()))
    }

    /// The notes for the person: of the objects for which `counts` says so, named by `name`.
    pub fn notes(&self, counts: impl Fn(u32) -> bool, name: impl Fn(u32) -> String) -> Vec<String> {
        let mut topics = BTreeMap::<Topic, Vec<u32>>::new();
        let mut managed = BTreeMap::<(Manager, bool), (usize, BTreeSet<&str>)>::new();
        let mut changes: BTreeMap<Change, usize> = self.adapt.wanted().into_iter().map(|change| (change, 0)).collect();
        for (number, find) in self.finds.iter().filter(|(number, _)| counts(*number)) {
            match find {
                Find::Topic(topic) => topics.entry(*topic).or_default().push(*number),
                Find::Change(change) => *changes.entry(*change).or_default() += 1,
                Find::Managed(at, is_mapped) => {
                    let Some((manager, who)) = self.managers.get(usize::from(*at)) else { continue };
                    let (objects, names) = managed.entry((*manager, *is_mapped)).or_default();
                    *objects += 1;
                    names.insert(who);
                }
            }
        }
        let changes = changes.into_iter().map(|(change, objects)| match objects {
            0 => format!("`{}` changes nothing of what is to be created", self.adapt.asked_by(change)),
            _ => format!("`{}` changes {}", self.adapt.asked_by(change), objects_in_words(objects)),
        });
        let managed = managed.into_iter().map(|((manager, is_mapped), (objects, names))| {
            let advice = if is_mapped { manager.advice_elsewhere() } else { manager.advice() };
            let (names, verb) =
                (capped(names.into_iter().map(str::to_owned)), if objects == 1 { "belongs" } else { "belong" });
            format!("{} {verb} to {manager} ({names}): {advice}", objects_in_words(objects))
        });
        let topics = topics.into_iter().map(|(topic, numbers)| {
            format!(
                "{} ({}): {}",
                topic.counted(numbers.len()),
                capped(numbers.iter().map(|number| name(*number))),
                topic.advice()
            )
        });
        changes.chain(managed).chain(topics).collect()
    }
}

fn objects_in_words(count: usize) -> String {
    if count == 1 { "1 object".to_owned() } else { format!("{count} objects") }
}

/// The first few names, and how many more there are.
fn capped(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests;
