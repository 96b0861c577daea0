//! The verbs as a user runs them, in Jobs and with `--local`.

use crate::harness::{ClusterName::A, *};
use serde_json::Value;

/// Every verb against a location, by a runner that is either a Job or this process.
fn all_verbs(run: &dyn Fn(&[&str]) -> Ran, namespace: &TempNamespace) {
    let name = namespace.name.as_str();
    kubectl(A, &["-n", name, "create", "configmap", "settings", "--from-literal=colour=green"]).exits(0);
    kubectl(A, &["-n", name, "create", "secret", "generic", "db", "--from-literal=password=hunter2"]).exits(0);
    let told = run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id");
    assert!(id.starts_with(name) && told["outcome"] == "Complete", "{told}");

    let listed = run(&["list", "--refresh"]).exits(0);
    assert!(listed.stdout.contains(id) && listed.stdout.contains("Complete"), "{}", listed.stdout);
    let described = run(&["describe", &id[..id.len() - 2]]).exits(0);
    assert!(described.stdout.contains(id) && described.stdout.contains("configmaps"), "{}", described.stdout);
    let table = run(&["show", "latest"]).exits(0).stdout;
    assert!(table.contains("settings") && table.contains("secrets"), "{table}");
    let shown = run(&["show", &format!("latest:{name}"), "cm/settings", "-n", name]).exits(0).stdout;
    assert!(shown.contains("colour: green") && shown.contains("kind: ConfigMap"), "{shown}");
    let masked = run(&["show", "latest", "secrets/db", "-o", "json"]).exits(0);
    assert!(masked.stdout.contains("********") && !masked.stdout.contains("aHVudGVyMg"), "{}", masked.stdout);
    let revealed = run(&["show", "latest", "secrets/db", "--reveal", "-o", "json"]).exits(0);
    assert!(revealed.stdout.contains("aHVudGVyMg"), "{}", revealed.stdout);
    let log = run(&["logs", id]).exits(0).stdout;
    assert!(log.contains("Saving") || log.contains("saved"), "{log}");

    kubectl(A, &["-n", name, "delete", "configmap", "settings"]).exits(0);
    kubectl(A, &["-n", name, "delete", "secret", "db"]).exits(0);
    let plan = run(&["restore", id, "configmap/settings", "--dry-run=client", "-o", "json"]).exits(0).json();
    let created: Vec<String> =
        verdicts(&plan).into_iter().filter(|(_, verdict)| verdict == "create").map(|(item, _)| item).collect();
    assert_eq!(created, [format!("configmaps {name}/settings")], "only what was named");
    run(&["restore", id, "configmap/settings", "--yes"]).exits(0);
    let settings = get(A, &["-n", name, "configmap", "settings"]);
    assert_eq!(settings["data"]["colour"], "green");
    kubectl(A, &["-n", name, "get", "secret", "db"]).exits(1);
}

#[test]
fn every_verb_in_a_job() {
    installed(A);
    let (location, namespace) = (location("verbs"), TempNamespace::new(A, "verbs"));
    all_verbs(&|args| backup(A, &[args, &["--location", &location.url]].concat()), &namespace);
}

#[test]
fn every_verb_on_the_laptop_with_a_bucket() {
    let (location, namespace) = (location("local"), TempNamespace::new(A, "local"));
    all_verbs(&|args| backup_local(A, &[args, &["--location", &location.url]].concat()), &namespace);
}

#[test]
fn every_verb_on_the_laptop_with_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("file://{}", folder.path().display());
    let namespace = TempNamespace::new(A, "folder");
    all_verbs(&|args| backup_local(A, &[args, &["--location", &url]].concat()), &namespace);
    let manifests = std::fs::read_dir(folder.path().join("backups")).expect("backups").count();
    assert_eq!(manifests, 1);
}

#[test]
fn the_whole_cluster_and_one_namespace_out_of_it() {
    installed(A);
    let (location, namespace) = (location("cluster"), TempNamespace::new(A, "cluster"));
    kubectl(A, &["-n", &namespace.name, "create", "configmap", "settings", "--from-literal=a=b"]).exits(0);
    let at = ["--location", &location.url];
    // other tests define and delete kinds meanwhile: one that goes while it is listed makes a backup partial, rightly
    let told = eventually("a complete backup of the cluster", || {
        let ran = backup(A, &[&["cluster", "--volumes=skip", "-o", "json"][..], &at].concat());
        (ran.code == 0).then(|| ran.json())
    });
    let manifest = manifest(&location, told["id"].as_str().expect("an id"));
    assert_eq!(manifest["scope"], "cluster");
    assert!(manifest["counts"]["objects"].as_u64().is_some_and(|objects| objects > 200), "{manifest}");
    namespace.delete();
    let id = manifest["id"].as_str().expect("an id");
    let args = ["restore", id, "-n", &namespace.name, "--yes", "-o", "json"];
    let result = backup(A, &[&args[..], &at].concat()).exits(0).json();
    let foreign: Vec<String> = verdicts(&result).into_keys().filter(|item| !item.contains(&namespace.name)).collect();
    assert_eq!(foreign, [""; 0], "nothing else is touched");
    kubectl(A, &["-n", &namespace.name, "get", "configmap", "settings"]).exits(0);
}

#[test]
fn an_empty_namespace_and_odd_names() {
    installed(A);
    let (location, namespace) = (location("odd"), TempNamespace::empty(A, "odd"));
    let at = ["--location", &location.url];
    let empty = backup(A, &[&["ns", &namespace.name, "-o", "json"][..], &at].concat()).exits(0).json();
    assert!(empty["objects"].as_u64().is_some_and(|objects| (1..=3).contains(&objects)), "{empty}");

    let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(long.len(), 253);
    kubectl(A, &["-n", &namespace.name, "create", "configmap", &long, "--from-literal=a=b"]).exits(0);
    for name in ["team:Reader one", "team:reader one"] {
        kubectl(A, &["-n", &namespace.name, "create", "role", name, "--verb=get", "--resource=pods"]).exits(0);
    }
    backup(A, &[&["ns", &namespace.name][..], &at].concat()).exits(0);
    namespace.delete();
    let result = backup(A, &[&["restore", "latest", "--yes", "-o", "json"][..], &at].concat()).exits(0).json();
    assert!(!verdicts(&result).values().any(|verdict| verdict == "failed"), "{result}");
    kubectl(A, &["-n", &namespace.name, "get", "configmap", &long]).exits(0);
    let roles = get(A, &["-n", &namespace.name, "roles"]);
    let names: Vec<&str> =
        roles["items"].as_array().expect("items").iter().filter_map(|role| role["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["team:Reader one", "team:reader one"]);
}

#[test]
fn owners_come_first_and_children_get_their_new_uids() {
    installed(A);
    let (location, namespace) = (location("owners"), TempNamespace::new(A, "owners"));
    let at = ["--location", &location.url];
    let name = namespace.name.as_str();
    // a ConfigMap that owns a Secret, and a Secret whose owner is gone
    kubectl(A, &["-n", name, "create", "secret", "generic", "owner", "--from-literal=a=b"]).exits(0);
    kubectl(A, &["-n", name, "create", "secret", "generic", "gone", "--from-literal=a=b"]).exits(0);
    let uid = |object: &str| get(A, &["-n", name, object])["metadata"]["uid"].as_str().expect("a uid").to_owned();
    for (child, owner) in [("child", "owner"), ("orphan", "gone")] {
        let reference = serde_json::json!([{"apiVersion": "v1", "kind": "Secret", "name": owner, "uid": uid(&format!("secret/{owner}"))}]);
        let object = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": child, "namespace": name, "ownerReferences": reference}});
        apply(A, &object.to_string());
    }
    let old = uid("secret/owner");
    kubectl(A, &["-n", name, "label", "secret", "gone", "kubectl-backup/exclude=true"]).exits(0);
    backup(A, &[&["ns", name][..], &at].concat()).exits(0);
    namespace.delete();
    let result = backup(A, &[&["restore", "latest", "--yes", "-o", "json"][..], &at].concat()).exits(0).json();
    kubectl(A, &["-n", name, "get", "secret", "gone"]).exits(1);
    let new = uid("secret/owner");
    assert_ne!(old, new);
    assert_eq!(get(A, &["-n", name, "configmap/child"])["metadata"]["ownerReferences"][0]["uid"], Value::from(new));
    assert_eq!(get(A, &["-n", name, "configmap/orphan"])["metadata"]["ownerReferences"], Value::Null);
    assert!(result["notes"].to_string().contains("orphan"), "{}", result["notes"]);
}

#[test]
fn a_detached_run_goes_on_and_can_be_followed() {
    installed(A);
    let (location, namespace) = (location("detached"), TempNamespace::new(A, "detached"));
    let at = ["--location", &location.url];
    let ran = backup(A, &[&["ns", &namespace.name, "--wait=false", "-o", "name"][..], &at].concat()).exits(0);
    let id = ran.stdout.trim().rsplit('/').next().expect("an id").to_owned();
    ran.says(&["kubectl backup logs", &id]);
    let log = backup(A, &[&["logs", &id, "-f"][..], &at].concat()).exits(0).stdout;
    assert!(!log.is_empty());
    eventually("the backup to be there", || {
        backup(A, &[&["describe", &id][..], &at].concat()).stdout.contains("Complete").then_some(())
    });
}

#[test]
fn list_answers_from_what_the_last_worker_left() {
    let location = location("cached");
    let name = add_location("cached", &location);
    let namespace = TempNamespace::new(A, "cached");
    backup(A, &["ns", &namespace.name, "--location", &name]).exits(0);
    let listed = backup(A, &["list", "--location", &name]).exits(0);
    assert!(listed.stdout.contains(&namespace.name), "{}", listed.stdout);
    listed.says(&["--refresh"]);
    let jobs = get(A, &["jobs", "-n", "kubectl-backup", "-l", "kubectl-backup/verb=list"]);
    let of_this =
        |job: &&Value| job["spec"]["template"]["spec"]["containers"][0]["env"].to_string().contains(&location.prefix);
    assert_eq!(jobs["items"].as_array().expect("items").iter().filter(of_this).count(), 0, "no Job was needed");
}

#[test]
fn the_binary_starts_without_a_cluster_where_none_is_needed() {
    let version = backup(A, &["version", "--client"]).exits(0).stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let manifests =
        backup(A, &["init", "--print", "--location", "s3://some-bucket/x?region=eu-central-1"]).exits(0).stdout;
    assert!(manifests.contains("kind: ClusterRole") && manifests.contains("some-bucket"), "{manifests}");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &manifests).expect("a file");
    kubectl(A, &["apply", "--dry-run=client", "-f", file.path().to_str().expect("a path")]).exits(0);
}
