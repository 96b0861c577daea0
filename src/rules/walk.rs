//! Ways through an object's JSON, for rules that rewrite what they lead to; and where a kind keeps its pods' spec.

use crate::resource::Kind;
use serde_json::Value;

/// Calls `visit` with all that a path leads to: map keys between slashes, `*` for every element of a list. Keys that hold
/// a slash themselves can't be named.
pub(super) fn each(value: &mut Value, path: &str, visit: &mut dyn FnMut(&mut Value)) {
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let mut enter = |child: &mut Value| match rest {
        Some(rest) => each(child, rest, visit),
        None => visit(child),
    };
    match value {
        Value::Array(items) if first == "*" => items.iter_mut().for_each(enter),
        Value::Object(map) => {
            if let Some(child) = map.get_mut(first) {
                enter(child);
            }
        }
        _ => (),
    }
}

/// Where objects of a kind keep the spec of their pods.
pub(super) fn pod_spec(kind: &Kind) -> Option<&'static str> {
    match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "pods") => Some("spec"),
        ("", "podtemplates") => Some("template/spec"),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "statefulsets" | "daemonsets" | "replicasets")
        | ("batch", "jobs") => Some("spec/template/spec"),
        ("batch", "cronjobs") => Some("spec/jobTemplate/spec/template/spec"),
        _ => None,
    }
}

/// Calls `visit` with the spec of the pods that an object stands for.
pub(super) fn each_pod_spec(kind: &Kind, object: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    if let Some(path) = pod_spec(kind) {
        each(object, path, visit);
    }
}

/// Puts an annotation on an object.
pub(super) fn annotate(object: &mut Value, key: &str, value: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.insert(key.to_owned(), value.into());
    }
}

/// The lists of containers of a pod's spec.
pub(super) const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    #[test]
    fn paths_lead_to_all_they_name() {
        let object = json!({"a": [{"b": 1}, {"c": 2}, {"b": 3}], "d": {"e": {"f": 4}}, "g": "text"});
        for (path, expected) in [
            ("a/*/b", json!([1, 3])),
            ("d/e/f", json!([4])),
            ("d", json!([{"e": {"f": 4}}])),
            ("d/*", json!([])),
            ("a/b", json!([])),
            ("g/x", json!([])),
            ("missing/*", json!([])),
        ] {
            let mut found = Vec::new();
            each(&mut object.clone(), path, &mut |value| found.push(value.clone()));
            assert_eq!(Value::from(found), expected, "{path}");
        }
    }

    #[test]
    fn every_kind_that_makes_pods_is_known() {
        for (key, path) in [
            ("pods", Some("spec")),
            ("deployments.apps", Some("spec/template/spec")),
            ("cronjobs.batch", Some("spec/jobTemplate/spec/template/spec")),
            ("podtemplates", Some("template/spec")),
            ("deployments.example.com", None),
            ("configmaps", None),
        ] {
            assert_eq!(pod_spec(&kind(key, "X")), path, "{key}");
        }
    }

    #[test]
    fn annotations_are_put_on_where_there_are_none() {
        for (before, after) in [
            (json!({"metadata": {}}), json!({"metadata": {"annotations": {"k": "v"}}})),
            (json!({"metadata": {"annotations": null}}), json!({"metadata": {"annotations": {"k": "v"}}})),
            (
                json!({"metadata": {"annotations": {"a": "b"}}}),
                json!({"metadata": {"annotations": {"a": "b", "k": "v"}}}),
            ),
            (json!({}), json!({})),
        ] {
            let mut object = before;
            annotate(&mut object, "k", "v");
            assert_eq!(object, after);
        }
    }
}
