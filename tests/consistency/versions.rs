//! The table of versions that have the same shape, against what API servers say of their fields.

use crate::api::Api;
use crate::plane::ControlPlane;
use kubectl_backup::rules::versions::ALIKE;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The schema of a kind in a version, with all that it refers to put in its place; `None` where it isn't served.
async fn schema(api: &Api, key: &str, version: &str) -> Option<Value> {
    let (resource, group) = key.split_once('.').expect("a group");
    let list = api.call(http::Method::GET, &format!("/apis/{group}/{version}"), None).await.ok()?;
    let served = list["resources"].as_array()?.iter().find(|served| served["name"] == resource)?.clone();
    let document = api.get(&format!("/openapi/v3/apis/{group}/{version}")).await;
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let is_it = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten();
        kinds
            .into_iter()
            .any(|kind| kind["group"] == group && kind["version"] == version && kind["kind"] == served["kind"])
    };
    Some(whole(schemas.values().find(is_it).expect("a schema"), schemas))
}

/// Puts in what is referred to, and leaves out what is for people.
fn whole(schema: &Value, schemas: &Map<String, Value>) -> Value {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                return whole(&schemas[name.trim_start_matches("#/components/schemas/")], schemas);
            }
            let kept = fields.iter().filter(|(key, value)| {
                // a property may be called so, too: then it is a schema. Which words a field takes isn't told of all versions
                !(*key == "description" && value.is_string()
                    || *key == "enum" && value.is_array()
                    // how patches are merged, and whose schema it is
                    || key.starts_with("x-kubernetes-"))
            });
            kept.map(|(key, value)| (key.clone(), whole(value, schemas))).collect()
        }
        Value::Array(items) => items.iter().map(|item| whole(item, schemas)).collect(),
        other => other.clone(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_are_exchanged_have_the_same_fields() {
    let all = "--runtime-config=api/all=true";
    let mut compared = BTreeMap::<&str, Vec<&str>>::new();
    let mut differ = Vec::new();
    for flags in [&[all][..], &["--older", all]] {
        let plane = ControlPlane::start(if flags.len() > 1 { "versions-older" } else { "versions" }, flags);
        let api = plane.api().await;
        for (key, versions) in ALIKE {
            let mut served = Vec::new();
            for version in *versions {
                served.extend(schema(&api, key, version).await.map(|schema| (*version, schema)));
            }
            for pair in served.windows(2) {
                if pair[0].1 != pair[1].1 {
                    differ.push(format!("{key}: {} and {}\n{}\n{}", pair[0].0, pair[1].0, pair[0].1, pair[1].1));
                }
                compared.entry(key).or_default().push(pair[1].0);
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    // the others are of API servers of long ago
    let gone = [
        "cronjobs.batch",
        "horizontalpodautoscalers.autoscaling",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "ingressclasses.networking.k8s.io",
        "priorityclasses.scheduling.k8s.io",
        "runtimeclasses.node.k8s.io",
    ];
    let missing: Vec<&str> =
        ALIKE.iter().map(|(key, _)| *key).filter(|key| !compared.contains_key(key) && !gone.contains(key)).collect();
    assert!(missing.is_empty(), "neither API server serves two versions of {missing:?}");
}
