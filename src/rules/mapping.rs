//! `--map-namespace FROM=TO`: the namespace that a backup's objects are restored into, and what must follow for them to
//! mean the same there: the Namespace object itself, and what `follow` lists.

mod follow;

use super::Error;
use super::walk::each;
use crate::resource::{Kind, check_namespace};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The label that every namespace has its name in, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

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

    /// Whether a namespace is mapped.
    pub fn maps(&self, namespace: &str) -> bool {
        self.0.contains_key(namespace)
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

    /// Maps an object: its own namespace, and wherever else it names one and must follow. Tells whether anything changed.
    pub fn apply(&self, kind: &Kind, object: &mut Value) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut changed = false;
        let mut map = |value: &mut Value| changed |= self.map_text(value);
        each(object, "metadata/namespace", &mut map);
        if kind.is("namespaces") {
            each(object, "metadata/name", &mut map);
            // the API server sets it, and refuses another value
            each(object, "metadata/labels", &mut |labels| labels.get_mut(NAME_LABEL).into_iter().for_each(&mut map));
        }
        changed | follow::references(self, kind, object)
    }

    /// Maps a namespace's name; whether it changed.
    fn map_text(&self, value: &mut Value) -> bool {
        let Some(target) = value.as_str().and_then(|namespace| self.0.get(namespace)) else { return false };
        let changes = *value != **target;
        *value = Value::String(target.clone());
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
    fn an_object_and_its_namespace_are_mapped() {
        let mapping = mapping(&["a=b", "b=c"]);
        let namespace = |name: &str| json!({"metadata": {"name": name, "labels": {NAME_LABEL: name, "team": "a"}}});
        let pod = |namespace: &str| json!({"metadata": {"namespace": namespace, "name": "a"}});
        for (key, object, expected) in [
            ("pods", pod("a"), pod("b")),
            ("pods", pod("b"), pod("c")),
            ("pods", pod("x"), pod("x")),
            ("namespaces", namespace("a"), namespace("b")),
            ("namespaces", namespace("x"), namespace("x")),
        ] {
            let mut mapped = object.clone();
            let changed = mapping.apply(&kind(key, "X"), &mut mapped);
            assert_eq!((&mapped, changed), (&expected, object != expected), "{key} {object}");
        }
    }
}
