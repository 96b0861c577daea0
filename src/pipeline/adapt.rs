//! The one place where a saved object becomes what is written: for the comparison of a plan, for a dry run, and for the
//! write itself. Its owners' uids are put in afterwards, since they are known only while a restore goes on.

use super::fetch::Backup;
use crate::resource::{Kind, ObjectName};
use crate::rules::mapping::NamespaceMapping;
use crate::rules::tidy::{Tidy, TidyOptions};
use crate::{archive, cluster};
use serde_json::Value;
use std::collections::BTreeSet;

/// All that changes an object on its way from a backup into a cluster.
#[derive(Debug)]
pub struct Adaptation {
    mapping: NamespaceMapping,
    tidy: Tidy,
    kept_volumes: BTreeSet<String>,
}

impl Adaptation {
    /// What a restore with this mapping does.
    ///
    /// # Errors
    /// When the committed list of what is taken out is damaged.
    pub fn new(mapping: NamespaceMapping) -> Result<Self, crate::rules::Error> {
        Ok(Self { mapping, tidy: Tidy::committed()?, kept_volumes: BTreeSet::new() })
    }

    /// Where namespaces go.
    pub fn mapping(&self) -> &NamespaceMapping {
        &self.mapping
    }

    /// The volumes that restored claims may name.
    pub fn keep_volumes(&mut self, names: BTreeSet<String>) {
        self.kept_volumes = names;
    }

    /// Makes of a saved object what is written. Returns notes for the person.
    pub fn apply(&self, kind: &Kind, object: &mut Value) -> Vec<String> {
        let options = TidyOptions { kept_volumes: &self.kept_volumes, ..TidyOptions::default() };
        self.mapping.apply(kind, object);
        self.tidy.apply(kind, object, &options);
        Vec::new()
    }

    /// Takes out of an object of the target what its API server and controllers have set.
    pub fn strip(&self, kind: &Kind, live: &mut Value) {
        self.tidy.apply(kind, live, &TidyOptions::default());
    }

    /// Whether an object that wasn't written since it was saved is left as it is for certain: nothing that a person asked
    /// for changes any object.
    pub fn is_neutral(&self) -> bool {
        self.mapping.is_empty()
    }

    /// Where an object goes.
    pub fn target(&self, kind: &Kind, source: &ObjectName) -> ObjectName {
        let name = if kind.is("namespaces") { self.mapping.target(&source.name) } else { &source.name };
        ObjectName::new(source.namespace.as_deref().map(|namespace| self.mapping.target(namespace)), name)
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
