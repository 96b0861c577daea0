//! Locations and Job settings: strict YAML in, checked values out. Defines [`Location`] (where backups are kept, with a
//! URL that says it) and [`Config`] (what the ConfigMap `kubectl-backup-config` holds under its one key,
//! [`CONFIG_KEY`]). Has no client: who reads the ConfigMap passes the text.
//!
//! `address` reads and writes URLs, `yaml` reads and writes the configuration, `check` knows what names and values
//! may look like.

mod address;
mod check;
mod yaml;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The key of the ConfigMap `kubectl-backup-config` that holds the whole YAML.
pub const CONFIG_KEY: &str = "config.yaml";

/// Where backups are kept, with how to get in. Holds no credential itself, so it may travel in a Job's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// The name it has in the configuration; `None` where a URL was given on the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the bytes are.
    #[serde(flatten)]
    pub place: Place,
    /// The IAM role that the Job assumes with its own service account token. `None`: whatever the pod is given (IRSA
    /// by annotation, EKS Pod Identity, static keys).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// A Secret in the install namespace with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if need be,
    /// `AWS_SESSION_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<String>,
    /// Backups are read from here, never written.
    #[serde(default)]
    pub read_only: bool,
}

/// Where the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// A bucket, or a prefix in one.
    S3(S3),
    /// A folder on this machine; only with `--local`.
    Folder(PathBuf),
}

/// A bucket, or a prefix in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with; empty, or ends without `/`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The bucket's region. `None`: the environment's, else what the bucket says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The URL of an S3-compatible server; `None` for AWS. Its STS is expected there too, as with MinIO.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Address the bucket in the path instead of the host name. On by default where `endpoint` is set.
    #[serde(default)]
    pub path_style: bool,
}

/// What `kubectl-backup-config` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The locations by name.
    pub locations: BTreeMap<String, Location>,
    /// The location that is meant where none is named: the one so marked, or the only one.
    pub default_location: Option<String>,
    /// How Jobs are made.
    pub job: JobSettings,
}

/// How Jobs are made. Field names and values are those of the Kubernetes pod specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JobSettings {
    /// The image; `None`: the one this version was released with.
    pub image: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: Option<String>,
    /// Names of Secrets for the registry.
    pub image_pull_secrets: Vec<String>,
    /// CPU and memory; `None`: 100m and 128Mi asked for, 512Mi at most.
    pub resources: Option<serde_json::Value>,
    /// Labels a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated, as in a pod.
    pub tolerations: Vec<serde_json::Value>,
    /// Annotations of the pods.
    pub annotations: BTreeMap<String, String>,
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
    /// Environment variables, such as `HTTPS_PROXY`.
    pub env: BTreeMap<String, String>,
    /// Priority class of the pods.
    pub priority_class_name: Option<String>,
    /// Audience of the projected service account token; `None`: `sts.amazonaws.com`.
    pub audience: Option<String>,
    /// Seconds after which a finished Job and its status go; `None`: 86,400.
    pub ttl_seconds_after_finished: Option<i32>,
    /// Seconds a Job may run in all, at most [`LONGEST_RUN`]; `None`: that.
    pub active_deadline_seconds: Option<i64>,
}

/// Seconds that a Job may run at most: 20 hours. What a run stored that never became a backup is swept after a day, so none
/// may come near that.
pub const LONGEST_RUN: i64 = 20 * 3600;

/// Why a configuration or a location can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The YAML doesn't parse or holds what it shouldn't; the text gives line and column.
    #[error("`kubectl-backup-config`: {0}")]
    Yaml(String),
    /// No location is meant, or none is known by the name given.
    #[error("{0}")]
    NoLocation(String),
    /// A value is not allowed.
    #[error("`{field}`: {message}")]
    Value {
        /// The path of the field.
        field: String,
        /// What is wrong, and the way out.
        message: String,
    },
}

impl Error {
    fn value(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { field: field.into(), message: message.into() }
    }
}

impl Config {
    /// The location that a person means: one of the configured by its name, any by its URL (`s3://…`, `file:///…`),
    /// and with `None` the default one or, where there is no default, the only one.
    pub fn location(&self, name_or_url: Option<&str>) -> Result<Location, Error> {
        let Some(text) = name_or_url else { return self.default_location() };
        if text.contains("://") {
            return Ok(self.with_known_access(Location::parse_url(text)?));
        }
        self.locations.get(text).cloned().ok_or_else(|| {
            let known = self.known_locations();
            Error::NoLocation(format!("`{text}` is not a location: {known}\n{ADD_LOCATION}"))
        })
    }

    /// A bucket that a configured location is in as well is entered in the same way: another prefix of it needs no
    /// configuration of its own.
    fn with_known_access(&self, mut location: Location) -> Location {
        let same_bucket = |known: &&Location| match (&known.place, &location.place) {
            (Place::S3(known), Place::S3(asked)) => known.bucket == asked.bucket && known.endpoint == asked.endpoint,
            _ => false,
        };
        if let Some(known) = self.locations.values().find(same_bucket) {
            location.role_arn.clone_from(&known.role_arn);
            location.credentials_secret.clone_from(&known.credentials_secret);
            location.read_only = known.read_only;
        }
        location
    }

    fn default_location(&self) -> Result<Location, Error> {
        let only = || if self.locations.len() == 1 { self.locations.values().next() } else { None };
        let default = match &self.default_location {
            Some(name) => self.locations.get(name),
            None => only(),
        };
        default.cloned().ok_or_else(|| {
            let known = self.known_locations();
            let way_out = match self.locations.keys().next() {
                None => ADD_LOCATION.to_owned(),
                Some(name) => {
                    format!(
                        "hint: say `--location {name}`, or for good: `defaultLocation: {name}` in the configuration"
                    )
                }
            };
            Error::NoLocation(format!("no location was named and none is the default: {known}\n{way_out}"))
        })
    }

    fn known_locations(&self) -> String {
        if self.locations.is_empty() {
            return "none is configured".to_owned();
        }
        let names: Vec<String> = self.locations.keys().map(|name| format!("`{name}`")).collect();
        format!("configured: {}", names.join(", "))
    }
}

/// The way out where a location is missing.
const ADD_LOCATION: &str = "hint: add one with `kubectl backup init --location s3://BUCKET/PREFIX?region=REGION`, or give \
                            its URL with `--location`";

impl Location {
    /// The AWS account of the role that it is entered with, where its ARN says it.
    pub fn account(&self) -> Option<&str> {
        self.role_arn.as_deref()?.split(':').nth(4).filter(|account| !account.is_empty())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::S3(s3) if s3.prefix.is_empty() => write!(f, "s3://{}", s3.bucket),
            Place::S3(s3) => write!(f, "s3://{}/{}", s3.bucket, s3.prefix),
            Place::Folder(path) => write!(f, "file://{}", path.display()),
        }
    }
}
