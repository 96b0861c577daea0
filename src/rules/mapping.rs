//! `--map-namespace FROM=TO`: the namespace that a backup's objects are restored into, and what must follow for them to
//! mean the same there: subjects of bindings, claims of volumes, the Namespace object itself.

use super::Error;
use crate::resource::{Kind, check_namespace};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Which namespaces are restored under another name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct NamespaceMapping(BTreeMap<String, String>);

impl NamespaceMapping {
    /// Reads `FROM=TO` texts. A namespace may stand on either side, but only once on each.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Error> {
        let mut mapping = BTreeMap::new();
        for text in texts.iter().map(AsRef::as_ref) {
            let invalid = |why: String| Error::Mapping { text: text.to_owned(), why };
            let (from, to) = text.split_once('=').ok_or_else(|| invalid("there is no `=` in it".to_owned()))?;
            for side in [from, to] {
                check_namespace(side).map_err(|error| invalid(format!("`{side}` is not a namespace: {error}")))?;
            }
            if mapping.values().any(|other| other == to) {
                return Err(invalid(format!("another namespace is mapped to `{to}` already")));
            }
            if mapping.insert(from.to_owned(), to.to_owned()).is_some() {
                return Err(invalid(format!("`{from}` is mapped already")));
            }
        }
        Ok(Self(mapping))
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a namespace's objects are restored.
    pub fn target<'a>(&'a self, namespace: &'a str) -> &'a str {
        self.0.get(namespace).map_or(namespace, String::as_str)
    }

    /// Checks that of the namespaces that are restored no two land in one: `a=b` while `b` is restored as well.
    pub fn check<'a>(&'a self, restored: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let mut sources: BTreeMap<&str, &str> = BTreeMap::new();
        for namespace in restored {
            let target = self.target(namespace);
            match sources.insert(target, namespace) {
                Some(other) if other != namespace => {
                    let (first, second) = (other.to_owned(), namespace.to_owned());
                    return Err(Error::MappedTogether { first, second, target: target.to_owned() });
                }
                _ => (),
            }
        }
        Ok(())
    }

    /// The mapped namespaces that are not among those restored: typing errors, most likely.
    pub fn unused(&self, is_restored: impl Fn(&str) -> bool) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|from| !is_restored(from)).collect()
    }

    /// Maps an object: its own namespace, and where it names one so that it must follow. Tells the paths changed.
    pub fn apply(&self, kind: &Kind, object: &mut Value) -> Vec<String> {
        let mut changed = Vec::new();
        if self.is_empty() {
            return changed;
        }
        self.map(object, "/metadata/namespace", "metadata.namespace", &mut changed);
        match (kind.group.as_str(), kind.resource.as_str()) {
            ("", "namespaces") => {
                self.map(object, "/metadata/name", "metadata.name", &mut changed);
                // the API server sets it, and refuses another value
                let path = "metadata.labels[\"kubernetes.io/metadata.name\"]";
                self.map(object, "/metadata/labels/kubernetes.io~1metadata.name", path, &mut changed);
            }
            ("", "persistentvolumes") => {
                self.map(object, "/spec/claimRef/namespace", "spec.claimRef.namespace", &mut changed)
            }
            ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
                let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
                for (at, subject) in subjects.into_iter().flatten().enumerate() {
                    if self.map_subject(subject) {
                        changed.push(format!("subjects[{at}]"));
                    }
                }
            }
            _ => (),
        }
        changed
    }

    fn map(&self, object: &mut Value, pointer: &str, path: &str, changed: &mut Vec<String>) {
        if object.pointer_mut(pointer).is_some_and(|value| self.map_text(value)) {
            changed.push(path.to_owned());
        }
    }

    fn map_text(&self, value: &mut Value) -> bool {
        let Some(target) = value.as_str().and_then(|namespace| self.0.get(namespace)) else { return false };
        let changes = *value != **target;
        *value = Value::String(target.clone());
        changes
    }

    /// A service account, or a group or user that stands for some.
    fn map_subject(&self, subject: &mut Value) -> bool {
        if subject.get("kind").and_then(Value::as_str) == Some("ServiceAccount") {
            return subject.get_mut("namespace").is_some_and(|namespace| self.map_text(namespace));
        }
        let Some(name) = subject.get("name").and_then(Value::as_str) else { return false };
        let mapped = if let Some(namespace) = name.strip_prefix("system:serviceaccounts:") {
            format!("system:serviceaccounts:{}", self.target(namespace))
        } else if let Some((namespace, account)) =
            name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
        {
            format!("system:serviceaccount:{}:{account}", self.target(namespace))
        } else {
            return false;
        };
        let changes = mapped != name;
        subject["name"] = Value::String(mapped);
        changes
    }
}

impl TryFrom<Vec<String>> for NamespaceMapping {
    type Error = Error;

    fn try_from(texts: Vec<String>) -> Result<Self, Error> {
        Self::parse(&texts)
    }
}

impl From<NamespaceMapping> for Vec<String> {
    fn from(mapping: NamespaceMapping) -> Self {
        mapping.0.into_iter().map(|(from, to)| format!("{from}={to}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    fn mapping(texts: &[&str]) -> NamespaceMapping {
        NamespaceMapping::parse(texts).unwrap()
    }

    #[test]
    fn mappings_are_read() {
        let swapped = mapping(&["a=b", "b=a"]);
        assert_eq!((swapped.target("a"), swapped.target("b"), swapped.target("c")), ("b", "a", "c"));
        assert!(mapping(&[]).is_empty() && !swapped.is_empty());
        for bad in
            [&["a"][..], &["a="], &["=b"], &["a=B"], &["a=b=c"], &["a=b", "a=c"], &["a=c", "b=c"], &["a=b", "a=b"]]
        {
            assert!(matches!(NamespaceMapping::parse(bad), Err(Error::Mapping { .. })), "{bad:?}");
        }
        let json = serde_json::to_string(&swapped).unwrap();
        assert_eq!(json, r#"["a=b","b=a"]"#);
        assert_eq!(serde_json::from_str::<NamespaceMapping>(&json).unwrap(), swapped);
    }

    #[test]
    fn no_two_namespaces_land_in_one() {
        let together = mapping(&["a=b"]);
        assert_eq!(together.check(["a", "c", "a"]), Ok(()));
        let error = together.check(["a", "b"]).unwrap_err();
        let expected = Error::MappedTogether { first: "a".into(), second: "b".into(), target: "b".into() };
        assert_eq!(error, expected);
        assert_eq!(mapping(&["a=b", "b=a"]).check(["a", "b"]), Ok(()));
        assert_eq!(mapping(&["a=b", "x=y"]).unused(|namespace| namespace == "a"), ["x"]);
    }

    #[test]
    fn what_follows_a_namespace() {
        let mapping = mapping(&["a=b", "b=c"]);
        let binding = |kind: &str, namespace: &str, name: &str| json!({"subjects": [{"kind": kind, "namespace": namespace, "name": name}]});
        let name = "kubernetes.io/metadata.name";
        let roles = "rolebindings.rbac.authorization.k8s.io";
        let cluster_roles = "clusterrolebindings.rbac.authorization.k8s.io";
        for (key, object, expected, changed) in [
            (
                "pods",
                json!({"metadata": {"namespace": "a"}}),
                json!({"metadata": {"namespace": "b"}}),
                "metadata.namespace",
            ),
            (
                "pods",
                json!({"metadata": {"namespace": "x", "name": "a"}}),
                json!({"metadata": {"namespace": "x", "name": "a"}}),
                "",
            ),
            (
                "namespaces",
                json!({"metadata": {"name": "a", "labels": {name: "a", "team": "a"}}}),
                json!({"metadata": {"name": "b", "labels": {name: "b", "team": "a"}}}),
                "metadata.name metadata.labels[\"kubernetes.io/metadata.name\"]",
            ),
            (
                "persistentvolumes",
                json!({"spec": {"claimRef": {"namespace": "a", "name": "a"}}}),
                json!({"spec": {"claimRef": {"namespace": "b", "name": "a"}}}),
                "spec.claimRef.namespace",
            ),
            (
                "configmaps",
                json!({"spec": {"claimRef": {"namespace": "a"}}}),
                json!({"spec": {"claimRef": {"namespace": "a"}}}),
                "",
            ),
            (roles, binding("ServiceAccount", "a", "a"), binding("ServiceAccount", "b", "a"), "subjects[0]"),
            (cluster_roles, binding("ServiceAccount", "b", "x"), binding("ServiceAccount", "c", "x"), "subjects[0]"),
            (
                roles,
                binding("Group", "", "system:serviceaccounts:a"),
                binding("Group", "", "system:serviceaccounts:b"),
                "subjects[0]",
            ),
            (
                roles,
                binding("User", "", "system:serviceaccount:a:x"),
                binding("User", "", "system:serviceaccount:b:x"),
                "subjects[0]",
            ),
            (
                roles,
                binding("User", "", "system:serviceaccount:x:a"),
                binding("User", "", "system:serviceaccount:x:a"),
                "",
            ),
            (roles, binding("User", "", "a"), binding("User", "", "a"), ""),
            (roles, json!({"subjects": null}), json!({"subjects": null}), ""),
        ] {
            let mut mapped = object.clone();
            let paths = mapping.apply(&kind(key, "X"), &mut mapped);
            assert_eq!((mapped, paths.join(" ").as_str()), (expected, changed), "{key} {object}");
        }
    }
}
