//! What a person asks to be taken ([`Selection`]), and what that means among the kinds there are ([`Chosen`]): the same
//! for a backup, where discovery says which kinds there are, and for what is picked out of an archive.
//!
//! `--include` and `-l` narrow; objects that are named (`deploy/web`) are taken besides, whatever their labels; what
//! `--exclude` and `--exclude-namespace` mean is never taken.

use super::Namespaces;
use crate::resource::Kind;
use crate::rules::kinds::{KindPattern, ObjectArg, Served, resolve};
use crate::rules::selector::Selector;
use crate::rules::{Error, Labels};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a person asks for, as it travels in a task and stands in a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Namespaces or globs of them; `None` for everything.
    pub namespaces: Option<Vec<String>>,
    /// Namespaces or globs of them that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_namespaces: Vec<String>,
    /// The only kinds; none given: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<KindPattern>,
    /// Kinds that are left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<KindPattern>,
    /// Labels, of which an object has to meet one selector; none given: any labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<Selector>,
    /// Objects by name. Where nothing else is asked for, only these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectArg>,
}

impl Selection {
    /// Everything in these namespaces.
    pub fn of_namespaces(names: Vec<String>) -> Self {
        Self { namespaces: Some(names), ..Self::default() }
    }

    /// What narrows it, in the words of the command line; `None` where nothing does but the namespaces.
    pub fn flags(&self) -> Option<String> {
        let kinds =
            |flag: &str, kinds: &[KindPattern]| (!kinds.is_empty()).then(|| format!("{flag} {}", spelled(kinds)));
        let objects = (!self.objects.is_empty())
            .then(|| self.objects.iter().map(ObjectArg::to_string).collect::<Vec<_>>().join(" "));
        let without = &self.exclude_namespaces;
        let without = (!without.is_empty()).then(|| format!("--exclude-namespace {}", without.join(",")));
        let include = kinds("--include", &self.include);
        let parts = [objects, include, kinds("--exclude", &self.exclude), self.labels(" "), without];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// The selectors, as `-l` takes them.
    fn labels(&self, between: &str) -> Option<String> {
        let flags: Vec<String> = self.selectors.iter().map(|selector| format!("-l '{selector}'")).collect();
        (!flags.is_empty()).then(|| flags.join(between))
    }
}

fn spelled(kinds: &[KindPattern]) -> String {
    kinds.iter().map(KindPattern::as_str).collect::<Vec<_>>().join(",")
}

/// How much of a kind has to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    /// All objects.
    Whole,
    /// Those whose labels match.
    Matching(&'a Selector),
    /// Those of these names.
    Named(&'a BTreeSet<String>),
}

/// A selection among the kinds there are.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    selection: Selection,
    /// Keys of the included kinds; `None`: all.
    included: Option<BTreeSet<String>>,
    /// Keys of the excluded kinds, with the pattern.
    excluded: BTreeMap<String, String>,
    /// Names by the key of their kind.
    pub(super) named: BTreeMap<String, BTreeSet<String>>,
    /// The namespaces; `None`: the cluster.
    pub(super) patterns: Option<Namespaces>,
    left_out: Option<Namespaces>,
    /// Namespaces that their labels leave out.
    labelled: BTreeSet<String>,
}

impl Chosen {
    /// Finds out what a selection means.
    ///
    /// # Errors
    /// A kind that isn't there, or could be several; what contradicts itself.
    pub fn resolve(selection: &Selection, served: &[Served]) -> Result<Self, Error> {
        let keys = |patterns: &[KindPattern]| -> Result<BTreeSet<String>, Error> {
            Ok(resolve(patterns, served)?.iter().map(Kind::key).collect())
        };
        let mut excluded = BTreeMap::new();
        for pattern in &selection.exclude {
            let keys = keys(std::slice::from_ref(pattern))?;
            excluded.extend(keys.into_iter().map(|key| (key, pattern.as_str().to_owned())));
        }
        let included = if selection.include.is_empty() { None } else { Some(keys(&selection.include)?) };
        if included.as_ref().is_some_and(|keys| keys.iter().all(|key| excluded.contains_key(key))) {
            let text = "`--include` and `--exclude` leave no kind\nhint: `--exclude` wins where both name a kind";
            return Err(Error::Selection(text.to_owned()));
        }
        let mut named = BTreeMap::<String, BTreeSet<String>>::new();
        for object in &selection.objects {
            for key in keys(std::slice::from_ref(&object.kind))? {
                if let Some(pattern) = excluded.get(&key) {
                    let text = format!(
                        "`{object}` is named, and `--exclude {pattern}` leaves it out\nhint: give one of the two"
                    );
                    return Err(Error::Selection(text));
                }
                named.entry(key).or_default().insert(object.name.clone());
            }
        }
        let without = &selection.exclude_namespaces;
        let left_out = if without.is_empty() { None } else { Some(Namespaces::parse(without)?) };
        let patterns = selection.namespaces.as_deref().map(Namespaces::parse).transpose()?;
        let labelled = BTreeSet::new();
        Ok(Self { selection: selection.clone(), included, excluded, named, patterns, left_out, labelled })
    }

    /// What was asked for.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether it asks for some objects only, so that what these need has to be found.
    pub fn is_narrow(&self) -> bool {
        self.included.is_some() || !self.selection.selectors.is_empty() || !self.named.is_empty()
    }

    /// The flag that leaves this kind out, if one does.
    pub fn excluded(&self, kind: &Kind) -> Option<String> {
        self.excluded.get(&kind.key()).map(|pattern| format!("--exclude {pattern}"))
    }

    /// Whether the objects of a kind that was not there when the selection was resolved are left out.
    pub fn passes_over(&self, key: &str) -> bool {
        let (resource, group) = key.split_once('.').unwrap_or((key, ""));
        let (group, resource) = (group.to_owned(), resource.to_owned());
        let late = Kind { kind: resource.clone(), group, version: String::new(), resource, namespaced: true };
        let late = Served::of(late);
        let means = |patterns: &[KindPattern]| patterns.iter().any(|pattern| pattern.matches(&late));
        means(&self.selection.exclude)
            || (self.included.is_some() && !means(&self.selection.include))
            || self.is_by_name_only()
    }

    /// Whether nothing is asked for but objects by their names.
    pub fn is_by_name_only(&self) -> bool {
        !self.named.is_empty() && self.included.is_none() && self.selection.selectors.is_empty()
    }

    /// Whether any object of the kind can be meant.
    pub fn lists(&self, kind: &Kind) -> bool {
        !self.is_narrow() || self.filters_in(&kind.key()) || self.named.contains_key(&kind.key())
    }

    /// Whether `--include` and `-l` let the kind in.
    fn filters_in(&self, key: &str) -> bool {
        match &self.included {
            Some(keys) => keys.contains(key),
            None => !self.is_by_name_only(),
        }
    }

    /// How much of a kind has to be looked at.
    pub fn reach(&self, kind: &Kind) -> Reach<'_> {
        let key = kind.key();
        match (self.named.get(&key), self.selection.selectors.as_slice()) {
            (Some(names), _) if !self.filters_in(&key) => Reach::Named(names),
            (None, [only]) => Reach::Matching(only),
            _ => Reach::Whole,
        }
    }

    /// Whether an object of a kind that isn't excluded is meant.
    pub fn takes(&self, kind: &Kind, namespace: Option<&str>, name: &str, labels: &Labels<'_>) -> bool {
        if self.leaves_out_place(kind, namespace, name) {
            return false;
        }
        if !self.is_narrow() || self.names(kind, name) {
            return true;
        }
        let selectors = &self.selection.selectors;
        self.filters_in(&kind.key()) && (selectors.is_empty() || selectors.iter().any(|one| one.matches(labels)))
    }

    /// Whether the object is asked for by its name.
    pub fn names(&self, kind: &Kind, name: &str) -> bool {
        !self.named.is_empty() && self.named.get(&kind.key()).is_some_and(|names| names.contains(name))
    }

    /// Every object that is asked for by its name: the kind's key and the name.
    pub fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().flat_map(|(key, names)| names.iter().map(move |name| (key.as_str(), name.as_str())))
    }

    /// Whether an object is, or is in, a namespace that is left out.
    pub fn leaves_out_place(&self, kind: &Kind, namespace: Option<&str>, name: &str) -> bool {
        let namespace = namespace.or_else(|| kind.is("namespaces").then_some(name));
        namespace.is_some_and(|namespace| self.leaves_out(namespace))
    }

    /// The namespaces that are asked for; `None`: the cluster.
    pub fn patterns(&self) -> Option<&Namespaces> {
        self.patterns.as_ref()
    }

    /// The same without these namespaces, which their labels leave out.
    pub fn without(&self, labelled: impl IntoIterator<Item = String>) -> Self {
        Self { labelled: labelled.into_iter().collect(), ..self.clone() }
    }

    /// Whether a namespace is left out, by `--exclude-namespace` or by its label.
    pub fn leaves_out(&self, namespace: &str) -> bool {
        self.excludes_namespace(namespace) || self.labelled.contains(namespace)
    }

    /// Whether any namespace is left out.
    pub fn leaves_out_some(&self) -> bool {
        self.left_out.is_some() || !self.labelled.is_empty()
    }

    /// Whether a namespace is left out by `--exclude-namespace`.
    pub(super) fn excludes_namespace(&self, namespace: &str) -> bool {
        self.left_out.as_ref().is_some_and(|left_out| left_out.matches(namespace))
    }

    /// Checks that a backup can hold what is asked for by kind or name: kinds that some backup holds, and in a backup of
    /// namespaces such that live in one.
    ///
    /// # Errors
    /// [`Error::Selection`], [`Error::UnknownKind`].
    pub fn check_for_backup(&self, served: &[Served]) -> Result<(), Error> {
        let objects = self.selection.objects.iter().map(|object| &object.kind);
        for pattern in self.selection.include.iter().chain(objects) {
            let kinds = resolve(std::slice::from_ref(pattern), served)?;
            let find = |kind: &Kind| served.iter().find(|served| served.kind == *kind);
            let never = |kind: &Kind| find(kind).and_then(super::never_backed_up);
            if let Some(rule) =
                kinds.iter().map(never).collect::<Option<Vec<_>>>().and_then(|rules| rules.first().copied())
            {
                let text = format!("no backup holds `{}`: {rule}\nhint: leave it out", pattern.as_str());
                return Err(Error::Selection(text));
            }
            let clustered = kinds.iter().all(|kind| !kind.namespaced && !kind.is("namespaces"));
            if self.selection.namespaces.is_some() && clustered {
                let text = format!(
                    "`{0}` lives in no namespace; a backup of namespaces holds what they need of it\nhint: `kubectl backup cluster --include {0}` takes all",
                    pattern.as_str()
                );
                return Err(Error::Selection(text));
            }
        }
        Ok(())
    }

    /// Why kinds that aren't listed at all are left out; excluded ones excepted, which [`Chosen::excluded`] tells.
    pub fn other_kinds(&self) -> Option<String> {
        match self.included {
            Some(_) => Some(format!("--include {}", spelled(&self.selection.include))),
            None => self.is_by_name_only().then(|| self.only_named()),
        }
    }

    /// Why objects of a kind that is listed are not taken, in the words of the flags.
    pub fn other_objects(&self, kind: &Kind) -> String {
        let labels = if self.filters_in(&kind.key()) { self.selection.labels(" or ") } else { None };
        labels.unwrap_or_else(|| self.only_named())
    }

    fn only_named(&self) -> String {
        let names: Vec<String> = self.selection.objects.iter().map(ObjectArg::to_string).collect();
        format!("only {} is named", names.join(", "))
    }

    /// Why objects of a kind are taken, in the words of the command line; `None` where nothing narrows the selection.
    pub fn reason(&self, kind: &Kind) -> Option<String> {
        let key = kind.key();
        let named = self.named.contains_key(&key).then(|| "named".to_owned());
        let included = (self.included.is_some() && self.filters_in(&key))
            .then(|| format!("--include {}", spelled(&self.selection.include)));
        let labels = if self.filters_in(&key) { self.selection.labels(" or ") } else { None };
        let filters: Vec<String> = included.into_iter().chain(labels).collect();
        let filters = (!filters.is_empty()).then(|| filters.join(" "));
        let reasons: Vec<String> = named.into_iter().chain(filters).collect();
        (!reasons.is_empty()).then(|| reasons.join(", or "))
    }
}

#[cfg(test)]
mod tests;
