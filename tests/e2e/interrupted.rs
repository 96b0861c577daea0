//! Promise 1 at its edges: killed workers, and two alive at once.

use crate::harness::{ClusterName::A, *};
use crate::proxy::Proxy;
use serde_json::Value;
use std::process::Stdio;

/// Starts a backup that goes on while the test acts.
pub(crate) fn begin(namespace: &str, location: &str) -> std::process::Child {
    let mut command = backup_command(A, &["ns", namespace, "--location", location, "-o", "json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

pub(crate) fn end(child: std::process::Child) -> Ran {
    Ran::ended(child)
}

/// The pods of the run that backs this namespace up, those that are alive.
pub(crate) fn live_pods(namespace: &str) -> Vec<String> {
    let pods = get(A, &["pods", "-n", "kubectl-backup", "-l", "kubectl-backup/verb=backup"]);
    let of_run = |pod: &&Value| {
        pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(namespace))
            && matches!(pod["status"]["phase"].as_str(), Some("Running" | "Pending"))
            && pod["metadata"]["deletionTimestamp"].is_null()
    };
    let name = |pod: &Value| pod["metadata"]["name"].as_str().expect("a name").to_owned();
    pods["items"].as_array().expect("items").iter().filter(of_run).map(name).collect()
}

pub(crate) fn kill(pod: &str) {
    kubectl(A, &["delete", "pod", "-n", "kubectl-backup", pod, "--grace-period=0", "--force"]).exits(0);
}

/// Kills the worker while it is at a request, and expects that the Job's next pod makes the one backup there is.
fn killed_at(name: &str, method: &str, path: &str) {
    let proxy = Proxy::start();
    let location = location_at(name, &proxy.endpoint());
    let location_name = add_location(name, &location);
    let namespace = TempNamespace::new(A, name);
    kubectl(A, &["create", "configmap", "-n", &namespace.name, "kept", "--from-literal=a=b"]).exits(0);
    proxy.hold(method, path, 1);
    let backup_run = begin(&namespace.name, &location_name);
    proxy.wait_held(1);
    assert_eq!(keys(&format!("{}/backups/", location.prefix)), [""; 0], "nothing is listed before the commit");
    let first = live_pods(&namespace.name);
    assert_eq!(first.len(), 1, "{first:?}");
    kill(&first[0]);
    proxy.release();
    let ran = end(backup_run).exits(0);
    let manifest = manifest(&location, ran.json()["id"].as_str().expect("an id"));
    assert_eq!(manifest["outcome"], "Complete", "{manifest}");
    let manifests = keys(&format!("{}/backups/", location.prefix));
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    let objects = manifest["files"]["objects"]["key"].as_str().expect("a key");
    assert!(keys(&location.prefix).iter().any(|key| key.ends_with(objects)), "the data of the backup is there");
    let listed = backup(A, &["list", "--refresh", "--location", &location_name, "-o", "json"]).exits(0).json();
    assert_eq!(listed["backups"].as_array().expect("backups").len(), 1, "{listed}");
}

#[test]
fn promise_1_a_worker_killed_in_the_middle_leaves_one_complete_backup() {
    killed_at("killed-middle", "PUT", "/objects.tar.zst");
}

#[test]
fn promise_1_a_worker_killed_before_the_manifest_leaves_one_complete_backup() {
    killed_at("killed-commit", "PUT", "/backups/");
}

#[test]
fn promise_1_of_two_live_workers_the_loser_changes_nothing_that_is_listed() {
    let proxy = Proxy::start();
    let location = location_at("two-workers", &proxy.endpoint());
    let location_name = add_location("two-workers", &location);
    let namespace = TempNamespace::new(A, "two-workers");
    proxy.hold("PUT", "/backups/", 1);
    let first = begin(&namespace.name, &location_name);
    proxy.wait_held(1);

    // a second worker of the same run, as when the kubelet of a lost node still runs the first
    let jobs = get(A, &["jobs", "-n", "kubectl-backup", "-l", "kubectl-backup/verb=backup"]);
    let mine = |job: &&Value| job["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(&namespace.name));
    let mut second = jobs["items"].as_array().expect("jobs").iter().find(mine).expect("the Job").clone();
    let name = format!("{}-second", namespace.name);
    let labels = serde_json::json!({"kubectl-backup/verb": "backup", "kubectl-backup/id": name});
    second["metadata"] = serde_json::json!({"name": name, "namespace": "kubectl-backup", "labels": labels});
    second["spec"].as_object_mut().expect("a spec").remove("selector");
    second["spec"]["template"]["metadata"]["labels"] = labels;
    second["status"] = Value::Null;
    apply(A, &second.to_string());
    kubectl(A, &["wait", "-n", "kubectl-backup", "--for=condition=Complete", &format!("job/{name}"), "--timeout=90s"])
        .exits(0);
    let manifests = keys(&format!("{}/backups/", location.prefix));
    assert_eq!(manifests.len(), 1, "{manifests:?}");
    let standing = download(&manifests[0]);

    proxy.release();
    let ran = end(first).exits(0);
    assert_eq!(download(&manifests[0]), standing, "the manifest that stands is not touched");
    let manifest: Value = serde_json::from_slice(&standing).expect("a manifest");
    assert_eq!(ran.json()["outcome"], "Complete", "the loser reports the backup that stands");
    let winner = manifest["attempt"].as_str().expect("an attempt");
    let left: Vec<String> = keys(&format!("{}/data/", location.prefix))
        .into_iter()
        .filter(|key| !key.contains(winner) && !key.ends_with("log.jsonl.zst"))
        .collect();
    assert_eq!(left, [""; 0], "the loser's data is swept");
    kubectl(A, &["delete", "job", "-n", "kubectl-backup", &name, "--wait=false"]).exits(0);
}
