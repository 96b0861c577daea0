//! The one place where a saved object becomes what is written: for the comparison of a plan, for a dry run, and for the
//! write itself. Its owners' uids are put in afterwards, since they are known only while a restore goes on.

use super::fetch::Backup;
use crate::resource::{Kind, ObjectName};
use crate::rules::adapt::{Adapt, AdaptOptions};
use crate::rules::mapping::NamespaceMapping;
use crate::rules::volumes::restored::Restored as NewVolumes;
use crate::{archive, cluster, rules};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All that changes an object on its way from a backup into a cluster.
#[derive(Debug)]
pub struct Adaptation {
    rules: Arc<Adapt>,
    /// The versions, by key, of kinds that are written in another than their own.
    versions: BTreeMap<String, String>,
    /// New volumes behind restored claims.
    volumes: NewVolumes,
}

impl Adaptation {
    /// What a restore with these options does.
    ///
    /// # Errors
    /// What is wrong with them, for the person who typed them.
    pub fn new(options: &AdaptOptions, mapping: NamespaceMapping) -> Result<Self, rules::Error> {
        Ok(Self {
            rules: Arc::new(Adapt::new(options, mapping)?),
            versions: BTreeMap::new(),
            volumes: NewVolumes::default(),
        })
    }

    /// What a restore does that nobody asked for anything.
    ///
    /// # Errors
    /// When the committed list of what is taken out is damaged.
    pub fn plain() -> Result<Self, rules::Error> {
        Self::new(&AdaptOptions::default(), NamespaceMapping::default())
    }

    /// Where namespaces go.
    pub fn mapping(&self) -> &NamespaceMapping {
        self.rules.mapping()
    }

    /// The rules of it.
    pub fn rules(&self) -> &Arc<Adapt> {
        &self.rules
    }

    /// Says in which versions kinds are written that the target doesn't serve in theirs.
    pub(super) fn write_as(&mut self, versions: BTreeMap<String, String>) {
        self.versions = versions;
    }

    /// Says which volumes were made for claims, once they are.
    pub fn use_volumes(&mut self, volumes: NewVolumes) {
        self.volumes = volumes;
    }

    /// Whether the target takes a kind in another version than its own.
    pub(super) fn converts(&self, kind: &Kind) -> bool {
        self.versions.contains_key(&kind.key())
    }

    /// The kind in the version in which its objects are written.
    pub fn written_as(&self, kind: &Kind) -> Kind {
        let version = self.versions.get(&kind.key()).unwrap_or(&kind.version).clone();
        Kind { version, ..kind.clone() }
    }

    /// Makes of a saved object what is written.
    ///
    /// # Errors
    /// When a person's rule can't be applied to it.
    pub fn apply(&self, kind: &Kind, object: &mut Value) -> Result<(), rules::Error> {
        self.rules.apply(kind, object)?;
        self.volumes.apply(kind, object);
        if self.converts(kind) {
            object["apiVersion"] = self.written_as(kind).api_version().into();
        }
        Ok(())
    }

    /// Takes out of an object of the target what its API server and controllers have set.
    pub fn strip(&self, kind: &Kind, live: &mut Value) {
        self.rules.strip(kind, live);
    }

    /// Whether an object that wasn't written since it was saved is left as it is for certain: nothing that a person asked
    /// for changes any object.
    pub fn is_neutral(&self) -> bool {
        self.mapping().is_empty() && !self.rules.is_asked()
    }

    /// Where an object goes.
    pub fn target(&self, kind: &Kind, source: &ObjectName) -> ObjectName {
        let mapping = self.mapping();
        let name = if kind.is("namespaces") { mapping.target(&source.name) } else { &source.name };
        ObjectName::new(source.namespace.as_deref().map(|namespace| mapping.target(namespace)), name)
    }
}

/// Reads a saved object, whose bytes were compared with their digest before.
///
/// # Errors
/// When it isn't JSON, or deeper than anything an API server stores.
pub fn parse(backup: &Backup, number: usize, json: &[u8]) -> Result<Value, archive::Error> {
    serde_json::from_slice(json).map_err(|error| {
        let entry = &backup.index.entries()[number];
        let (kind, name) = (&backup.index.frame(entry).kind, backup.index.object_name(entry));
        let why = format!("it is not JSON at line {} column {}", error.line(), error.column());
        archive::Error::Damaged { what: format!("`{kind}` `{name}`"), why }
    })
}

/// Reads an object of the target.
///
/// # Errors
/// When the API server's answer isn't JSON. Its text is never told: it may be a Secret.
pub fn live(kind: &Kind, name: &ObjectName, json: &[u8]) -> Result<Value, cluster::Error> {
    serde_json::from_slice(json).map_err(|error| cluster::Error::Answer {
        what: format!("reading `{kind}` `{name}`"),
        message: format!("it is not JSON at line {} column {}", error.line(), error.column()),
    })
}

/// Reads an object of the target that is only compared. Who manages which of its fields is left out, of all kinds but
/// Services, whose node ports tell by it who chose them: it is much, and an update says nothing of it.
///
/// # Errors
/// As [`live`].
pub fn compared(kind: &Kind, name: &ObjectName, json: &[u8]) -> Result<Value, cluster::Error> {
    let mut object = live(kind, name, json)?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| !kind.is("services")) {
        metadata.remove("managedFields");
    }
    Ok(object)
}
