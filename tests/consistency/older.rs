//! Restores onto an API server of an older minor version (`tests/cluster/older/go.mod` says which): what it doesn't serve, what it serves
//! in another version only, and fields that it doesn't know. And what only older ones ask of a caller.

use crate::engine::{Backups, run, verdict};
use crate::plane::ControlPlane;
use http::Method;
use kubectl_backup::cluster::connect::{ConnectOptions, from_kubeconfig};
use kubectl_backup::jobs;
use serde_json::{Value, json};
use std::time::Duration;

const NAMESPACE: &str = "shop";

/// The older one, which serves volume attributes classes in a beta version only.
fn older(name: &str) -> ControlPlane {
    let beta = ["--feature-gates=VolumeAttributesClass=true", "--runtime-config=storage.k8s.io/v1beta1=true"];
    ControlPlane::start(name, &[&["--older"][..], &beta].concat())
}

/// What is backed up, each with the path that it is posted to.
fn objects() -> Vec<(&'static str, Value)> {
    let meta = |name: &str| json!({"name": name, "labels": {"test": "older"}});
    let pod = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"hostnameOverride": "web.example.com",
        "containers": [{"name": "web", "image": "web:1"}]}});
    vec![
        ("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta(NAMESPACE)})),
        (
            "/api/v1/namespaces/shop/configmaps",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": {"a": "1"}}),
        ),
        (
            "/apis/apps/v1/namespaces/shop/deployments",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("web"),
                "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": pod}}),
        ),
        (
            "/apis/resource.k8s.io/v1/namespaces/shop/resourceclaimtemplates",
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": meta("gpu"),
                "spec": {"spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "gpu"}}]}}}}),
        ),
        (
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": meta("fast"),
                "driverName": "ebs.csi.aws.com", "parameters": {"iops": "4000"}}),
        ),
    ]
}

const TEMPLATES: &str = "resourceclaimtemplates.resource.k8s.io";
const CLASSES: &str = "volumeattributesclasses.storage.k8s.io";
const FIELD: &str = "spec.template.spec.hostnameOverride";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_older_api_server_does_not_know_is_told_and_the_rest_restored() {
    let backups = Backups::new();
    let newer = ControlPlane::start("newer", &[]);
    let api = newer.api().await;
    for (path, object) in objects() {
        api.post(path, &object).await;
    }
    let saved = backups.run(&newer, 0, &["cluster", "-l", "test=older"]);
    assert_eq!(saved.manifest.counts.objects, 5);
    assert_eq!(
        saved.of("deployments.apps")["web"].pointer("/spec/template/spec/hostnameOverride"),
        Some(&json!("web.example.com"))
    );
    drop(newer);

    let older = older("older");
    let api = older.api().await;
    let from = ["latest", "--from-cluster", &saved.manifest.cluster.uid];
    let restore = |more: &[&str]| run(&older, &backups, &[&["restore"], &from[..], more].concat());
    // the plan
    let (code, stdout, stderr) = restore(&["--dry-run=client", "-o", "json"]);
    assert_eq!(code, 3, "{stderr}");
    let plan: Value = serde_json::from_str(&stdout).expect("a plan");
    assert_eq!(verdict(&plan, TEMPLATES), ("not served".into(), "the cluster serves no such kind".into()));
    assert_eq!(["configmaps", "deployments.apps", CLASSES].map(|kind| verdict(&plan, kind).0), ["create"; 3]);
    let (code, ..) = restore(&["namespace/shop", "--yes"]);
    assert_eq!(code, 0);
    // with the namespace there, writes can be tried out: the field that would be lost is named
    let (code, stdout, stderr) = restore(&["--dry-run=server", "-o", "json"]);
    assert_eq!(code, 3, "{stderr}");
    let plan: Value = serde_json::from_str(&stdout).expect("a plan");
    let notes = plan["notes"].to_string();
    assert!(notes.contains(FIELD) && notes.contains("deployments.apps"), "{notes}");

    let (code, stdout, stderr) = restore(&["--yes", "-o", "json"]);
    assert_eq!(code, 3, "{stderr}");
    let done: Value = serde_json::from_str(&stdout).expect("a result");
    assert_eq!(verdict(&done, TEMPLATES).0, "not served");
    assert_eq!(["configmaps", "deployments.apps", CLASSES].map(|kind| verdict(&done, kind).0), ["created"; 3]);
    let problems = done["problems"].to_string();
    assert!(problems.contains(FIELD) && problems.contains("deployments.apps shop/web"), "{problems}");
    let web = api.get("/apis/apps/v1/namespaces/shop/deployments/web").await;
    assert_eq!(web.pointer("/spec/template/spec/hostnameOverride"), None);
    assert_eq!(web.pointer("/spec/template/spec/containers/0/image"), Some(&json!("web:1")));
    let class = api.get("/apis/storage.k8s.io/v1beta1/volumeattributesclasses/fast").await;
    assert_eq!((&class["driverName"], &class["parameters"]["iops"]), (&json!("ebs.csi.aws.com"), &json!("4000")));
    // and it can be backed up again, and compared
    let again = backups.run(&older, 0, &["ns", NAMESPACE]);
    assert!(again.manifest.cluster.version.starts_with("v1.33."), "{}", again.manifest.cluster.version);
    assert_eq!(again.elsewhere(), [""; 0], "its lists are of one revision, too");
}

/// Before Kubernetes 1.35 opening an exec took `get` on `pods/exec`, since then it takes `create`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_api_server_asks_for_get_to_fetch_a_result() {
    let older = older("older-exec");
    let api = older.api().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    for verb in ["get", "create"] {
        let user = format!("may-{verb}");
        let rules = json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": [verb]}]);
        let head = |kind: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": user}});
        let (mut role, mut binding) = (head("Role"), head("RoleBinding"));
        role["rules"] = rules;
        binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user});
        binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
        for (kind, object) in [("roles", role), ("rolebindings", binding)] {
            api.call(Method::POST, &format!("{rbac}/{kind}"), Some(&object)).await.expect("a role");
        }
    }
    let fetched = async |user: &str| {
        let options = ConnectOptions {
            kubeconfig: Some(older.kubeconfig()),
            impersonate: Some(user.to_owned()),
            ..ConnectOptions::default()
        };
        let client = from_kubeconfig(&options).await.expect("a client").cluster.client().clone();
        let mut out = Vec::new();
        jobs::result::fetch(&client, "default", "nobody", &mut out, Duration::from_secs(20)).await.expect_err("no pod")
    };
    let refused = fetched("may-create").await;
    assert_eq!(refused.exit_code() as i32, 6, "{refused}");
    assert!(refused.to_string().contains("pods/exec"), "{refused}");
    let let_through = fetched("may-get").await;
    assert_ne!(let_through.exit_code() as i32, 6, "{let_through}");
}
