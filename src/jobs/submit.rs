//! Makes the Job of a run, and gives it to the API server once.

use super::api::{Deed, optional};
use super::error::Error;
use super::{APP, CONTAINER, MANAGER, READER, RUN_FOLDER, SUBMISSION, TASK_LIMIT, VERB_LABEL, WRITER};
use crate::aws::{OTHER_KEYS, OTHER_STS, OTHER_TOKEN};
use crate::config::{JobSettings, LONGEST_RUN, Location, Place};
use crate::id::{BackupId, Digest};
use crate::rules::marks;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, DeleteParams};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Where the worker finds the service account token for its role.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubectl-backup";
/// Seconds such a token lives; the kubelet replaces it at 80 % of that, and the AWS SDK reads it anew each time.
const TOKEN_SECONDS: i64 = 3600;
/// What a worker's environment holds unless `job.env` says otherwise.
pub const WORKER_ENV: [(&str, &str); 2] = [
    // never the node's role by accident
    ("AWS_EC2_METADATA_DISABLED", "true"),
    // Buffers of frames and parts go back to the system when they are freed. By default glibc keeps what is as large as
    // one that was freed before, with holes between: some MiB (mallopt(3), M_MMAP_THRESHOLD).
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
];

/// Static keys, as their Secret and the environment name them, and whether one may be missing.
const KEYS: [(&str, bool); 3] =
    [("AWS_ACCESS_KEY_ID", false), ("AWS_SECRET_ACCESS_KEY", false), ("AWS_SESSION_TOKEN", true)];
/// A day: for how long a Job may run, and for how long it stays when it's done.
const DAY: i64 = 86_400;

/// Under which service account a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Reads the cluster, writes the bucket.
    Reader,
    /// Restores; has rights only while a [`super::binding`] gives them.
    Writer,
}

impl Account {
    /// The service account's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => READER,
            Self::Writer => WRITER,
        }
    }
}

/// A run that is to become a Job.
#[derive(Clone, Debug)]
pub struct JobSpec<'a, T: ?Sized> {
    /// What it does, for the label `kubectl-backup/verb`: `backup`, `restore`, …
    pub verb: &'a str,
    /// The run: the name of its Job and of its status.
    pub id: &'a BackupId,
    /// The namespace that we are installed in.
    pub install_namespace: &'a str,
    /// Under which service account it runs.
    pub account: Account,
    /// The sealed letter for the worker. No credential may be in it: it can be read in the Job.
    pub task: &'a T,
    /// How Jobs are made here.
    pub settings: &'a JobSettings,
    /// Where the backups are; decides the credentials that the pod gets.
    pub location: &'a Location,
    /// A second location that it works in, with credentials of its own.
    pub other: Option<&'a Location>,
    /// The image this version was released with; `settings.image` stands before it.
    pub image: &'a str,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The Job's uid.
    pub uid: String,
    /// Whether the very same Job was there already: the request had arrived twice.
    pub existed: bool,
}

/// Gives the Job to the API server. Sending it twice makes one Job: what is there already and carries the same task
/// counts as this submission, and anything else by that name is an error.
pub async fn submit<T: Serialize + ?Sized>(client: &kube::Client, spec: &JobSpec<'_, T>) -> Result<Submitted, Error> {
    let job = job(spec)?;
    let (namespace, name) = (spec.install_namespace, spec.id.as_str());
    let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs");
    let deed = Deed { verb: "create", resource: "jobs.batch", namespace: Some(namespace), name };
    // strict: what the settings hold is checked by the API server itself, a misspelt field is an error with its path
    let uri = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict");
    let body = job.to_string().into_bytes();
    let request = || {
        let request = http::Request::post(&uri).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(body.clone()).map_err(kube::Error::HttpError);
        async { client.request::<Job>(request?).await }
    };
    match deed.again(request).await {
        Ok(created) => Ok(Submitted { uid: created.metadata.uid.unwrap_or_default(), existed: false }),
        Err(Error::Api { reason, .. }) if reason == "AlreadyExists" => existing(client, spec, &job).await,
        Err(Error::NotFound { deed, message }) => Err(Error::NotInstalled { deed, message }),
        Err(error) => Err(error),
    }
}

/// Decides whether the Job that is there is the one that was to be made.
async fn existing<T: ?Sized>(client: &kube::Client, spec: &JobSpec<'_, T>, job: &Value) -> Result<Submitted, Error> {
    let (namespace, name) = (spec.install_namespace, spec.id.as_str());
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let deed = Deed { verb: "get", resource: "jobs.batch", namespace: Some(namespace), name };
    let there = deed.again(|| jobs.get(name)).await?;
    let theirs = there.metadata.annotations.iter().flatten().find(|(key, _)| *key == SUBMISSION);
    if theirs.map(|(_, value)| value.as_str()) == job["metadata"]["annotations"][SUBMISSION].as_str() {
        return Ok(Submitted { uid: there.metadata.uid.unwrap_or_default(), existed: true });
    }
    Err(Error::Taken {
        what: format!("job `{name}` in namespace `{namespace}`"),
        why: "does something else".to_owned(),
        hint: "give this run another name".to_owned(),
    })
}

/// Removes a Job with its pods; its status goes with it. Fine when there is none.
pub async fn delete(client: &kube::Client, namespace: &str, id: &BackupId) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let deed = Deed { verb: "delete", resource: "jobs.batch", namespace: Some(namespace), name: id.as_str() };
    let params = DeleteParams::background();
    optional(deed.again(|| jobs.delete(id.as_str(), &params)).await).map(|_| ())
}

/// The Job as JSON, as it is sent. A CronJob's template is made of the same `spec`.
pub fn job<T: Serialize + ?Sized>(spec: &JobSpec<'_, T>) -> Result<Value, Error> {
    let task = serde_json::to_string(spec.task)
        .map_err(|error| Error::Settings { field: "task".to_owned(), message: error.to_string() })?;
    if task.len() > TASK_LIMIT {
        return Err(Error::TaskTooLarge { size: task.len(), limit: TASK_LIMIT });
    }
    let settings = spec.settings;
    let mut template = json!({
        "metadata": { "labels": labels(spec), "annotations": annotations() },
        "spec": pod(spec, task)?,
    });
    // a label for those meshes that look at labels
    template["metadata"]["labels"]["sidecar.istio.io/inject"] = json!("false");
    overlay(&mut template["metadata"]["labels"], &settings.labels, "labels")?;
    overlay(&mut template["metadata"]["annotations"], &settings.annotations, "annotations")?;
    let ttl = settings.ttl_seconds_after_finished.map_or(DAY, i64::from);
    let body = json!({
        "backoffLimit": 3,
        "completions": 1,
        "parallelism": 1,
        "activeDeadlineSeconds": settings.active_deadline_seconds.unwrap_or(LONGEST_RUN),
        "ttlSecondsAfterFinished": ttl,
        "podFailurePolicy": failure_policy(),
        "template": template,
    });
    let submission = Digest::of(body.to_string().as_bytes()).to_string();
    Ok(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": spec.id,
            "namespace": spec.install_namespace,
            "labels": labels(spec),
            "annotations": { SUBMISSION: submission },
        },
        "spec": body,
    }))
}

fn labels<T: ?Sized>(spec: &JobSpec<'_, T>) -> Value {
    json!({ "app.kubernetes.io/name": APP, VERB_LABEL: spec.verb, marks::ID: spec.id })
}

/// Marks that keep autoscalers from evicting the pod and meshes from putting a sidecar in: a sidecar would live on after
/// the worker, and the Job would never end.
fn annotations() -> Value {
    json!({
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
        "sidecar.istio.io/inject": "false",
        "linkerd.io/inject": "disabled",
        "kuma.io/sidecar-injection": "disabled",
    })
}

/// Puts a person's labels or annotations over ours, except over those that the program itself looks for.
fn overlay(into: &mut Value, own: &std::collections::BTreeMap<String, String>, field: &str) -> Result<(), Error> {
    for (key, value) in own {
        if key.starts_with("kubectl-backup/") || key == "app.kubernetes.io/name" || key.contains("batch.kubernetes.io/")
        {
            let message = "it is set by kubectl-backup itself; use another key".to_owned();
            return Err(Error::Settings { field: format!("job.{field}.{key}"), message });
        }
        into[key] = json!(value);
    }
    Ok(())
}

/// Which ends of a pod are ends of the run. The worker exits 0 when the work is done (also in part: the status says so),
/// and with our own exit codes when trying again can't help. Evictions and preemptions don't count; everything else
/// (killed, out of memory, interrupted) is tried again within `backoffLimit`.
fn failure_policy() -> Value {
    json!({ "rules": [
        { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
        { "action": "FailJob",
          "onExitCodes": { "containerName": CONTAINER, "operator": "In", "values": [1, 2, 5, 6, 7] } },
    ]})
}

fn pod<T: ?Sized>(spec: &JobSpec<'_, T>, task: String) -> Result<Value, Error> {
    let settings = spec.settings;
    let mut volumes = vec![json!({ "name": "run", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } })];
    let mut mounts = vec![json!({ "name": "run", "mountPath": RUN_FOLDER })];
    if spec.location.role_arn.is_some() || spec.other.is_some_and(|other| other.role_arn.is_some()) {
        volumes.push(token_volume(settings.audience.as_deref().unwrap_or("sts.amazonaws.com")));
        mounts.push(json!({ "name": "token", "mountPath": TOKEN_FOLDER, "readOnly": true }));
    }
    let resources = settings.resources.clone().unwrap_or_else(
        || json!({ "requests": { "cpu": "100m", "memory": "128Mi" }, "limits": { "memory": "512Mi" } }),
    );
    let container = json!({
        "name": CONTAINER,
        "image": settings.image.as_deref().unwrap_or(spec.image),
        "imagePullPolicy": settings.image_pull_policy.as_deref().unwrap_or("IfNotPresent"),
        "args": ["worker"],
        "env": environment(spec, task)?,
        "resources": resources,
        "volumeMounts": mounts,
        // why a pod failed stays in its status, also where nobody may read logs
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    });
    let mut pod = json!({
        "serviceAccountName": spec.account.name(),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        // the Services of the namespace as variables: of no use, and one could be named like ours
        "enableServiceLinks": false,
        // no runAsUser: the image's own numeric user, or the one that OpenShift picks from the namespace's range
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [container],
        "volumes": volumes,
    });
    let mut set = |field: &str, value: Value| pod[field] = value;
    if !settings.image_pull_secrets.is_empty() {
        let secrets: Vec<Value> = settings.image_pull_secrets.iter().map(|name| json!({ "name": name })).collect();
        set("imagePullSecrets", json!(secrets));
    }
    if !settings.node_selector.is_empty() {
        set("nodeSelector", json!(settings.node_selector));
    }
    if !settings.tolerations.is_empty() {
        set("tolerations", json!(settings.tolerations));
    }
    if let Some(class) = &settings.priority_class_name {
        set("priorityClassName", json!(class));
    }
    Ok(pod)
}

/// A service account token for the role, put there by the kubelet; no webhook takes part. Its file belongs to root: with
/// neither `runAsUser` nor `fsGroup` in the pod the kubelet keeps `defaultMode`, which lets the image's user read it; where
/// OpenShift sets them, it makes the file 0600 and theirs (kubernetes/pkg/volume/projected/projected.go, collectData).
fn token_volume(audience: &str) -> Value {
    let token = json!({ "audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": "token" });
    json!({ "name": "token", "projected": { "defaultMode": 0o444, "sources": [{ "serviceAccountToken": token }] } })
}

/// How a location is entered.
fn access(location: &Location) -> (Option<&str>, Option<&str>) {
    (location.role_arn.as_deref(), location.credentials_secret.as_deref())
}

fn environment<T: ?Sized>(spec: &JobSpec<'_, T>, task: String) -> Result<Vec<Value>, Error> {
    let mut own = Map::new();
    own.insert("KUBECTL_BACKUP_TASK".to_owned(), json!(task));
    if let Place::S3(s3) = &spec.location.place {
        let role = spec.location.role_arn.as_ref();
        let known = [
            ("AWS_REGION", s3.region.clone()),
            ("AWS_ROLE_ARN", role.cloned()),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", role.map(|_| format!("{TOKEN_FOLDER}/token"))),
            ("AWS_ENDPOINT_URL_STS", role.and(s3.endpoint.clone())),
        ];
        own.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))));
    }
    let mut env = Vec::new();
    for (name, value) in &spec.settings.env {
        if name.starts_with("KUBECTL_BACKUP_") {
            let message = "variables that begin with `KUBECTL_BACKUP_` are set by kubectl-backup itself".to_owned();
            return Err(Error::Settings { field: format!("job.env.{name}"), message });
        }
        // a location knows better than what is set for all of them
        let keyed = spec.location.credentials_secret.is_some() && KEYS.iter().any(|(key, _)| key == name);
        if !own.contains_key(name) && !keyed {
            env.push(json!({ "name": name, "value": value }));
        }
    }
    for (name, value) in WORKER_ENV {
        if !spec.settings.env.contains_key(name) {
            env.push(json!({ "name": name, "value": value }));
        }
    }
    env.extend(own.into_iter().map(|(name, value)| json!({ "name": name, "value": value })));
    for (name, field) in [
        ("KUBECTL_BACKUP_NAMESPACE", "metadata.namespace"),
        ("KUBECTL_BACKUP_POD", "metadata.name"),
        ("KUBECTL_BACKUP_POD_UID", "metadata.uid"),
        ("KUBECTL_BACKUP_JOB", "metadata.labels['batch.kubernetes.io/job-name']"),
        ("KUBECTL_BACKUP_JOB_UID", "metadata.labels['batch.kubernetes.io/controller-uid']"),
    ] {
        env.push(json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } }));
    }
    let from_secret = |secret: &str, name: &str, key: &str, optional: bool| {
        let key = json!({ "name": secret, "key": key, "optional": optional });
        json!({ "name": name, "valueFrom": { "secretKeyRef": key } })
    };
    if let Some(secret) = &spec.location.credentials_secret {
        env.extend(KEYS.map(|(name, optional)| from_secret(secret, name, name, optional)));
    }
    let other = spec.other.filter(|other| access(other) != access(spec.location));
    if let Some(secret) = other.and_then(|other| other.credentials_secret.as_ref()) {
        let keys = KEYS.into_iter().zip(OTHER_KEYS);
        env.extend(keys.map(|((key, optional), name)| from_secret(secret, name, key, optional)));
    } else if let Some(other) = other.filter(|other| other.role_arn.is_some()) {
        env.push(json!({ "name": OTHER_TOKEN, "value": format!("{TOKEN_FOLDER}/token") }));
        env.extend(sts_of(other, spec.settings).map(|sts| json!({ "name": OTHER_STS, "value": sts })));
    }
    Ok(env)
}

/// Where the role of a second location is given: by its own server, or for AWS where the settings say, if they do. The Job's
/// `AWS_ENDPOINT_URL_STS` may be the first location's server.
fn sts_of<'a>(other: &'a Location, settings: &'a JobSettings) -> Option<&'a String> {
    let own = if let Place::S3(s3) = &other.place { s3.endpoint.as_ref() } else { None };
    own.or_else(|| settings.env.get("AWS_ENDPOINT_URL_STS"))
}

#[cfg(test)]
mod tests;
