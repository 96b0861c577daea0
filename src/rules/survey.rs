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
use std::sync::Arc;

/// Objects that a note names before it counts.
const NAMED: usize = 3;

/// How objects are looked at: without memory, so that several threads can.
#[derive(Clone, Debug)]
pub struct Lookout {
    adapt: Arc<Adapt>,
    other_cluster: bool,
}

/// What one object shows.
#[derive(Debug, Default)]
pub struct Look {
    topics: BTreeSet<Topic>,
    /// What it belongs to.
    manager: Option<(Manager, String)>,
    is_mapped: bool,
    changes: BTreeSet<Change>,
    refused: Option<String>,
    /// The key of the kind that it defines, where that has no status subresource.
    plain_status: Option<String>,
    /// The volume that it is bound to.
    volume: Option<String>,
}

/// What was seen of all objects.
#[derive(Debug)]
pub struct Survey<'a> {
    adapt: &'a Adapt,
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

impl Lookout {
    /// A lookout for what `adapt` will write; `other_cluster` says that the backup is not the target's own.
    pub fn new(adapt: Arc<Adapt>, other_cluster: bool) -> Self {
        Self { adapt, other_cluster }
    }

    /// Looks at one object.
    ///
    /// # Errors
    /// When it isn't shaped as an object.
    pub fn look(&self, kind: &Kind, facts: &Facts, head: &Head<'_>) -> Result<Look, Error> {
        let mut look = Look::default();
        if made_by_controller(kind, facts, None).is_some() {
            return Ok(look);
        }
        let (raw, Metadata { namespace, labels, annotations, .. }) = (head.raw(), &head.metadata);
        let mapping = self.adapt.mapping();
        look.is_mapped = mapping.target(namespace) != &**namespace;
        look.manager = gitops::managed_by(labels, annotations);
        look.topics = finds::by_kind(kind);
        if self.other_cluster || look.is_mapped {
            look.topics.extend(finds::bound(kind, annotations));
        }
        if finds::is_read_whole(kind) {
            let object: Value = parse(raw)?;
            look.topics.extend(finds::in_object(kind, &object, self.other_cluster, look.is_mapped));
            if kind.is("customresourcedefinitions.apiextensions.k8s.io") && !finds::has_status_subresource(&object) {
                look.plain_status = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
            }
        }
        if kind.is("horizontalpodautoscalers.autoscaling") && self.adapt.scales_to_zero() {
            look.topics.insert(Topic::Autoscaler);
        }
        if kind.is("persistentvolumeclaims") {
            look.volume = claims::volume_of(raw)?;
        }
        if !mapping.is_empty() && !kind.is("secrets") && finds::names_host(raw, mapping) {
            look.topics.insert(Topic::HostOfNamespace);
        }
        if self.adapt.is_asked() {
            match self.adapt.apply(kind, &mut parse(raw)?) {
                Ok(changes) => look.changes = changes.into_iter().collect(),
                Err(error) => look.refused = error.to_string().lines().next().map(str::to_owned),
            }
        }
        Ok(look)
    }
}

impl<'a> Survey<'a> {
    /// Nothing seen yet of what `adapt` will write.
    pub fn new(adapt: &'a Adapt) -> Self {
        Self {
            adapt,
            finds: Vec::new(),
            managers: Vec::new(),
            refused: HashMap::new(),
            plain_status: BTreeSet::new(),
            volumes: Vec::new(),
        }
    }

    /// Notes what an object showed; `number` is the caller's own.
    pub fn note(&mut self, number: u32, look: Look) {
        if let Some(manager) = look.manager {
            let known = self.managers.iter().position(|known| *known == manager);
            let at = known.unwrap_or_else(|| {
                self.managers.push(manager);
                self.managers.len() - 1
            });
            self.finds.push((number, Find::Managed(u16::try_from(at).unwrap_or(u16::MAX), look.is_mapped)));
        }
        self.finds.extend(look.topics.into_iter().map(|topic| (number, Find::Topic(topic))));
        self.finds.extend(look.changes.into_iter().map(|change| (number, Find::Change(change))));
        self.refused.extend(look.refused.map(|why| (number, why)));
        self.plain_status.extend(look.plain_status);
        self.volumes.extend(look.volume.map(|volume| (number, volume)));
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
