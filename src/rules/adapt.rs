//! Everything that makes of a saved object what is written: [`Adapt`]. The order is fixed: what a restore always takes
//! out (`tidy`), then namespaces (`mapping`), then what flags ask for, and a person's own rules (`modifiers`) last, so that
//! they see the object as it would be written and have the last word.
//!
//! Knows nothing of owners: their new uids are known only while a restore runs.

mod names;
pub mod pause;
mod shapes;

use super::mapping::NamespaceMapping;
use super::modifiers::Modifiers;
use super::restorable::Facts;
use super::tidy::{Tidy, TidyOptions};
use super::{Error, builtin, gitops};
use crate::id::Digest;
use crate::resource::Kind;
use names::Names;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// What a person asked to be different from what was saved, namespaces aside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdaptOptions {
    /// `FROM=TO`: storage classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub map_storage_class: Vec<String>,
    /// `FROM=TO`: the beginnings of images' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub map_image: Vec<String>,
    /// `FROM=TO`: hosts, and those below them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub map_host: Vec<String>,
    /// CronJobs are restored suspended.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspend_cronjobs: bool,
    /// What has replicas is restored with none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub scale_to_zero: bool,
    /// The status of custom resources is restored too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_status: bool,
    /// Node ports stay as they are, also those that the API server had allotted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_node_ports: bool,
    /// The content of a file of `modifiers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modifiers: Option<String>,
}

/// What of the target an adaptation depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The PersistentVolumes that claims may name: restored with them, or there.
    pub kept_volumes: BTreeSet<String>,
    /// The kinds, by key, whose status is a field like any other: they have no status subresource.
    pub plain_status: BTreeSet<String>,
}

/// One thing that was changed in an object because a person asked for it. Numbers are places in the option's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// `--map-storage-class`.
    StorageClass(u16),
    /// `--map-image`.
    Image(u16),
    /// `--map-host`.
    Host(u16),
    /// `--suspend-cronjobs`.
    Suspended,
    /// `--scale-to-zero`.
    Scaled,
    /// A rule of `--modifiers`.
    Rule(u16),
}

/// Makes of saved objects what is written.
#[derive(Debug)]
pub struct Adapt {
    tidy: Tidy,
    mapping: NamespaceMapping,
    storage_classes: Names,
    images: Names,
    hosts: Names,
    modifiers: Modifiers,
    options: AdaptOptions,
    target: OnceLock<Target>,
}

impl Adapt {
    /// Reads what was asked for.
    ///
    /// # Errors
    /// What is wrong with it, for the person who typed it.
    pub fn new(options: &AdaptOptions, mapping: NamespaceMapping) -> Result<Self, Error> {
        Ok(Self {
            tidy: Tidy::committed()?,
            mapping,
            storage_classes: Names::parse("--map-storage-class", &options.map_storage_class)?,
            images: Names::parse("--map-image", &options.map_image)?,
            hosts: Names::parse("--map-host", &options.map_host)?,
            modifiers: options.modifiers.as_deref().map(Modifiers::parse).transpose()?.unwrap_or_default(),
            options: options.clone(),
            target: OnceLock::new(),
        })
    }

    /// Says what is known of the target by now; the first word counts.
    pub fn aim(&self, target: Target) {
        let _ = self.target.set(target);
    }

    fn target(&self) -> &Target {
        static UNKNOWN: Target = Target { kept_volumes: BTreeSet::new(), plain_status: BTreeSet::new() };
        self.target.get().unwrap_or(&UNKNOWN)
    }

    fn tidy_options(&self, kind: &Kind) -> TidyOptions<'_> {
        TidyOptions {
            with_status: self.keeps_status(kind),
            keep_node_ports: self.options.keep_node_ports,
            kept_volumes: &self.target().kept_volumes,
        }
    }

    /// Takes out of an object of the target what its API server and controllers have set.
    pub fn strip(&self, kind: &Kind, live: &mut Value) {
        self.tidy.apply(kind, live, &self.tidy_options(kind));
    }

    /// Where namespaces go.
    pub fn mapping(&self) -> &NamespaceMapping {
        &self.mapping
    }

    /// The storage classes that claims get by a flag.
    pub fn new_storage_classes(&self) -> impl Iterator<Item = &str> {
        self.storage_classes.new_ones()
    }

    /// Whether `--scale-to-zero` was given.
    pub fn scales_to_zero(&self) -> bool {
        self.options.scale_to_zero
    }

    /// Whether a flag may change objects: then it is worth trying that out before anything is written.
    pub fn is_asked(&self) -> bool {
        !self.wanted().is_empty()
    }

    /// Makes of a saved object what is written, owner references aside. Tells what flags changed in it.
    ///
    /// # Errors
    /// [`Error::Modifier`] when a person's rule can't be applied to it.
    pub fn apply(&self, kind: &Kind, object: &mut Value) -> Result<Vec<Change>, Error> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name").unwrap_or_default());
        self.tidy.apply(kind, object, &self.tidy_options(kind));
        shapes::accepted(kind, object);
        self.mapping.apply(kind, object);
        let home = if kind.is("namespaces") { Some(name.as_str()) } else { namespace.as_deref() };
        if home.is_some_and(|home| self.mapping.target(home) != home) {
            gitops::strip_tracking(object);
        }
        let mut changes = Vec::new();
        names::storage_classes(&self.storage_classes, kind, object, &mut changes);
        names::images(&self.images, kind, object, &mut changes);
        names::hosts(&self.hosts, kind, object, &mut changes);
        if self.options.suspend_cronjobs {
            pause::suspend(kind, object, &mut changes);
        }
        if self.options.scale_to_zero {
            pause::scale_to_zero(kind, object, &mut changes);
        }
        let rules = self.modifiers.apply(kind, namespace.as_deref(), &name, object)?;
        changes.extend(rules.into_iter().map(Change::Rule));
        Ok(changes)
    }

    /// Why an object isn't restored into another namespace than its own. Helm's record of a release names the old one, in
    /// what was rendered too: `helm uninstall` in the new namespace would delete the original.
    pub fn left_behind(&self, namespace: Option<&str>, facts: &Facts) -> Option<&'static str> {
        let is_mapped = namespace.is_some_and(|namespace| self.mapping.target(namespace) != namespace);
        (is_mapped && facts.is_release()).then_some("Helm's record of the release names the old namespace")
    }

    /// Whether objects of a kind are written with their status: where it is a field like any other, and with
    /// `--with-status` for all kinds that are not Kubernetes' own (those report theirs anew, and an old one would mislead:
    /// addresses of pods that are gone, versions that a definition no longer stores).
    fn keeps_status(&self, kind: &Kind) -> bool {
        !builtin::is_built_in(&kind.group)
            && (self.options.with_status || self.target().plain_status.contains(&kind.key()))
    }

    /// Whether the status of such objects must be written on its own, once they are there.
    pub fn writes_status(&self, kind: &Kind) -> bool {
        self.keeps_status(kind) && !self.target().plain_status.contains(&kind.key())
    }

    /// All that flags ask for, in the order of the flags.
    pub fn wanted(&self) -> Vec<Change> {
        let mut wanted: Vec<Change> = self.storage_classes.numbers().map(Change::StorageClass).collect();
        wanted.extend(self.images.numbers().map(Change::Image));
        wanted.extend(self.hosts.numbers().map(Change::Host));
        wanted.extend(self.options.suspend_cronjobs.then_some(Change::Suspended));
        wanted.extend(self.options.scale_to_zero.then_some(Change::Scaled));
        wanted.extend(self.modifiers.numbers().map(Change::Rule));
        wanted
    }

    /// What asked for a change, as it was typed.
    pub fn asked_by(&self, change: Change) -> String {
        match change {
            Change::StorageClass(at) => format!("--map-storage-class {}", self.storage_classes.text(at)),
            Change::Image(at) => format!("--map-image {}", self.images.text(at)),
            Change::Host(at) => format!("--map-host {}", self.hosts.text(at)),
            Change::Suspended => "--suspend-cronjobs".to_owned(),
            Change::Scaled => "--scale-to-zero".to_owned(),
            Change::Rule(at) => format!("--modifiers, rule {}", at + 1),
        }
    }

    /// A plan's digest, once what it writes differs from what was saved: other flags make another plan.
    pub fn digest(&self, plan: Digest) -> Digest {
        if self.options == AdaptOptions::default() {
            return plan;
        }
        let options = serde_json::to_string(&self.options).unwrap_or_default();
        Digest::of(format!("{plan}\n{options}").as_bytes())
    }
}

#[cfg(test)]
mod tests;
