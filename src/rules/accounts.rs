//! Service accounts that are there before a restore can make them: every namespace is given its `default` as soon as it
//! exists. What the saved one has and that one lacks is added, pull secrets above all; nothing is taken away.

use serde_json::{Map, Value, json};

/// The patch that adds to a live account what it lacks of the saved one; `None` where it lacks nothing.
pub fn lacking(live: &Value, saved: &Value) -> Option<Value> {
    let mut patch = Map::new();
    for field in ["secrets", "imagePullSecrets"] {
        let items = |object: &Value| object.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut all = items(live);
        let name = |item: &Value| item.get("name").cloned();
        let new: Vec<Value> =
            items(saved).into_iter().filter(|item| !all.iter().any(|other| name(other) == name(item))).collect();
        if !new.is_empty() {
            all.extend(new);
            patch.insert(field.to_owned(), all.into());
        }
    }
    if live.get("automountServiceAccountToken").is_none_or(Value::is_null)
        && let Some(mounts) = saved.get("automountServiceAccountToken").filter(|mounts| !mounts.is_null())
    {
        patch.insert("automountServiceAccountToken".to_owned(), mounts.clone());
    }
    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        let map =
            |object: &Value| object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_object).cloned();
        let there = map(live).unwrap_or_default();
        let new: Map<String, Value> =
            map(saved).unwrap_or_default().into_iter().filter(|(key, _)| !there.contains_key(key)).collect();
        if !new.is_empty() {
            metadata.insert(field.to_owned(), new.into());
        }
    }
    if patch.is_empty() && metadata.is_empty() {
        return None;
    }
    // lists are sent as wholes: not over what somebody else has added in the meantime
    metadata
        .insert("resourceVersion".to_owned(), live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default());
    patch.insert("metadata".to_owned(), json!(metadata));
    Some(patch.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_added() {
        let of = |fields: Value| {
            let mut account = json!({"metadata": {"name": "default", "resourceVersion": "7"}});
            json_patch::merge(&mut account, &fields);
            account
        };
        for (live, saved, expected) in [
            (json!({}), json!({}), Value::Null),
            (
                json!({}),
                json!({"imagePullSecrets": [{"name": "a"}]}),
                json!({"metadata": {"resourceVersion": "7"}, "imagePullSecrets": [{"name": "a"}]}),
            ),
            (
                json!({"imagePullSecrets": [{"name": "b"}], "secrets": [{"name": "s"}]}),
                json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}], "secrets": [{"name": "s"}]}),
                json!({"metadata": {"resourceVersion": "7"}, "imagePullSecrets": [{"name": "b"}, {"name": "a"}]}),
            ),
            (
                json!({"metadata": {"annotations": {"a": "live"}}}),
                json!({"metadata": {"annotations": {"a": "saved", "b": "c"}, "labels": {"d": "e"}}}),
                json!({"metadata": {"resourceVersion": "7", "annotations": {"b": "c"}, "labels": {"d": "e"}}}),
            ),
            (
                json!({}),
                json!({"automountServiceAccountToken": false}),
                json!({"metadata": {"resourceVersion": "7"}, "automountServiceAccountToken": false}),
            ),
            (
                json!({"automountServiceAccountToken": true}),
                json!({"automountServiceAccountToken": false}),
                Value::Null,
            ),
        ] {
            assert_eq!(lacking(&of(live.clone()), &of(saved.clone())).unwrap_or_default(), expected, "{live} {saved}");
        }
    }
}
