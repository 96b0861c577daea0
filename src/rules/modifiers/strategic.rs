//! Strategic merge patches (`k8s.io/apimachinery/pkg/util/strategicpatch`), for Kubernetes' own kinds: maps are merged,
//! null takes a key out, lists are replaced unless their elements are known by a key. The directives `$patch`,
//! `$retainKeys` and `$deleteFromPrimitiveList` are followed; `$setElementOrder`, which only kubectl writes, is refused.

use crate::resource::Kind;
use crate::rules::builtin;
use serde_json::{Map, Value};

/// Lists whose elements are merged: the field they are in, the field below which that is (`*`: any), and the key that
/// tells elements from each other (empty: the elements are plain values). From the `patchMergeKey` tags of
/// `k8s.io/api`.
const MERGED: &[(&str, &str, &str)] = &[
    ("containers", "*", "name"),
    ("initContainers", "*", "name"),
    ("ephemeralContainers", "*", "name"),
    ("volumes", "*", "name"),
    ("volumeMounts", "*", "mountPath"),
    ("volumeDevices", "*", "devicePath"),
    ("env", "*", "name"),
    ("ports", "containers", "containerPort"),
    ("ports", "initContainers", "containerPort"),
    ("ports", "ephemeralContainers", "containerPort"),
    ("ports", "spec", "port"),
    ("imagePullSecrets", "*", "name"),
    ("secrets", "", "name"),
    ("hostAliases", "*", "ip"),
    ("topologySpreadConstraints", "*", "topologyKey"),
    ("resourceClaims", "spec", "name"),
    ("schedulingGates", "*", "name"),
    ("webhooks", "", "name"),
    ("conditions", "status", "type"),
    ("ownerReferences", "metadata", "uid"),
    ("finalizers", "metadata", ""),
];

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a patch to an object.
pub(super) fn apply(kind: &Kind, object: &mut Value, patch: &Value) -> Result<(), String> {
    if !builtin::is_built_in(&kind.group) {
        return Err(format!(
            "`strategicPatches` are for Kubernetes' own kinds, and `{kind}` is none: use `mergePatches`"
        ));
    }
    if kind.is("customresourcedefinitions.apiextensions.k8s.io") {
        // names of fields in a schema mean nothing here
        return Err(format!("`strategicPatches` can't be used on `{kind}`: use `patches`"));
    }
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => merge(object, patch, ""),
        _ => Err("the patch is no map".to_owned()),
    }
}

fn merge(object: &mut Map<String, Value>, patch: &Map<String, Value>, field: &str) -> Result<(), String> {
    match patch.get(PATCH).and_then(Value::as_str) {
        None if !patch.contains_key(PATCH) => (),
        Some("merge") => (),
        Some("replace") => {
            *object = patch
                .iter()
                .filter(|(key, _)| *key != PATCH)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            return Ok(());
        }
        Some("delete") => {
            object.clear();
            return Ok(());
        }
        _ => return Err(format!("`{PATCH}` is none of merge, replace and delete")),
    }
    if let Some(kept) = patch.get(RETAIN) {
        let kept = kept.as_array().ok_or_else(|| format!("`{RETAIN}` is no list"))?;
        object.retain(|key, _| kept.iter().any(|kept| kept.as_str() == Some(key)));
    }
    for (key, value) in patch.iter().filter(|(key, _)| *key != PATCH && *key != RETAIN) {
        if key.starts_with(ORDER) {
            return Err(format!("`{key}` is not followed: name the elements in the list itself"));
        }
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            let gone = value.as_array().ok_or_else(|| format!("`{key}` is no list"))?;
            if let Some(Value::Array(items)) = object.get_mut(list) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        merge_field(object, key, value, field)?;
    }
    Ok(())
}

fn merge_field(object: &mut Map<String, Value>, key: &str, value: &Value, field: &str) -> Result<(), String> {
    match (object.get_mut(key), value) {
        (_, Value::Null) => {
            object.remove(key);
        }
        (Some(Value::Object(old)), Value::Object(patch)) => {
            let goes = patch.get(PATCH).and_then(Value::as_str) == Some("delete");
            merge(old, patch, key)?;
            if goes {
                object.remove(key);
            }
        }
        (_, Value::Object(patch)) => {
            let mut made = Map::new();
            merge(&mut made, patch, key)?;
            object.insert(key.to_owned(), made.into());
        }
        (old, Value::Array(patch)) => {
            let old = old.and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            object.insert(key.to_owned(), merge_list(old, patch, key, field)?.into());
        }
        (_, plain) => {
            object.insert(key.to_owned(), plain.clone());
        }
    }
    Ok(())
}

/// `field` is the one that the list is in, `above` the one that this one is in.
fn merge_list(mut old: Vec<Value>, patch: &[Value], field: &str, above: &str) -> Result<Vec<Value>, String> {
    let directive = |item: &Value| item.get(PATCH).and_then(Value::as_str).map(str::to_owned);
    let keyed = MERGED.iter().find(|(name, below, _)| *name == field && (*below == "*" || *below == above));
    let replaces = |item: &Value| {
        directive(item).as_deref() == Some("replace") && item.as_object().is_some_and(|map| map.len() == 1)
    };
    let Some((_, _, merge_key)) = keyed.filter(|_| !patch.iter().any(replaces)) else {
        return patch.iter().filter(|item| !replaces(item)).map(|item| cleaned(item, field)).collect();
    };
    for item in patch {
        if merge_key.is_empty() {
            if !old.contains(item) {
                old.push(item.clone());
            }
            continue;
        }
        let key = item.get(*merge_key).ok_or_else(|| format!("an element of `{field}` lacks `{merge_key}`"))?;
        let at = old.iter().position(|other| other.get(*merge_key) == Some(key));
        match (at, directive(item).as_deref(), item) {
            (Some(at), Some("delete"), _) => {
                old.remove(at);
            }
            (None, Some("delete"), _) => (),
            (Some(at), _, Value::Object(patch)) => {
                if let Some(Value::Object(map)) = old.get_mut(at) {
                    merge(map, patch, field)?;
                }
            }
            _ => old.push(cleaned(item, field)?),
        }
    }
    Ok(old)
}

/// A new element, without the directives in it.
fn cleaned(item: &Value, field: &str) -> Result<Value, String> {
    let Value::Object(patch) = item else { return Ok(item.clone()) };
    let mut made = Map::new();
    merge(&mut made, patch, field)?;
    Ok(made.into())
}
