//! Single objects: read as raw JSON, created, replaced, deleted; and each write tried out with `dryRun=All`.

use super::call::{Call, JSON, TRIES as READS, parse, pause};
use super::{Cluster, Error, about};
use crate::id::BackupId;
use crate::resource::{Kind, ObjectName};
use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;

/// How often a write is tried.
const TRIES: u32 = 6;
/// Characters that can't stand in a path segment as they are; object names may hold `:` and spaces.
const SEGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'%').add(b'/');

/// The name under which the API server notes our writes in `managedFields`; those of a run have its id behind it.
pub const FIELD_MANAGER: &str = "kubectl-backup";

/// The name under which the API server notes what a run creates and updates: by it an object is known as the work of that
/// very run, also when the run was killed before it could write anything down. What a run only adds to other people's
/// objects goes without the id.
pub fn manager_of(run: &BackupId) -> String {
    format!("{FIELD_MANAGER}/{run}")
}

/// Whether an object of the cluster was created or updated under this name.
pub fn is_written_by(object: &serde_json::Value, manager: &str) -> bool {
    let fields = object.pointer("/metadata/managedFields").and_then(serde_json::Value::as_array);
    let of_object = |entry: &&serde_json::Value| entry["subresource"].as_str().unwrap_or("").is_empty();
    fields.into_iter().flatten().filter(of_object).any(|entry| entry["manager"] == manager)
}

/// Asks for the metadata of what was written: the rest is known, and may be large.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// What the API server says of an object that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Of what was written, the paths of the fields that the API server doesn't know and has dropped.
    #[serde(skip)]
    pub unknown_fields: Vec<String>,
    managed_fields: Vec<ManagedFields>,
    deletion_timestamp: Option<String>,
}

/// What a write would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsed {
    /// The object.
    pub object: Bytes,
    /// The paths of the fields that the API server doesn't know and would drop.
    pub unknown_fields: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct ManagedFields {
    manager: String,
}

#[derive(Deserialize)]
struct WithMeta {
    metadata: Meta,
}

/// What became of a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was made, with this metadata.
    Made(Meta),
    /// One of that name exists already.
    Exists,
}

/// What becomes of the objects that belong to one that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// The garbage collector deletes them, too.
    Deleted,
    /// They stay, without their owner.
    Orphaned,
}

/// The state of an object that a write is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

impl State {
    /// The state that an object of the cluster is in.
    pub fn of(object: &serde_json::Value) -> Self {
        let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        Self { uid: field("uid"), resource_version: field("resourceVersion") }
    }
}

fn object_path(kind: &Kind, name: &ObjectName) -> String {
    let list = kind.list_path(name.namespace.as_deref());
    format!("{list}/{}", utf8_percent_encode(&name.name, SEGMENT))
}

impl Cluster {
    /// An object's JSON as the API server has it; `None` where there is none.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn get(&self, kind: &Kind, name: &ObjectName) -> Result<Option<Bytes>, Error> {
        let what = format!("reading `{kind}` `{name}`");
        let call = Call { secret: kind.is("secrets"), ..Call::get(what, object_path(kind, name)) };
        match self.bytes(&call).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// Creates an object. An answer that got lost is asked for again; an object that is there by then counts as made
    /// when the API server notes us as one of its managers.
    ///
    /// # Errors
    /// The API server's refusal, or the connection's failure after all tries.
    pub async fn create(&self, kind: &Kind, name: &ObjectName, body: Bytes) -> Result<Created, Error> {
        let call = Call {
            what: about("creating", kind, name.namespace.as_deref()),
            method: Method::POST,
            uri: format!("{}?fieldManager={}", kind.list_path(name.namespace.as_deref()), self.manager),
            accept: METADATA,
            content: JSON,
            body,
            secret: kind.is("secrets"),
        };
        let mut tried = 0;
        loop {
            tried += 1;
            match self.write(&call).await {
                Ok(meta) => return Ok(Created::Made(meta)),
                Err(error) if is_exists(&error) => return self.existing(kind, name).await,
                // an answer that can't be read tells of a create that happened, or of a proxy in between
                Err(error) if (error.is_transient() || error.is_nonsense()) && tried < TRIES => {
                    tokio::time::sleep(pause(tried, &error)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Replaces an object, once. The body's `metadata.resourceVersion` says which state is meant: of another one the API
    /// server refuses it with 409. A caller whose answer got lost reads the object and looks whether it was written.
    ///
    /// # Errors
    /// The API server's refusal, or the connection's failure.
    pub async fn update(&self, kind: &Kind, name: &ObjectName, body: Bytes) -> Result<Meta, Error> {
        self.write(&Call { accept: METADATA, ..self.update_call(kind, name, body, "") }).await
    }

    /// Deletes an object in this very state, once.
    ///
    /// # Errors
    /// The API server's refusal (409 where the object is in another state), or the connection's failure.
    pub async fn delete(
        &self,
        kind: &Kind,
        name: &ObjectName,
        state: &State,
        dependents: Dependents,
    ) -> Result<(), Error> {
        let call = delete_call(kind, name, state, dependents, &[]);
        let answer = self.collected(&call).await?;
        parse::<serde::de::IgnoredAny>(&call.what, &answer).map(drop) // a proxy's page deletes nothing
    }

    /// Asks what a create would give. Nothing is written, so it is tried again like a read.
    ///
    /// # Errors
    /// What the create would be refused for; or the connection's failure after all tries.
    pub async fn rehearse_create(&self, kind: &Kind, name: &ObjectName, body: Bytes) -> Result<Rehearsed, Error> {
        let namespace = name.namespace.as_deref();
        let uri = format!("{}?fieldManager={}&dryRun=All", kind.list_path(namespace), self.manager);
        let call = Call {
            method: Method::POST,
            body,
            secret: kind.is("secrets"),
            ..Call::get(about("creating", kind, namespace), uri)
        };
        self.rehearsed(&call).await
    }

    /// Asks what an update would give. Nothing is written.
    ///
    /// # Errors
    /// As [`Cluster::rehearse_create`].
    pub async fn rehearse_update(&self, kind: &Kind, name: &ObjectName, body: Bytes) -> Result<Rehearsed, Error> {
        self.rehearsed(&self.update_call(kind, name, body, "&dryRun=All")).await
    }

    /// Asks whether an object in this state could be deleted. Nothing is written.
    ///
    /// # Errors
    /// As [`Cluster::rehearse_create`].
    pub async fn rehearse_delete(&self, kind: &Kind, name: &ObjectName, state: &State) -> Result<(), Error> {
        self.bytes(&delete_call(kind, name, state, Dependents::Orphaned, &["All"])).await.map(drop)
    }

    /// Merges a patch into an object, or into a part of it that is a resource of its own (`status`). A patch that names the
    /// uid or the resource version is refused where the object is another by now; it must change nothing when it is sent
    /// twice.
    ///
    /// # Errors
    /// The API server's refusal, or the connection's failure after all tries.
    pub async fn merge(
        &self,
        kind: &Kind,
        name: &ObjectName,
        part: Option<&str>,
        patch: &serde_json::Value,
    ) -> Result<(), Error> {
        let path = object_path(kind, name);
        let part = part.map_or_else(String::new, |part| format!("/{part}"));
        let call = Call {
            what: format!("writing{} `{kind}` `{name}`", part.replace('/', " the ")),
            method: Method::PATCH,
            uri: format!("{path}{part}?fieldManager={FIELD_MANAGER}"),
            accept: METADATA,
            content: "application/merge-patch+json",
            body: Bytes::from(patch.to_string()),
            secret: kind.is("secrets"),
        };
        self.retried(READS, || async { self.collected(&call).await.map(|_| ()) }).await
    }

    fn update_call(&self, kind: &Kind, name: &ObjectName, body: Bytes, more: &str) -> Call {
        Call {
            method: Method::PUT,
            body,
            secret: kind.is("secrets"),
            ..Call::get(
                about("updating", kind, name.namespace.as_deref()),
                format!("{}?fieldManager={}{more}", object_path(kind, name), self.manager),
            )
        }
    }

    async fn write(&self, call: &Call) -> Result<Meta, Error> {
        let (answer, unknown_fields) = self.collected_with_warnings(call).await?;
        Ok(Meta { unknown_fields, ..parse::<WithMeta>(&call.what, &answer)?.metadata })
    }

    /// Sends a write that is only tried out, again like a read.
    async fn rehearsed(&self, call: &Call) -> Result<Rehearsed, Error> {
        self.retried(READS, || async {
            let (object, unknown_fields) = self.collected_with_warnings(call).await?;
            parse::<serde::de::IgnoredAny>(&call.what, &object)?;
            Ok(Rehearsed { object, unknown_fields })
        })
        .await
    }

    /// Decides whose an object is that is there already: ours, where an answer got lost, even that of an earlier call, and
    /// nobody deletes it.
    async fn existing(&self, kind: &Kind, name: &ObjectName) -> Result<Created, Error> {
        let Some(bytes) = self.get(kind, name).await? else { return Ok(Created::Exists) };
        let meta = parse::<WithMeta>(&about("reading", kind, name.namespace.as_deref()), &bytes)?.metadata;
        let ours = meta.deletion_timestamp.is_none()
            && meta.managed_fields.iter().any(|fields| *fields.manager == *self.manager);
        Ok(if ours { Created::Made(meta) } else { Created::Exists })
    }
}

fn delete_call(kind: &Kind, name: &ObjectName, state: &State, dependents: Dependents, dry_run: &[&str]) -> Call {
    let policy = match dependents {
        Dependents::Deleted => "Background",
        Dependents::Orphaned => "Orphan",
    };
    let options = serde_json::json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy, "dryRun": dry_run,
        "preconditions": {"uid": state.uid, "resourceVersion": state.resource_version},
    });
    Call {
        method: Method::DELETE,
        body: Bytes::from(options.to_string()),
        secret: kind.is("secrets"),
        ..Call::get(about("deleting", kind, name.namespace.as_deref()), object_path(kind, name))
    }
}

fn is_exists(error: &Error) -> bool {
    error.status().is_some_and(|status| status.code == 409 && status.reason == "AlreadyExists")
}
