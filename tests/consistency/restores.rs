//! Restores on a real API server: of objects that are odd in one way or another, and while it is killed and comes again.

use crate::api::{Api, DEFINITIONS, Kind, NAMESPACE, eventually};
use crate::engine::{Backup, Backups, run, verdict};
use crate::plane::ControlPlane;
use futures::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";
const SECRETS: &str = "/api/v1/namespaces/shop/secrets";
const SERVICES: &str = "/api/v1/namespaces/shop/services";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
/// A name that holds what separates the parts of a field selector.
const PUNCTUATED: &str = r"shop:a=b,c\d";
/// Near what etcd takes in one request (1.5 MiB).
const LARGE: usize = 1_400_000;
const TAKEN: u16 = 31_977;

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// An object that another one owns.
fn owned(name: &str, owner: &Value) -> Value {
    let reference = json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"]});
    json!({"metadata": {"name": name, "ownerReferences": [reference]}})
}

fn service(name: &str, port: u16) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})
}

/// A webhook for ConfigMaps whose service isn't there.
fn webhook() -> Value {
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    json!({"metadata": {"name": "gate"}, "webhooks": [{"name": "gate.example.com", "rules": [rule], "failurePolicy": "Fail",
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": NAMESPACE, "name": "nobody", "path": "/"}}}]})
}

/// Makes all that is odd; the name that was generated.
async fn odd(api: &Api) -> String {
    api.namespace().await;
    api.orders().await;
    for name in ["system:shop:reader.v1", "Shop:Reader"] {
        api.post(CLUSTER_ROLES, &json!({"metadata": {"name": name}, "rules": []})).await;
        api.post(ROLES, &json!({"metadata": {"name": name}, "rules": []})).await;
    }
    api.post(CLUSTER_ROLES, &json!({"metadata": {"name": PUNCTUATED}, "rules": []})).await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": PUNCTUATED});
    let binding = json!({"metadata": {"name": "punctuated"}, "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE}]});
    api.post(&ROLES.replace("/roles", "/rolebindings"), &binding).await;
    api.post(CONFIG_MAPS, &json!({"metadata": {"name": "a.b-c.d"}, "data": {"a": "1"}})).await;
    let mut large = json!({"apiVersion": "shop.example/v1", "kind": "Order", "metadata": {"name": "large"}});
    large["spec"] = json!({"text": "x".repeat(LARGE)});
    api.post(&Kind::Order.path(), &large).await;
    let generated = api.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "made-"}})).await;
    // each owner is of a kind that comes after that of its child
    let first = api.create(Kind::Order, "first").await;
    let second = api.post(CONFIG_MAPS, &owned("second", &first)).await;
    let second = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": second["metadata"]});
    api.post(SECRETS, &owned("third", &second)).await;
    api.post(SERVICES, &service("web", TAKEN)).await;
    api.post(WEBHOOKS, &webhook()).await;
    generated["metadata"]["name"].as_str().expect("a name").to_owned()
}

async fn all_is_there(api: &Api, saved: &Backup, generated: &str) {
    for path in [ROLES, CLUSTER_ROLES] {
        let list = api.get(path).await;
        let there = names(&list);
        assert!(["system:shop:reader.v1", "Shop:Reader"].iter().all(|name| there.contains(name)), "{there:?}");
    }
    assert_eq!(api.get(&format!("{CONFIG_MAPS}/a.b-c.d")).await["data"], json!({"a": "1"}));
    let large = api.get(&format!("{}/large", Kind::Order.path())).await;
    assert_eq!(large["spec"]["text"].as_str().map(str::len), Some(LARGE));
    let made = api.get(&format!("{CONFIG_MAPS}/{generated}")).await;
    assert_eq!(made["metadata"]["name"], generated, "it keeps the name that was generated");
    let first = api.get(&format!("{}/first", Kind::Order.path())).await;
    let second = api.get(&format!("{CONFIG_MAPS}/second")).await;
    let third = api.get(&format!("{SECRETS}/third")).await;
    assert_ne!(first["metadata"]["uid"], saved.of("orders.shop.example")["first"]["metadata"]["uid"]);
    for (child, owner) in [(&second, &first), (&third, &second)] {
        assert_eq!(child["metadata"]["ownerReferences"][0]["uid"], owner["metadata"]["uid"], "{child}");
    }
    assert_eq!(names(&api.get(WEBHOOKS).await), ["gate"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_odd_is_restored_as_well() {
    let backups = Backups::new();
    let plane = ControlPlane::start("odd", &[]);
    let generated = odd(&plane.api().await).await;
    // what a namespace needs of the cluster is asked for by name
    let needed = backups.run(&plane, 0, &["ns", NAMESPACE]);
    assert!(needed.of("clusterroles.rbac.authorization.k8s.io").contains_key(PUNCTUATED));
    let saved = backups.run(&plane, 0, &["cluster"]);
    drop(plane);

    let plane = ControlPlane::start("odd-restored", &[]);
    let api = plane.api().await;
    api.post("/api/v1/namespaces/default/services", &service("other", TAKEN)).await;
    let from = ["restore", "latest", "--from-cluster", &saved.manifest.cluster.uid, "-o", "json", "--yes"];
    let restore = |more: &[&str]| {
        let (code, stdout, stderr) = run(&plane, &backups, &[&from[..], more].concat());
        (code, serde_json::from_str::<Value>(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}")))
    };
    // one namespace: nothing that is cluster-wide comes with it but the namespace, and so its custom resources have no kind
    let (code, result) = restore(&["-n", NAMESPACE]);
    assert_eq!((code, verdict(&result, "orders.shop.example").0.as_str()), (3, "not served"));
    let kinds: Vec<&str> =
        result["items"].as_array().expect("items").iter().filter_map(|item| item["kind"].as_str()).collect();
    assert!(kinds.contains(&"namespaces") && !kinds.iter().any(|kind| kind.starts_with("cluster")), "{kinds:?}");
    assert!(!names(&api.get(CLUSTER_ROLES).await).contains(&"Shop:Reader"));
    let definition = format!("{DEFINITIONS}/orders.shop.example");
    assert!(api.call(Method::GET, &definition, None).await.is_err());
    // a node port that a person chose and somebody else has: the API server's word, and the way out
    let problems = result["problems"].to_string();
    assert!(problems.contains("services shop/web") && problems.contains("already allocated"), "{problems}");
    // the rest: the definition before what it defines, the webhook after what it would refuse
    api.delete_path("/api/v1/namespaces/default/services/other").await;
    for name in ["second", &generated, "a.b-c.d"] {
        api.delete_path(&format!("{CONFIG_MAPS}/{name}")).await;
    }
    api.delete_path(&format!("{SECRETS}/third")).await;
    let (code, result) = restore(&[]);
    assert_eq!(code, 0, "{}", result["problems"]);
    all_is_there(&api, &saved, &generated).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_killed_in_the_middle_of_a_restore_costs_time_only() {
    const MANY: usize = 2_500;
    let backups = Backups::new();
    let plane = ControlPlane::start("killed", &[]);
    let api = plane.api().await;
    api.namespace().await;
    let made = stream::iter(0..MANY).map(|number| {
        let (api, mut object) = (api.clone(), named(&format!("map-{number:04}")));
        // of an object without a field of its own the API server notes no manager
        object["data"] = json!({"number": number.to_string()});
        async move { api.post(CONFIG_MAPS, &object).await }
    });
    assert_eq!(made.buffer_unordered(16).count().await, MANY);
    let saved = backups.run(&plane, 0, &["ns", NAMESPACE]);
    drop(plane);

    let plane = ControlPlane::start("killed-restored", &[]);
    let api = plane.api().await;
    let from = &saved.manifest.cluster.uid;
    let restore = Command::new(env!("CARGO_BIN_EXE_kubectl-backup"))
        .args(["restore", "latest", "--from-cluster", from, "--local", "--yes", "-o", "json"])
        .args(["--location", &backups.url(), "--kubeconfig"])
        .arg(plane.kubeconfig())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    eventually("the restore to be in the middle", || async {
        let list = api.call(Method::GET, &format!("{CONFIG_MAPS}?limit=1"), None).await.ok()?;
        let more = list["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
        (more > 200).then_some(())
    })
    .await;
    plane.restart();
    let ended = restore.wait_with_output().expect("the program ends");
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{stderr}");
    let result: Value = serde_json::from_slice(&ended.stdout).expect("a result");
    let items = result["items"].as_array().expect("items");
    // also those of which no answer came: the API server knows whose they are
    let is_ours = |item: &&Value| item["name"].as_str().is_some_and(|name| name.starts_with("map-"));
    let others: Vec<&Value> = items.iter().filter(is_ours).filter(|item| item["verdict"] != "created").collect();
    assert!(others.is_empty(), "{others:?}");
    let list = plane.api().await.get(CONFIG_MAPS).await;
    let there: Vec<&str> = names(&list).into_iter().filter(|name| name.starts_with("map-")).collect();
    assert_eq!(there.len(), MANY);
}
