//! Kinds that a real API server serves in a version which isn't their group's preferred one: each is saved in its own, and comes back.

use crate::api::{Api, DEFINITIONS};
use crate::engine::{Backups, run};
use crate::plane::ControlPlane;
use serde_json::json;

const GROUP: &str = "works.example";
const KINDS: [(&str, &str, &str); 2] = [("pipes", "Pipe", "v1"), ("valves", "Valve", "v1beta1")];

fn path(plural: &str, version: &str) -> String {
    format!("/apis/{GROUP}/{version}/namespaces/plant/{plural}")
}

async fn define(api: &Api, plural: &str, kind: &str, version: &str) {
    let version = json!({"name": version, "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    let names = json!({"plural": plural, "singular": plural.trim_end_matches('s'), "kind": kind, "listKind": format!("{kind}List")});
    let body = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}")},
        "spec": {"group": GROUP, "scope": "Namespaced", "versions": [version], "names": names}});
    api.post(DEFINITIONS, &body).await;
    api.wait_condition(&format!("{plural}.{GROUP}"), "Established", "True").await;
    api.wait_discovered(&format!("{plural}.{GROUP}"), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_in_an_older_version_than_its_groups_preferred_one_is_saved_and_comes_back() {
    let plane = ControlPlane::start("preferred", &[]);
    let api = plane.api().await;
    api.post("/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "plant"}}))
        .await;
    for (plural, kind, version) in KINDS {
        define(&api, plural, kind, version).await;
        let object = json!({"apiVersion": format!("{GROUP}/{version}"), "kind": kind, "metadata": {"name": "main"},
            "spec": {"bore": 40, "version": version}});
        api.post(&path(plural, version), &object).await;
    }
    let group = api.get(&format!("/apis/{GROUP}")).await;
    assert_eq!(group["preferredVersion"]["version"], "v1", "{group}");

    let backups = Backups::new();
    let saved = backups.run(&plane, 0, &["ns", "plant"]);
    for (plural, _, version) in KINDS {
        let key = format!("{plural}.{GROUP}");
        assert_eq!(saved.of(&key)["main"]["apiVersion"], format!("{GROUP}/{version}"), "{key}");
        api.delete_path(&format!("{}/main", path(plural, version))).await;
    }
    assert_eq!(saved.elsewhere(), [""; 0], "and at one revision");
    let (code, _, stderr) = run(&plane, &backups, &["restore", "latest", "--yes"]);
    assert_eq!(code, 0, "{stderr}");
    for (plural, _, version) in KINDS {
        let restored = api.get(&format!("{}/main", path(plural, version))).await;
        assert_eq!(restored["spec"], json!({"bore": 40, "version": version}), "{plural}");
    }
}
