//! EBS volumes that the CSI driver makes: the real csi-provisioner fills claims from snapshots of a backup, which a restore
//! imports as VolumeSnapshots, with the real snapshot controller and csi-snapshotter.

use crate::harness::{ClusterName::A, *};
use crate::volumes::{Installed, REGION, apply_database_of, ec2, handle, ready, shell, volume};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What restores make for the CSI driver in a namespace.
fn helpers(namespace: &str) -> Vec<String> {
    let names = |args: &[&str]| {
        let items = get(A, args)["items"].as_array().cloned().unwrap_or_default();
        let of = |one: &Value| {
            let of = one["spec"]["volumeSnapshotRef"]["namespace"].as_str();
            of.is_none_or(|of| of == namespace).then(|| one["metadata"]["name"].as_str().expect("a name").to_owned())
        };
        items.iter().filter_map(of).collect::<Vec<_>>()
    };
    [names(&["volumesnapshotcontents"]), names(&["volumesnapshots", "-n", namespace])].concat()
}

/// Lets EC2 know of the volume that the driver has made for a claim.
fn register(namespace: &str, claim: &str) -> String {
    let (_, id) = handle(namespace, claim);
    ec2().0.add_volume(REGION, volume(&id));
    id
}

fn claim(namespace: &str, name: &str, class: &str) {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}});
    let meta = json!({"namespace": namespace, "name": name});
    apply(A, &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}).to_string());
}

fn is_bound(namespace: &str, claim: &str) {
    let claim = format!("pvc/{claim}");
    kubectl(A, &["wait", "-n", namespace, &claim, "--for=jsonpath={.status.phase}=Bound", "--timeout=90s"]).exits(0);
}

/// A pod with a claim mounted, which does this and waits.
fn pod(namespace: &str, claim: &str, script: &str) {
    let container = json!({"name": "db", "image": "localhost/bb:1", "imagePullPolicy": "Never",
        "args": ["-c", format!("{script}; trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done")],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]});
    let meta = json!({"namespace": namespace, "name": "db-0"});
    apply(A, &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}).to_string());
    kubectl(A, &["wait", "-n", namespace, "pod/db-0", "--for=condition=Ready", "--timeout=90s"]).exits(0);
}

/// How often EC2 was asked to make a volume of one of these snapshots.
fn made_of(copies: &Value) -> usize {
    let ids: Vec<&str> = (0..2).filter_map(|at| copies[at]["snapshot"]["id"].as_str()).collect();
    let of = |query: &str| ids.iter().any(|id| query.contains(id));
    ec2().0.calls("CreateVolume").iter().filter(|call| of(&format!("{:?}", call.query))).count()
}

#[test]
fn promise_4_the_csi_driver_fills_claims_with_what_was_saved_here_and_under_another_name() {
    let own = Installed::new("imports");
    let namespace = TempNamespace::new(A, "imports");
    let name = &namespace.name;
    // one waits for its pod, the other one doesn't
    apply_database_of(name, ["ebs", "ebs-at-once"]);
    let volumes = [register(name, "data-db-0"), register(name, "wal-db-0")];
    shell(name, "echo old >/data/f; echo 41 >/wal/f; sync");
    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id").to_owned();
    let copies = own.report(&id)["volumes"].clone();
    shell(name, "echo new >/data/f; rm /wal/f; sync");
    namespace.delete();

    let plan = own.run(&["restore", &id, "--dry-run=client", "-o", "json"]).exits(0).json();
    let notes = plan["notes"].to_string();
    assert!(
        notes.contains("`ebs.csi.aws.com` makes a volume of at least 1 GiB as storage class `ebs` says"),
        "{notes}"
    );
    let by_us =
        own.run(&["restore", &id, "--dry-run=client", "--import-snapshots=false", "-o", "json"]).exits(0).json();
    let notes = by_us["notes"].to_string();
    assert!(notes.contains("(not imported: `--import-snapshots=false` is given)"), "{notes}");
    assert_ne!(plan["planDigest"], by_us["planDigest"], "who makes a volume is part of the plan");

    own.run(&["restore", &id, "--yes", "-o", "json"]).exits(0);
    ready(name);
    assert_eq!(shell(name, "cat /data/f /wal/f"), "old\n41\n");
    let (pv, new) = handle(name, "data-db-0");
    assert!(!volumes.contains(&new), "a volume of its own");
    assert_eq!(get(A, &["pv", &pv])["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], "ebs.csi.aws.com");
    assert_eq!(made_of(&copies), 0, "EC2 was asked for no volume by us");
    eventually("the objects of the import to go", || helpers(name).is_empty().then_some(()));
    let kept = |at: usize| ec2().0.snapshots(REGION).iter().any(|one| copies[at]["snapshot"]["id"] == *one.id);
    assert!(kept(0) && kept(1), "the backup keeps its snapshots");

    // again: all is there, and no PersistentVolume comes back whose claim has another one
    let again = own.run(&["restore", &id, "--yes", "-o", "json"]).exits(0).json();
    assert!(!again["items"].to_string().contains("\"created\""), "{again}");

    // beside it, and what is restored is saved like everything else
    let copy = TempNamespace::new(A, "imports-copy");
    let mapping = format!("{name}={}", copy.name);
    own.run(&["restore", &id, "--map-namespace", &mapping, "--yes", "-o", "json"]).exits(0);
    ready(&copy.name);
    assert_eq!(shell(&copy.name, "cat /data/f /wal/f"), "old\n41\n");
    let (_, another) = handle(&copy.name, "data-db-0");
    assert!(another != new && handle(name, "data-db-0") == (pv, new), "the first one's is not touched");
    assert_eq!(made_of(&copies), 0);
}

#[test]
fn a_claim_that_waits_for_its_first_pod_has_its_data_then() {
    let own = Installed::new("imports-wait");
    let namespace = TempNamespace::new(A, "imports-wait");
    let name = &namespace.name;
    claim(name, "data", "ebs");
    pod(name, "data", "echo old >/data/f; sync");
    register(name, "data");
    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id").to_owned();
    namespace.delete();
    let restored = own.run(&["restore", &id, "pvc/data", "--yes", "-o", "json"]).exits(0).json();
    let notes = restored["notes"].to_string();
    assert!(notes.contains("gets its volume when the first pod mounts it"), "{notes}");
    let of_import = |item: &&Value| item["kind"].as_str().is_some_and(|kind| kind.ends_with("snapshot.storage.k8s.io"));
    let items: Vec<&Value> = restored["items"].as_array().expect("items").iter().filter(of_import).collect();
    assert!(items.len() == 2 && items.iter().all(|item| item["uid"].is_string()), "undo finds them: {items:?}");
    assert_eq!(helpers(name).len(), 2);
    let undone = own.run(&["undo", "--yes", "-o", "json"]).exits(0).json();
    let deleted = |item: &&Value| item["verdict"] == "deleted";
    assert_eq!(undone["items"].as_array().expect("items").iter().filter(deleted).count(), 2, "{undone}");
    // the controller keeps a VolumeSnapshot as long as a claim waits for it, and that is kept by an undo of all
    kubectl(A, &["delete", "pvc", "data", "-n", name, "--timeout=60s"]).exits(0);
    eventually("them to go", || helpers(name).is_empty().then_some(()));

    own.run(&["restore", &id, "pvc/data", "--yes", "-o", "json"]).exits(0);
    // they are no business of a backup
    let told = own.run(&["ns", name, "-o", "json", "--volumes=skip"]).exits(0).json();
    let held = own.run(&["show", told["id"].as_str().expect("an id"), "-o", "json"]).exits(0).stdout;
    assert!(!held.contains("\"volumesnapshots"), "{held}");

    pod(name, "data", "true");
    assert_eq!(shell(name, "cat /data/f"), "old\n");
    own.run(&["restore", &id, "pvc/data", "--yes", "-o", "json"]).exits(0);
    eventually("what the claim was filled from to go", || helpers(name).is_empty().then_some(()));
}

/// Keeps the driver from seeing a snapshot, or from using it, as long as this is there.
struct Kept(PathBuf);

impl Kept {
    fn from(how: &str, snapshot: &str) -> Self {
        let file = PathBuf::from(world().of(A, "STATE")).join(format!("volumes/ebs/{snapshot}.{how}"));
        std::fs::write(&file, "").expect("a file");
        Self(file)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("the file");
    }
}

#[test]
fn promise_2_what_the_driver_says_of_a_snapshot_it_may_not_use_is_told() {
    let own = Installed::new("imports-denied");
    let namespace = TempNamespace::new(A, "imports-denied");
    let name = &namespace.name;
    claim(name, "data", "ebs-at-once");
    is_bound(name, "data");
    register(name, "data");
    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id").to_owned();
    let snapshot = own.report(&id)["volumes"][0]["snapshot"]["id"].as_str().expect("an id").to_owned();
    namespace.delete();
    // what it doesn't see ends the restore before anything is written
    let hidden = Kept::from("hidden", &snapshot);
    let ran = own.run(&["restore", &id, "--yes"]).exits(1);
    ran.says(&["ebs.csi.aws.com says:", "can not find snapshot", "nothing was written", "--import-snapshots=false"]);
    kubectl(A, &["get", "namespace", name]).exits(1);
    eventually("what was made for the import to go", || helpers(name).is_empty().then_some(()));
    drop(hidden);
    // what it may not use is known only when it makes the volume
    let denied = Kept::from("denied", &snapshot);
    let restored = own.run(&["restore", &id, "--yes", "-o", "json"]).exits(3).json();
    let problems = restored["problems"].to_string();
    let parts = ["UnauthorizedOperation: the role may not use", "--import-snapshots=false", "docs/volumes.md"];
    assert!(parts.iter().all(|part| problems.contains(part)), "{problems}");
    drop(denied);
    is_bound(name, "data"); // the driver goes on by itself
}
