//! Service accounts that are there before a restore can make them: every namespace is given its `default` as soon as it
//! exists. What the saved one has and that one lacks is added, pull secrets above all; nothing is taken away, unless the
//! restore is undone: then what it added goes again.

use crate::id::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a restore added to an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Added {
    /// Names in `secrets`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Names in `imagePullSecrets`.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub image_pull_secrets: BTreeSet<String>,
    /// `automountServiceAccountToken`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub automount: Option<bool>,
    /// Labels, with the digests of their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Digest>,
    /// Annotations, with the digests of their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Digest>,
}

impl Added {
    fn names(&mut self, field: &str) -> &mut BTreeSet<String> {
        if field == "secrets" { &mut self.secrets } else { &mut self.image_pull_secrets }
    }

    fn marks(&mut self, field: &str) -> &mut BTreeMap<String, Digest> {
        if field == "labels" { &mut self.labels } else { &mut self.annotations }
    }
}

/// The fields that list other objects.
const LISTS: [&str; 2] = ["secrets", "imagePullSecrets"];
/// What a person marks an object with.
const MARKS: [&str; 2] = ["labels", "annotations"];

fn items(object: &Value, field: &str) -> Vec<Value> {
    object.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn marks(object: &Value, field: &str) -> Map<String, Value> {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn digest(value: &Value) -> Digest {
    Digest::of(value.as_str().unwrap_or_default().as_bytes())
}

/// The patch that adds to a live account what it lacks of the saved one, and what that is; `None` where it lacks nothing.
pub fn lacking(live: &Value, saved: &Value) -> Option<(Value, Added)> {
    let (mut patch, mut added) = (Map::new(), Added::default());
    for field in LISTS {
        let mut all = items(live, field);
        let name = |item: &Value| item.get("name").cloned();
        let new = items(saved, field).into_iter().filter(|item| !all.iter().any(|other| name(other) == name(item)));
        let new: Vec<Value> = new.collect();
        if !new.is_empty() {
            added.names(field).extend(new.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
            all.extend(new);
            patch.insert(field.to_owned(), all.into());
        }
    }
    if live.get("automountServiceAccountToken").is_none_or(Value::is_null)
        && let Some(mounts) = saved.get("automountServiceAccountToken").and_then(Value::as_bool)
    {
        added.automount = Some(mounts);
        patch.insert("automountServiceAccountToken".to_owned(), mounts.into());
    }
    let mut metadata = Map::new();
    for field in MARKS {
        let there = marks(live, field);
        let mut new = marks(saved, field);
        new.retain(|key, _| !there.contains_key(key));
        if !new.is_empty() {
            added.marks(field).extend(new.iter().map(|(key, value)| (key.clone(), digest(value))));
            metadata.insert(field.to_owned(), new.into());
        }
    }
    Some((whole(live, patch, metadata)?, added))
}

/// The patch that takes out of a live account what a restore added, as far as it is there as it was added; `None` where
/// nothing of it is left.
pub fn taken_out(live: &Value, added: &Added) -> Option<Value> {
    let (mut patch, mut added) = (Map::new(), added.clone());
    for field in LISTS {
        let (mut left, names) = (items(live, field), added.names(field));
        let before = left.len();
        left.retain(|item| !item["name"].as_str().is_some_and(|name| names.contains(name)));
        if left.len() < before {
            patch.insert(field.to_owned(), if left.is_empty() { Value::Null } else { left.into() });
        }
    }
    let mounts = live.get("automountServiceAccountToken").and_then(Value::as_bool);
    if added.automount.is_some() && mounts == added.automount {
        patch.insert("automountServiceAccountToken".to_owned(), Value::Null);
    }
    let mut metadata = Map::new();
    for field in MARKS {
        let (mut there, known) = (marks(live, field), added.marks(field));
        there.retain(|key, value| known.get(key) == Some(&digest(value)));
        if !there.is_empty() {
            let gone: Map<String, Value> = there.into_iter().map(|(key, _)| (key, Value::Null)).collect();
            metadata.insert(field.to_owned(), gone.into());
        }
    }
    whole(live, patch, metadata)
}

/// A patch for this very state of an account: lists are sent as wholes, and not over what somebody else has added in the
/// meantime.
fn whole(live: &Value, mut patch: Map<String, Value>, mut metadata: Map<String, Value>) -> Option<Value> {
    if patch.is_empty() && metadata.is_empty() {
        return None;
    }
    metadata
        .insert("resourceVersion".to_owned(), live.pointer("/metadata/resourceVersion").cloned().unwrap_or_default());
    patch.insert("metadata".to_owned(), json!(metadata));
    Some(patch.into())
}

/// What a patch of an account is about, in words: fields, names of Secrets, keys.
pub fn words(added: &Added) -> String {
    let quoted = |names: Vec<&String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let fields = [
        ("imagePullSecrets", quoted(added.image_pull_secrets.iter().collect())),
        ("secrets", quoted(added.secrets.iter().collect())),
        ("labels", quoted(added.labels.keys().collect())),
        ("annotations", quoted(added.annotations.keys().collect())),
    ];
    let named = fields.iter().filter(|(_, names)| !names.is_empty()).map(|(field, names)| format!("{field} {names}"));
    let mounts = added.automount.map(|_| "automountServiceAccountToken".to_owned());
    named.chain(mounts).collect::<Vec<_>>().join("; ")
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
            let (live, saved) = (of(live), of(saved));
            let Some((patch, added)) = lacking(&live, &saved) else {
                assert!(expected.is_null(), "{live} {saved}");
                continue;
            };
            assert_eq!(patch, expected, "{live} {saved}");
            // and what was added goes again, and nothing else
            let mut after = live.clone();
            json_patch::merge(&mut after, &patch);
            let patch = taken_out(&after, &added).unwrap();
            json_patch::merge(&mut after, &patch);
            let without_empty = |mut object: Value| {
                let metadata = object["metadata"].as_object_mut().unwrap();
                metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
                object
            };
            assert_eq!(without_empty(after), live, "{saved}");
            assert_eq!(taken_out(&live, &added), None, "{saved}");
        }
    }

    #[test]
    fn only_what_was_added_is_taken_out_and_only_as_it_was_added() {
        let account = |fields: Value| {
            let mut account = json!({"metadata": {"resourceVersion": "7"}});
            json_patch::merge(&mut account, &fields);
            account
        };
        let saved = account(json!({"imagePullSecrets": [{"name": "a"}], "automountServiceAccountToken": false,
                                   "metadata": {"annotations": {"x": "1", "y": "1"}}}));
        let (_, added) = lacking(&account(json!({})), &saved).unwrap();
        let now = account(
            json!({"imagePullSecrets": [{"name": "mine"}, {"name": "a"}], "automountServiceAccountToken": true,
                                 "metadata": {"annotations": {"x": "1", "y": "mine", "z": "1"}}}),
        );
        let expected = json!({"imagePullSecrets": [{"name": "mine"}], "metadata": {"annotations": {"x": null}, "resourceVersion": "7"}});
        assert_eq!(taken_out(&now, &added), Some(expected));
        assert_eq!(words(&added), "imagePullSecrets `a`; annotations `x`, `y`; automountServiceAccountToken");
        let written = serde_json::to_string(&added).unwrap();
        assert_eq!(serde_json::from_str::<Added>(&written).unwrap(), added);
    }
}
