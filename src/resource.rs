//! Words for Kubernetes objects: the [`Kind`] of an object, and the [`ObjectName`] that tells it from the others of
//! its kind. Knows nothing of clients, archives or rules.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One resource type as the API server serves it, in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kind {
    /// API group; empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Version within the group, such as `v1`.
    pub version: String,
    /// The kind as objects state it, such as `Deployment`.
    pub kind: String,
    /// The plural as it stands in URLs, such as `deployments`.
    pub resource: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

impl Kind {
    /// Group and version as objects state them: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The name that tells a resource type from all others in any version: `pods`, `deployments.apps`. It is the
    /// spelling kubectl takes and the folder name in an archive.
    pub fn key(&self) -> String {
        if self.group.is_empty() { self.resource.clone() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// Whether this is the given resource type, named by [`Kind::key`].
    pub fn is(&self, key: &str) -> bool {
        match key.strip_prefix(self.resource.as_str()) {
            Some("") => self.group.is_empty(),
            Some(rest) => rest.strip_prefix('.').is_some_and(|group| group == self.group),
            None => false,
        }
    }

    /// The path below the API server's root under which its objects are listed: `/apis/apps/v1/namespaces/foo/deployments`.
    /// Without a namespace, the path of the cluster-wide list.
    pub fn list_path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.api_version(), self.resource),
            None => format!("{root}/{}/{}", self.api_version(), self.resource),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key())
    }
}

/// What tells an object from the others of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    /// `None` for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The object's `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// The name of an object in a namespace, or of a cluster-scoped one.
    pub fn new(namespace: Option<&str>, name: &str) -> Self {
        Self { namespace: namespace.map(str::to_owned), name: name.to_owned() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// An object's `metadata.uid` in 16 bytes: a restore holds one for each object. A uid that is not a UUID is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    /// The uid of a text; `None` for an empty one.
    pub fn of(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let hex: String = text.chars().filter(|c| *c != '-').collect();
        if hex.len() == 32
            && text.len() == 36
            && let Ok(number) = u128::from_str_radix(&hex, 16)
        {
            return Some(Self(number));
        }
        let digest = crate::id::Digest::of(text.as_bytes()).to_string();
        u128::from_str_radix(&digest[..32], 16).ok().map(Self)
    }
}

/// Why a string can't be a name in Kubernetes. The text completes the sentence "`NAME` is not a valid …: ".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Empty.
    #[error("it is empty")]
    Empty,
    /// Longer than the API server takes.
    #[error("it has {length} bytes, {limit} are allowed")]
    TooLong {
        /// Bytes in the name.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A path segment that would lead elsewhere, or characters that no object name can hold.
    #[error("it must not be `.` or `..` nor contain `/` or `%`")]
    PathSegment,
    /// Not an RFC 1123 label.
    #[error("lower case letters, digits and `-` are allowed, and it starts and ends with a letter or digit")]
    Label,
}

/// Checks an object's name by the rule that every kind shares: the API server's path segment rule
/// (`k8s.io/apimachinery/pkg/api/validation/path`), and 253 bytes. RBAC objects may hold `:`, spaces and capitals.
pub fn check_object_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::PathSegment),
        _ if name.len() > 253 => Err(NameError::TooLong { length: name.len(), limit: 253 }),
        _ if name.contains(['/', '%']) || name.chars().any(char::is_control) => Err(NameError::PathSegment),
        _ => Ok(()),
    }
}

/// Checks a namespace's name: an RFC 1123 label of at most 63 characters.
pub fn check_namespace(name: &str) -> Result<(), NameError> {
    check_label(name, 63)
}

pub(crate) fn check_label(name: &str, limit: usize) -> Result<(), NameError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    match (bytes.first(), bytes.last()) {
        (None, _) | (_, None) => Err(NameError::Empty),
        _ if name.len() > limit => Err(NameError::TooLong { length: name.len(), limit }),
        (Some(first), Some(last)) => {
            let ok = inner(*first) && inner(*last) && bytes.iter().all(|b| inner(*b) || *b == b'-');
            if ok { Ok(()) } else { Err(NameError::Label) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, resource: &str) -> Kind {
        Kind {
            group: group.into(),
            version: "v1".into(),
            kind: "X".into(),
            resource: resource.into(),
            namespaced: true,
        }
    }

    #[test]
    fn keys_and_paths() {
        let (pods, deployments) = (kind("", "pods"), kind("apps", "deployments"));
        assert_eq!((pods.key(), deployments.key()), ("pods".into(), "deployments.apps".into()));
        assert_eq!(pods.list_path(Some("a")), "/api/v1/namespaces/a/pods");
        assert_eq!(deployments.list_path(None), "/apis/apps/v1/deployments");
        assert!(pods.is("pods") && !pods.is("pods.metrics.k8s.io") && !pods.is("pod"));
        assert!(
            deployments.is("deployments.apps") && !deployments.is("deployments") && !deployments.is("deployments.app")
        );
    }

    #[test]
    fn object_names() {
        for good in ["a", "system:node-proxier", "Has Space", &"x".repeat(253)] {
            assert_eq!(check_object_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a%2fb", "a\nb", &"x".repeat(254)] {
            assert!(check_object_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn namespace_names() {
        for good in ["a", "kube-system", "0a", &"x".repeat(63)] {
            assert_eq!(check_namespace(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(check_namespace(bad).is_err(), "{bad:?}");
        }
    }
}
