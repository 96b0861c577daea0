//! What a restore changes is saved before, and undone; and restores of some of a backup.

use crate::harness::{ClusterName::A, *};
use crate::volumes::{Installed, Pv, REGION, ec2, handle};
use serde_json::{Value, json};

fn config_map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "data": {"colour": value}})
}

fn colour(namespace: &str, name: &str) -> Option<String> {
    let found = get(A, &["-n", namespace, "configmaps"]);
    let items = found["items"].as_array().expect("items");
    let one = items.iter().find(|item| item["metadata"]["name"] == name)?;
    one["data"]["colour"].as_str().map(str::to_owned)
}

fn patch(namespace: &str, name: &str, value: &str) {
    let patch = json!({"data": {"colour": value}}).to_string();
    kubectl(A, &["-n", namespace, "patch", "configmap", name, "--type=merge", "-p", &patch]).exits(0);
}

/// A namespace of which one object was changed and one deleted since the backup.
fn changed(prefix: &str) -> (TempNamespace, Location, String) {
    let namespace = TempNamespace::new(A, prefix);
    for name in ["kept", "lost", "same"] {
        apply(A, &config_map(&namespace.name, name, "saved").to_string());
    }
    let frozen = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "frozen", "namespace": namespace.name}, "immutable": true, "data": {"colour": "saved"}});
    apply(A, &frozen.to_string());
    let place = location(prefix);
    let id = backed_up(&namespace.name, &place)["id"].as_str().expect("an id").to_owned();
    kubectl(A, &["-n", &namespace.name, "delete", "configmap", "lost", "frozen"]).exits(0);
    let mut frozen = frozen;
    frozen["data"]["colour"] = json!("now");
    apply(A, &frozen.to_string());
    patch(&namespace.name, "kept", "now");
    (namespace, place, id)
}

#[test]
fn promise_6_a_restore_is_undone_and_can_be_undone_again() {
    let (namespace, place, id) = changed("undo");
    let name = &namespace.name;
    let at = |args: &[&str]| backup(A, &[args, &["--location", &place.url]].concat());
    let restored =
        at(&["restore", &id, "--existing=recreate", "--yes", "-o", "json"]).exits(0).says(&["takes it back"]).json();
    assert_eq!(verdicts(&restored)[&format!("configmaps {name}/lost")], "created");
    let is = |kept: &str, lost: Option<&str>, frozen: &str| {
        assert_eq!(colour(name, "kept").as_deref(), Some(kept));
        assert_eq!(colour(name, "lost").as_deref(), lost);
        assert_eq!(colour(name, "frozen").as_deref(), Some(frozen));
    };
    is("saved", Some("saved"), "saved");

    // it is on record, with the backup of what it changed
    let restores = at(&["list", "--restores", "-o", "json"]).exits(0).json();
    let record = &restores["restores"][0];
    assert_eq!((&record["created"], &record["recreated"]), (&json!(1), &json!(2)), "{record}");
    let safety = record["safety"].as_str().expect("a safety backup");
    // its log outlives its Job
    let restore = record["id"].as_str().expect("an id");
    kubectl(A, &["-n", "kubectl-backup", "delete", "job", restore]).exits(0);
    let log = at(&["logs", restore]).exits(0).stdout;
    assert!(log.contains("INFO phase Restoring"), "{log}");
    let list = at(&["list", "-o", "json"]).exits(0).json();
    let found = list["backups"].as_array().expect("backups").iter().find(|one| one["id"] == safety);
    assert_eq!(found.expect("it is listed")["safetyOf"], record["id"], "{list}");
    assert!(at(&["list"]).exits(0).stdout.contains("(safety)"));
    let shown = at(&["show", safety, "configmap/kept", "-o", "json"]).exits(0).stdout;
    assert!(shown.contains("\"now\"") && !shown.contains("\"saved\""), "{shown}");
    let latest = at(&["show", "latest", "-o", "json"]).exits(0).stdout;
    assert!(latest.contains("planted"), "a safety backup is nobody's latest: {latest}");

    let plan = at(&["undo", "--dry-run=client", "-o", "json"]).exits(0).json();
    assert_eq!(verdicts(&plan)[&format!("configmaps {name}/lost")], "delete", "{plan}");
    is("saved", Some("saved"), "saved");
    let undone = at(&["undo", "--yes", "-o", "json"]).exits(0).json();
    let verdict = |kind: &str| verdicts(&undone)[&format!("configmaps {name}/{kind}")].clone();
    assert_eq!([verdict("kept"), verdict("lost"), verdict("frozen")], ["updated", "deleted", "recreated"], "{undone}");
    is("now", None, "now");
    let listed = at(&["list", "--restores", "-o", "json"]).exits(0).json();
    assert!(listed["restores"][0]["undoneAt"].is_string(), "{listed}");
    at(&["undo", "--yes"]).exits(0).says(&["0 objects put back, 0 deleted"]);
    let bindings = kubectl(A, &["get", "clusterrolebindings", "-o", "name"]).exits(0).stdout;
    assert!(!bindings.contains("kubectl-backup-restore-undo-undo"), "{bindings}");
}

#[test]
fn an_undo_leaves_alone_what_somebody_changed_and_what_holds_more_than_the_restore_made() {
    let (namespace, place, id) = changed("since");
    let at = |args: &[&str]| backup_local(A, &[args, &["--location", &place.url]].concat());
    let copy = unique("since-copy");
    let mapping = format!("{}={copy}", namespace.name);
    at(&["restore", &id, "--map-namespace", &mapping, "--yes"]).exits(0);
    let (copy, name) = (TempCopy(copy), "kept");
    // the restore's second is over by now or soon
    let mut tries = 0;
    eventually("a second to pass", || {
        tries += 1;
        patch(&copy.0, name, &format!("mine-{tries}"));
        let live = get(A, &["-n", &copy.0, "configmap", name, "--show-managed-fields"]);
        let times: Vec<&str> =
            live["metadata"]["managedFields"].as_array()?.iter().filter_map(|entry| entry["time"].as_str()).collect();
        times.iter().any(|time| *time != times[0]).then_some(())
    });
    let undone = at(&["undo", "--yes", "-o", "json"]).exits(3).says(&["kubectl-patch", name]).json();
    let verdicts = verdicts(&undone);
    assert_eq!(verdicts[&format!("configmaps {}/{name}", copy.0)], "refused", "{undone}");
    assert_eq!(verdicts[&format!("configmaps {}/same", copy.0)], "deleted", "{undone}");
    assert_eq!(verdicts[&format!("namespaces /{}", copy.0)], "skip", "{undone}");
    assert!(colour(&copy.0, name).is_some_and(|colour| colour.starts_with("mine")));
    let restores = at(&["list", "--restores", "-o", "name"]).exits(0).stdout;
    let restore = restores.trim();
    at(&["undo", restore, "configmap/nothing", "--yes"]).exits(5).says(&["wrote no `configmap/nothing`", "hint:"]);
    at(&["undo", restore, "configmap/kept", "--yes"]).exits(0);
    assert_eq!(colour(&copy.0, name), None);
    at(&["undo", restore, &format!("namespace/{}", copy.0), "--yes"]).exits(0);
    eventually("the namespace to go", || (kubectl(A, &["get", "namespace", &copy.0]).code != 0).then_some(()));
}

#[test]
fn promise_6_what_a_restore_did_besides_is_taken_back_too() {
    let namespace = TempNamespace::new(A, "besides");
    let name = namespace.name.clone();
    let host = json!({"hostPath": {"path": "/tmp/kubectl-backup-besides"}});
    let volume = Pv::of(&name, "data", &format!("pv-{name}"), host);
    let pull = json!({"imagePullSecrets": [{"name": "registry"}]}).to_string();
    let pulls = || get(A, &["-n", &name, "serviceaccount", "default"])["imagePullSecrets"].clone();
    eventually("the default service account", || {
        (kubectl(A, &["-n", &name, "patch", "serviceaccount", "default", "-p", &pull]).code == 0).then_some(())
    });
    let place = location("besides");
    installed(A);
    let at = |args: &[&str]| backup(A, &[args, &["--location", &place.url]].concat());
    let ran = at(&["ns", &name, "--volumes=skip", "-o", "json"]).exits(0).json();
    let id = ran["id"].as_str().expect("an id").to_owned();
    let remembered = || get(A, &["pv", &volume.0])["spec"]["claimRef"]["uid"].as_str().map(str::to_owned);
    let was = remembered();
    namespace.delete();
    let restored = at(&["restore", &id, "--yes", "-o", "json"]).exits(0).json();
    assert_eq!(pulls(), json!([{"name": "registry"}]));
    eventually("the volume to be bound again", || (remembered().is_some() && remembered() != was).then_some(()));

    let mine = json!({"imagePullSecrets": [{"name": "registry"}, {"name": "mine"}]}).to_string();
    kubectl(A, &["-n", &name, "patch", "serviceaccount", "default", "-p", &mine]).exits(0);
    // every new namespace is given such an account; now and then the restore is quicker, and then it is its own
    let was_there = restored["notes"].to_string().contains("was there already");
    let undone = at(&["undo", "--yes", "-o", "json"]).json();
    let told = verdicts(&undone);
    if was_there {
        assert_eq!(told[&format!("serviceaccounts {name}/default")], "updated", "{undone}");
        assert_eq!(pulls(), json!([{"name": "mine"}]));
    }
    assert_eq!(told[&format!("persistentvolumes /{}", volume.0)], "skip", "{undone}");
    let restore = undone["restore"]["id"].as_str().expect("an id");
    at(&["undo", restore, "persistentvolumeclaim/data", "--yes"]).exits(0).says(&["1 object put back, 1 deleted"]);
    assert_eq!(remembered(), was, "the volume is released, by the claim that there was before");
    kubectl(A, &["-n", &name, "get", "pvc", "data"]).exits(1);
}

/// Undoes the last restore, into a namespace that was there: its claims stay with their volumes until they are named.
pub(crate) fn undo_copy(own: &Installed, namespace: &str, volumes: &[Pv; 2]) {
    let handles = ["data-db-0", "wal-db-0"].map(|claim| handle(namespace, claim).1);
    let left = || handles.iter().filter(|id| ec2().0.volumes(REGION).iter().any(|volume| volume.id == **id)).count();
    let undone = own.run(&["undo", "--yes", "-o", "json"]).exits(0).json();
    let note = undone["notes"]
        .as_array()
        .expect("notes")
        .iter()
        .find_map(|note| note.as_str()?.split_once("`kubectl backup "));
    let (stays, command) = note.expect("a note with a command");
    assert!(stays.contains("2 EBS volumes that the restore made stay, with data (2 GiB)"), "{undone}");
    assert_eq!(left(), 2);
    let command: Vec<&str> = command.split_once('`').expect("its end").0.split(' ').collect();
    assert_eq!(command[2..], ["persistentvolumeclaim/data-db-0", "persistentvolumeclaim/wal-db-0"]);
    for (verdict, dry_run) in [("delete", "--dry-run=client"), ("deleted", "--yes"), ("unchanged", "--yes")] {
        let args = [&command[..], &[dry_run, "-o", "json"]].concat();
        let told = verdicts(&own.run(&args).exits(0).json());
        let mine = handles.iter().map(|id| format!("ebs-volumes /{id}"));
        let mine = mine.chain(volumes.iter().map(|pv| format!("persistentvolumes /{}", pv.0)));
        for name in mine {
            assert_eq!(told.get(&name).map(String::as_str), Some(verdict), "{name}: {told:?}");
        }
        assert_eq!(left(), if verdict == "delete" { 2 } else { 0 });
    }
    kubectl(A, &["get", "pv", &volumes[0].0]).exits(1);
    own.run(&["undo", command[1], "--yes"]).exits(0);
}

/// Undoes the first restore, which made the namespace: with it go its pods, its claims and their volumes, once they are
/// detached.
pub(crate) fn undo_namespace(own: &Installed, namespace: &str, (pv, volume): (&str, &str)) {
    let restores = own.run(&["list", "--restores", "-o", "json"]).exits(0).json();
    let first = restores["restores"][0]["id"].as_str().expect("an id");
    let told = own.run(&["undo", first, &format!("namespace/{namespace}"), "--yes", "-o", "json"]).exits(0).json();
    assert_eq!(verdicts(&told)[&format!("ebs-volumes /{volume}")], "deleted", "{told}");
    kubectl(A, &["get", "pv", pv]).exits(1);
    assert!(!ec2().0.volumes(REGION).iter().any(|one| one.id == volume));
}

/// A namespace that something else than the test made; gone at the end.
struct TempCopy(String);

impl Drop for TempCopy {
    fn drop(&mut self) {
        kubectl(A, &["delete", "namespace", &self.0, "--wait=false", "--ignore-not-found"]);
    }
}

#[test]
fn from_a_read_only_location_what_changes_is_saved_elsewhere_or_stays() {
    let (namespace, place, id) = changed("read-only");
    let elsewhere = location("safety");
    let install = TempCopy(unique("kubectl-backup-ro"));
    let install = &install.0;
    install_at(install, &place, &elsewhere);
    let at = |args: &[&str]| backup(A, &[args, &["--install-namespace", install]].concat());
    let restore = ["restore", &id, "configmap/kept", "--existing=update", "--yes"];
    at(&restore).exits(2).says(&["--safety-location", "hint:"]);
    assert_eq!(colour(&namespace.name, "kept").as_deref(), Some("now"));
    at(&[&restore[..], &["--safety-location", "safety"]].concat()).exits(0);
    assert_eq!(colour(&namespace.name, "kept").as_deref(), Some("saved"));
    assert_eq!(keys(&format!("{}/restores/", place.prefix)), [""; 0]);
    at(&["undo", "--location", "safety", "--yes"]).exits(0);
    assert_eq!(colour(&namespace.name, "kept").as_deref(), Some("now"));
    // keys that nobody has are those of the safety location only: the backup is read, and nothing is changed
    at(&[&restore[..], &["--safety-location", "refused"]].concat()).exits(6);
    assert_eq!(colour(&namespace.name, "kept").as_deref(), Some("now"));
}

/// An installation with a read-only location, and others that are entered with keys instead of its role.
fn install_at(namespace: &str, place: &Location, safety: &Location) {
    install(A, namespace, "");
    let path = "jsonpath={.data.config\\.yaml}";
    let config =
        kubectl(A, &["get", "configmap", "-n", namespace, "kubectl-backup-config", "-o", path]).exits(0).stdout;
    let job = config.split_once("job:\n").expect("Job settings").1;
    let role = world().s3("ROLE_ARN_A");
    let (key, secret) = (world().s3("S3_ROOT_ACCESS_KEY_ID"), world().s3("S3_ROOT_SECRET_ACCESS_KEY"));
    for (name, key) in [("keys", key), ("nobodys", "nobody")] {
        let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}});
        apply(A, &keys.to_string());
    }
    let other =
        |name: &str, secret: &str| format!("  {name}:\n    url: {}\n    credentialsSecret: {secret}\n", safety.url);
    let locations = format!(
        "defaultLocation: main\nlocations:\n  main:\n    url: {}\n    roleArn: {role}\n    readOnly: true\n{}{}",
        place.url,
        other("safety", "keys"),
        other("refused", "nobodys")
    );
    write_config(A, namespace, &format!("{locations}job:\n{job}"));
}

#[test]
fn some_of_a_backup_is_restored_by_kind_label_and_namespace() {
    let (one, two) = (TempNamespace::new(A, "some"), TempNamespace::new(A, "some"));
    for namespace in [&one, &two] {
        for name in ["web", "db"] {
            apply(A, &config_map(&namespace.name, name, "saved").to_string());
        }
    }
    let place = location("some");
    installed(A);
    let at = |args: &[&str]| backup(A, &[args, &["--location", &place.url]].concat());
    let ran = at(&["cluster", "--include", "cm,secrets,ns", "--volumes=skip", "-o", "name"]);
    assert!(matches!(ran.code, 0 | 3), "{}", ran.stderr);
    let lose = || {
        for namespace in [&one, &two] {
            kubectl(A, &["-n", &namespace.name, "delete", "secret", "planted", "--ignore-not-found"]).exits(0);
            kubectl(A, &["-n", &namespace.name, "delete", "configmap", "web", "db", "--ignore-not-found"]).exits(0);
        }
    };
    let has = |namespace: &TempNamespace| {
        let there = |name: &str| colour(&namespace.name, name).is_some();
        let secret = kubectl(A, &["-n", &namespace.name, "get", "secret", "planted"]).code == 0;
        (there("web"), there("db"), secret)
    };
    let both = format!("{},{}", one.name, two.name);
    lose();
    at(&["restore", "latest", "-n", &one.name, "--yes"]).exits(0);
    assert_eq!((has(&one), has(&two)), ((true, true, true), (false, false, false)), "one namespace");
    lose();
    at(&["restore", "latest", "-n", &both, "--include", "cm", "-l", "app=web", "--yes"]).exits(0);
    assert_eq!((has(&one), has(&two)), ((true, false, false), (true, false, false)), "by label");
    lose();
    at(&["restore", "latest", "-n", &both, "--exclude", "secrets", "--exclude-namespace", &two.name, "--yes"]).exits(0);
    assert_eq!((has(&one), has(&two)), ((true, true, false), (false, false, false)), "all but");
    at(&["restore", "latest", "-n", &both, "-l", "app=nothing", "--yes"]).exits(5).says(&["app=nothing", "hint:"]);
    at(&["restore", "latest", "--include", "deplyo", "--yes"]).exits(2).says(&["deplyo"]);
    at(&["restore", "latest", "cm/web", "--include", "cm", "--yes"]).exits(2);
}
