//! An object of the target against what a restore would make of it: what an update would write ([`wanted`]), what that
//! changes field by field ([`changes`]), and whether the API server lets it ([`immutable`]).
//!
//! What the API server and controllers have set in the target stays as it is and counts for nothing: cluster IPs and node
//! ports, the volume of a claim, the machine of a pod, uids, status. Finalizers stay those of the target: they are the
//! business of the controllers that run there.

use super::mask::MASK;
use crate::id::Digest;
use crate::resource::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Write as _;

mod immutable;

pub use immutable::{FIXED, Fixed, immutable};

/// kubectl keeps a copy of the whole object here, Secret values included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Where: `spec.ports[0].port`, `metadata.annotations["a.b/c"]`.
    pub path: String,
    /// What is there now; absent where nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What would be there; absent where the field goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// What of an object's metadata says nothing of what it is.
const NOISE: [&str; 8] = [
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// What an update writes: the adapted object from the backup, with what the API server has set in the target left as it
/// is. `bare` is the object of the target without that.
pub fn wanted(kind: &Kind, mut adapted: Value, live: &Value, bare: &Value) -> Value {
    let mut kept = live.clone();
    if let Some(metadata) = kept.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.remove(field);
        }
    }
    if kind.is("services") {
        forget_what_the_type_refuses(&adapted, &mut kept);
    }
    carry(&mut adapted, &kept, Some(bare));
    if kind.is("persistentvolumes") {
        keep_claim(&mut adapted, live);
    }
    if let Some(metadata) = adapted.get_mut("metadata").and_then(Value::as_object_mut) {
        match live.pointer("/metadata/finalizers") {
            Some(finalizers) => metadata.insert("finalizers".to_owned(), finalizers.clone()),
            None => metadata.remove("finalizers"),
        };
    }
    adapted
}

/// A volume stays with the claim that has it: named to another one, with this one's uid, it would count as released, and
/// its data might be deleted.
fn keep_claim(adapted: &mut Value, live: &Value) {
    let claim = live.pointer("/spec/claimRef");
    if let (Some(claim), Some(spec)) = (claim, adapted.get_mut("spec").and_then(Value::as_object_mut)) {
        spec.insert("claimRef".to_owned(), claim.clone());
    }
}

/// A Service of another type than before has no use for the addresses and ports of the old one.
fn forget_what_the_type_refuses(adapted: &Value, live: &mut Value) {
    let of_type = adapted.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP");
    let Some(spec) = live.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if of_type == "ExternalName" {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    if !matches!(of_type, "NodePort" | "LoadBalancer") {
        spec.remove("healthCheckNodePort");
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
}

/// Puts into `object` what `live` has and `bare` has not, unless something stands there.
fn carry(object: &mut Value, live: &Value, bare: Option<&Value>) {
    match (object, live) {
        (Value::Object(object), Value::Object(live)) => {
            for (key, value) in live {
                let bare = bare.and_then(|bare| bare.get(key));
                match object.get_mut(key) {
                    Some(there) => carry(there, value, bare),
                    None if bare.is_none() => drop(object.insert(key.clone(), value.clone())),
                    None => (),
                }
            }
        }
        (Value::Array(object), Value::Array(live)) => {
            let none = Vec::new();
            let bare = bare.and_then(Value::as_array).unwrap_or(&none);
            carry_elements(object, live, bare);
        }
        _ => (),
    }
}

/// Elements that `bare` lacks as a whole go where they were; of the others, what is missing within them.
fn carry_elements(object: &mut Vec<Value>, live: &[Value], bare: &[Value]) {
    let whole = live.len() == bare.len();
    for (at, value) in live.iter().enumerate() {
        let twin = if whole { bare.get(at) } else { bare.iter().find(|bare| is_same(bare, value)) };
        let there = object.iter().position(|there| is_same(there, value));
        match (there, twin) {
            (Some(there), _) => carry(&mut object[there], value, twin),
            (None, None) => object.insert(at.min(object.len()), value.clone()),
            (None, Some(_)) => (),
        }
    }
}

/// Whether two elements of a list stand for the same thing: by port and protocol, by name, else by their content.
fn is_same(one: &Value, other: &Value) -> bool {
    let field = |name| (one.get(name), other.get(name));
    if let (Some(port), Some(other_port)) = field("port") {
        let protocol = |value: &Value| value.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        return port == other_port && protocol(one) == protocol(other);
    }
    match (field("name"), field("mountPath")) {
        ((Some(name), Some(other)), (path, other_path)) => name == other && path == other_path,
        _ => one == other,
    }
}

/// An object without what counts for nothing when two are compared.
pub fn normal(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
        NOISE.iter().for_each(|field| drop(metadata.remove(*field)));
        for owner in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
            owner.as_object_mut().map(|owner| owner.remove("uid"));
        }
        for field in ["labels", "annotations", "ownerReferences", "finalizers"] {
            if metadata.get(field).is_some_and(is_empty) {
                metadata.remove(field);
            }
        }
    }
    forget_nulls(object);
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// `null` means the same as nothing, and which of the two is written differs between versions of Kubernetes.
fn forget_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(forget_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_nulls),
        _ => (),
    }
}

/// Whether two objects differ in nothing but noise: what most of those that are compared do. Copies neither, and where it
/// isn't sure says that they differ.
fn is_alike(from: &Value, to: &Value) -> bool {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return from == to };
    is_same_but(from, to, |key| key == "status" || key == "metadata")
        && match (from.get("metadata"), to.get("metadata")) {
            (Some(Value::Object(from)), Some(Value::Object(to))) => is_same_but(from, to, |key| NOISE.contains(&key)),
            (from, to) => from == to,
        }
}

/// Whether two maps hold the same, some keys aside; `null` is the same as nothing.
fn is_same_but(from: &Map<String, Value>, to: &Map<String, Value>, aside: impl Fn(&str) -> bool + Copy) -> bool {
    let holds = |one: &Map<String, Value>, other: &Map<String, Value>| {
        one.iter().filter(|(key, _)| !aside(key)).all(|(key, value)| match other.get(key) {
            Some(other) => is_the_same(value, other),
            None => value.is_null(),
        })
    };
    holds(from, to) && to.iter().all(|(key, value)| aside(key) || value.is_null() || from.contains_key(key))
}

fn is_the_same(from: &Value, to: &Value) -> bool {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => is_same_but(from, to, |_| false),
        (Value::Array(from), Value::Array(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| is_the_same(from, to))
        }
        _ => from == to,
    }
}

/// The fields in which two objects differ, noise aside.
pub fn changes(from: &Value, to: &Value) -> Vec<Change> {
    if is_alike(from, to) {
        return Vec::new();
    }
    let (mut from, mut to) = (from.clone(), to.clone());
    normal(&mut from);
    normal(&mut to);
    let mut changes = Vec::new();
    compare(&mut String::new(), Some(&from), Some(&to), &mut changes);
    changes
}

fn compare(path: &mut String, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    let length = path.len();
    match (from, to) {
        (Some(from), Some(to)) if from == to => (),
        (Some(Value::Object(from)), Some(Value::Object(to))) => {
            let added = to.keys().filter(|key| !from.contains_key(*key));
            for key in from.keys().chain(added) {
                step(path, key);
                compare(path, from.get(key), to.get(key), changes);
                path.truncate(length);
            }
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) if from.len() == to.len() => {
            for (at, (from, to)) in from.iter().zip(to).enumerate() {
                _ = write!(path, "[{at}]");
                compare(path, Some(from), Some(to), changes);
                path.truncate(length);
            }
        }
        _ => changes.push(Change { path: path.clone(), from: from.cloned(), to: to.cloned() }),
    }
}

fn step(path: &mut String, key: &str) {
    _ = match key {
        key if key.contains(['.', '/']) => write!(path, "[\"{key}\"]"),
        key if path.is_empty() => write!(path, "{key}"),
        key => write!(path, ".{key}"),
    };
}

/// A digest of changes: by it is known that what is changed is what was shown.
pub fn digest(changes: &[Change]) -> Digest {
    Digest::of(&serde_json::to_vec(changes).unwrap_or_default())
}

/// Hides what a person isn't shown: of a Secret only that a value changes.
pub fn masked(kind: &Kind, changes: Vec<Change>) -> Vec<Change> {
    if !kind.is("secrets") {
        return changes;
    }
    let hide = |value: Option<Value>| {
        value.map(|value| match value {
            Value::Object(fields) => fields.keys().map(|key| (key.clone(), Value::from(MASK))).collect(),
            _ => Value::from(MASK),
        })
    };
    let is_value = |path: &str| {
        ["data", "stringData"].iter().any(|field| path.strip_prefix(field).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric)))
            // annotations that come or go as a whole may hold the copy that kubectl keeps
            || path == "metadata.annotations"
            || path.contains(LAST_APPLIED)
    };
    let mask = |change: Change| match is_value(&change.path) {
        true => Change { from: hide(change.from), to: hide(change.to), path: change.path },
        false => change,
    };
    changes.into_iter().map(mask).collect()
}

#[cfg(test)]
mod tests;
