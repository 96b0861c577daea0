//! What a cluster needs before the first backup: the objects of `manifests/base` (and, where asked for, of
//! `manifests/components/hooks`), with this installation's names.
//!
//! The manifests are plain YAML with the default names in them, so that they can be read, linted and used with Kustomize as
//! they are; here the names are replaced in the parsed objects.

use super::api::{Deed, optional};
use super::error::Error;
use super::{APP, MANAGER, READER, WRITER};
use crate::config::CONFIG_KEY;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// The namespace in the manifests.
pub const DEFAULT_NAMESPACE: &str = "kubectl-backup";
/// The ConfigMap that holds locations and Job settings.
pub const CONFIG_MAP: &str = "kubectl-backup-config";

/// In the order in which they must be applied.
const MANIFESTS: [(&str, &str); 5] = [
    ("namespace.yaml", include_str!("../../manifests/base/namespace.yaml")),
    ("service-accounts.yaml", include_str!("../../manifests/base/service-accounts.yaml")),
    ("reader.yaml", include_str!("../../manifests/base/reader.yaml")),
    ("worker.yaml", include_str!("../../manifests/base/worker.yaml")),
    ("restore.yaml", include_str!("../../manifests/base/restore.yaml")),
];

/// Applied only where asked for: the right to run commands in pods.
const HOOKS: (&str, &str) = ("hooks.yaml", include_str!("../../manifests/components/hooks/hooks.yaml"));

/// What an empty configuration says.
const NO_LOCATIONS: &str = "# Where backups are kept. `kubectl backup init --location` writes this.\nlocations: {}\n";

/// Kinds that the manifests may hold, with their plurals.
const KINDS: [(&str, &str); 7] = [
    ("Namespace", "namespaces"),
    ("ServiceAccount", "serviceaccounts"),
    ("ConfigMap", "configmaps"),
    ("ClusterRole", "clusterroles"),
    ("ClusterRoleBinding", "clusterrolebindings"),
    ("Role", "roles"),
    ("RoleBinding", "rolebindings"),
];

/// What is particular to an installation.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// The namespace that everything goes into.
    pub namespace: String,
    /// The IAM role of `kubectl-backup-reader`, for IRSA.
    pub reader_role_arn: Option<String>,
    /// The IAM role of `kubectl-backup-writer`, for IRSA.
    pub writer_role_arn: Option<String>,
    /// The configuration. `None` leaves what is there, and makes an empty one where nothing is.
    pub config_yaml: Option<String>,
    /// Whether backups may run the commands that pods' annotations ask for. `false` takes nothing away.
    pub hooks: bool,
}

impl Default for InstallOptions {
    fn default() -> Self {
        Self {
            namespace: DEFAULT_NAMESPACE.to_owned(),
            reader_role_arn: None,
            writer_role_arn: None,
            config_yaml: None,
            hooks: false,
        }
    }
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It wasn't there.
    Created,
    /// It was there, and differed.
    Configured,
    /// It was there as it should be.
    Unchanged,
    /// A namespace that was there before us: it is used and not changed, as our Pod Security labels could keep others'
    /// pods from starting.
    Left,
}

/// An object and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The kind, such as `ClusterRole`.
    pub kind: String,
    /// The namespace it is in, if it is in one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub change: Change,
}

/// The objects of an installation, in the order in which they must be applied. The configuration is among them only where
/// one is given.
pub fn objects(options: &InstallOptions) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    for (name, text) in MANIFESTS.into_iter().chain(options.hooks.then_some(HOOKS)) {
        let parsed: Vec<Value> = serde_saphyr::from_multiple(text)
            .map_err(|error| Error::Manifest { name: name.to_owned(), message: error.to_string() })?;
        objects.extend(parsed);
    }
    for object in &mut objects {
        rename(object, &options.namespace);
        let arn = match object["metadata"]["name"].as_str() {
            Some(READER) if object["kind"] == "ServiceAccount" => &options.reader_role_arn,
            Some(WRITER) if object["kind"] == "ServiceAccount" => &options.writer_role_arn,
            _ => &None,
        };
        if let Some(arn) = arn {
            object["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] = json!(arn);
        }
    }
    objects.extend(options.config_yaml.as_deref().map(|text| config(&options.namespace, text)));
    Ok(objects)
}

/// Puts an installation's namespace in the place of the default one.
fn rename(object: &mut Value, namespace: &str) {
    let replace = |value: &mut Value| {
        if *value == DEFAULT_NAMESPACE {
            *value = json!(namespace);
        }
    };
    if object["kind"] == "Namespace" {
        replace(&mut object["metadata"]["name"]);
    }
    // two installations share the cluster's roles; each has a binding of its own
    if object["kind"] == "ClusterRoleBinding" && namespace != DEFAULT_NAMESPACE {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        object["metadata"]["name"] = json!(format!("{name}-{namespace}"));
    }
    if let Some(value) = object["metadata"].get_mut("namespace") {
        replace(value);
    }
    for subject in object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
        replace(&mut subject["namespace"]);
    }
}

fn config(namespace: &str, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": CONFIG_MAP, "namespace": namespace, "labels": { "app.kubernetes.io/name": APP } },
        "data": { CONFIG_KEY: text },
    })
}

/// Objects as YAML documents, for `init --print`.
pub fn to_yaml(objects: &[Value]) -> Result<String, Error> {
    let mut text = String::new();
    for object in objects {
        let document = serde_saphyr::to_string(object)
            .map_err(|error| Error::Manifest { name: "output".to_owned(), message: error.to_string() })?;
        text.push_str("---\n");
        text.push_str(document.trim_end());
        text.push('\n');
    }
    Ok(text)
}

/// Applies an installation, object by object, server-side under the field manager `kubectl-backup`. Doing it again changes
/// nothing. With `dry_run` the API server says what would happen.
pub async fn apply(client: &kube::Client, options: &InstallOptions, dry_run: bool) -> Result<Vec<Applied>, Error> {
    let mut applied: Vec<Applied> = Vec::new();
    for object in objects(options)? {
        // in a dry run nothing can be asked about what is in a namespace that isn't there yet
        let first = applied.first().map(|namespace| namespace.change);
        let homeless = dry_run && first == Some(Change::Created) && object["metadata"]["namespace"].is_string();
        let change = if homeless { Change::Created } else { apply_one(client, &object, dry_run).await? };
        applied.push(named(&object, change));
    }
    if options.config_yaml.is_none() {
        let empty = config(&options.namespace, NO_LOCATIONS);
        let homeless = dry_run && applied.first().is_some_and(|namespace| namespace.change == Change::Created);
        let change = if homeless { Change::Created } else { create_missing(client, options, &empty, dry_run).await? };
        applied.push(named(&empty, change));
    }
    Ok(applied)
}

fn named(object: &Value, change: Change) -> Applied {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let meta = &object["metadata"];
    let (kind, name) = (text(&object["kind"]).unwrap_or_default(), text(&meta["name"]).unwrap_or_default());
    Applied { kind, namespace: text(&meta["namespace"]), name, change }
}

async fn apply_one(client: &kube::Client, object: &Value, dry_run: bool) -> Result<Change, Error> {
    let (api, resource, name) = api_of(client, object)?;
    let namespace = object["metadata"]["namespace"].as_str();
    let deed = |verb| Deed { verb, resource: &resource, namespace, name: &name };
    let before = optional(deed("get").again(|| api.get(&name)).await)?;
    let ours = |object: &DynamicObject| object.metadata.labels.iter().flatten().any(|(_, value)| value == APP);
    if object["kind"] == "Namespace" && before.as_ref().is_some_and(|before| !ours(before)) {
        return Ok(Change::Left);
    }
    let mut params = PatchParams::apply(MANAGER).force().validation_strict();
    params.dry_run = dry_run;
    // an apply that makes the object needs `create` as well
    let verb = if before.is_some() { "patch" } else { "create" };
    let patch = Patch::Apply(object);
    let after = deed(verb).again(|| api.patch(&name, &params, &patch)).await?;
    Ok(match before.map(|before| substance(before) == substance(after)) {
        None => Change::Created,
        Some(true) => Change::Unchanged,
        Some(false) => Change::Configured,
    })
}

/// What of an object matters: not who wrote it when.
fn substance(mut object: DynamicObject) -> (Value, Value) {
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    object.metadata.generation = None;
    (json!(object.metadata), object.data)
}

async fn create_missing(
    client: &kube::Client,
    options: &InstallOptions,
    object: &Value,
    dry_run: bool,
) -> Result<Change, Error> {
    let (api, resource, name) = api_of(client, object)?;
    let deed = Deed { verb: "create", resource: &resource, namespace: Some(&options.namespace), name: &name };
    let params = PostParams { dry_run, field_manager: Some(MANAGER.to_owned()) };
    let made: DynamicObject = serde_json::from_value(object.clone())
        .map_err(|error| Error::Manifest { name: name.clone(), message: error.to_string() })?;
    match deed.again(|| api.create(&params, &made)).await {
        Ok(_) => Ok(Change::Created),
        Err(Error::Api { reason, .. }) if reason == "AlreadyExists" => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

/// The client for an object's kind, the kind's name as in a role's rule, and the object's name.
fn api_of(client: &kube::Client, object: &Value) -> Result<(Api<DynamicObject>, String, String), Error> {
    let Applied { kind, namespace, name, .. } = named(object, Change::Unchanged);
    let damaged = |message: &str| Error::Manifest { name: format!("{kind} {name}"), message: message.to_owned() };
    let version = object["apiVersion"].as_str().ok_or_else(|| damaged("it has no apiVersion"))?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let known = KINDS.iter().find(|(known, _)| *known == kind);
    let (_, plural) = known.ok_or_else(|| damaged("its kind isn't one that is installed"))?;
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind), plural);
    let api = match &namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let rule = if group.is_empty() { (*plural).to_owned() } else { format!("{plural}.{group}") };
    Ok((api, rule, name))
}

/// The configuration as it is in the cluster; `None` where nothing is installed or configured.
pub async fn read_config(client: &kube::Client, namespace: &str) -> Result<Option<String>, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let deed = Deed { verb: "get", resource: "configmaps", namespace: Some(namespace), name: CONFIG_MAP };
    let map = optional(deed.again(|| api.get(CONFIG_MAP)).await)?;
    Ok(map.and_then(|map| map.data?.remove(CONFIG_KEY)))
}

#[cfg(test)]
mod tests;
