//! The write of one object, with what some kinds need before or after it.

use super::{Apply, Gathered, Write, lock};
use crate::cluster::Error as ClusterError;
use crate::cluster::object::{Created, Meta};
use crate::resource::{Kind, ObjectName};
use crate::rules::accounts;
use serde_json::{Value, json};
use std::sync::Mutex;

impl Apply<'_> {
    /// Creates an object.
    pub(super) async fn create(&self, gathered: &Mutex<Gathered>, write: &Write) -> Result<Created, ClusterError> {
        if let Some(given_back) = self.plan.given_back.get(&self.plan.items[write.item].entry) {
            let volumes = Kind {
                group: String::new(),
                version: "v1".to_owned(),
                kind: "PersistentVolume".to_owned(),
                resource: "persistentvolumes".to_owned(),
                namespaced: false,
            };
            self.cluster.merge(&volumes, &given_back.volume, None, &given_back.patch).await?;
        }
        let created = self.cluster.create(&write.kind, &write.name, write.body.clone()).await?;
        match &created {
            Created::Made(meta) => self.write_status(write, meta).await?,
            Created::Exists if write.kind.is("serviceaccounts") => self.complete(gathered, write).await?,
            Created::Exists => (),
        }
        Ok(created)
    }

    /// Writes the status of what was just made, where it was asked for and is a resource of its own.
    async fn write_status(&self, write: &Write, meta: &Meta) -> Result<(), ClusterError> {
        let Some(status) = &write.status else { return Ok(()) };
        let patch = json!({"metadata": {"uid": meta.uid}, "status": status});
        self.cluster.merge(&write.kind, &write.name, Some("status"), &patch).await
    }

    /// Adds to a service account that appeared in the meantime what it lacks.
    async fn complete(&self, gathered: &Mutex<Gathered>, write: &Write) -> Result<(), ClusterError> {
        let Some(live) = self.cluster.get(&write.kind, &write.name).await? else { return Ok(()) };
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let Some(patch) = accounts::lacking(&read(&live), &read(&write.body)) else { return Ok(()) };
        self.cluster.merge(&write.kind, &write.name, None, &patch).await?;
        let ObjectName { namespace, name } = &write.name;
        let namespace = namespace.as_deref().unwrap_or_default();
        let note = format!(
            "the service account `{namespace}/{name}` was there already, as every namespace is given its own: what it lacked was added"
        );
        lock(gathered).restored.notes.push(note);
        Ok(())
    }
}
