//! EBS volumes: real pods write real files, through a stand-in for the EBS CSI driver (`tests/cluster/csi`), to volumes that
//! a stand-in for EC2 (`tests/ec2/standin`) keeps as files, snapshots included. The real csi-attacher attaches them, where
//! they have the tags for that; the snapshot controller and csi-snapshotter are the real ones, too.

use crate::harness::{ClusterName::A, *};
use crate::proxy::Proxy;
use crate::standin::{Settings, Standin, Volume};
use crate::undo::{undo_copy, undo_namespace};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) const REGION: &str = "us-east-1";
const ZONE: &str = "us-east-1a";
/// The node, to EC2.
const MACHINE: &str = "i-0a0a0a0a";

/// EC2, and where pods reach it.
pub(crate) fn ec2() -> &'static (Standin, String) {
    static EC2: OnceLock<(Standin, String)> = OnceLock::new();
    EC2.get_or_init(|| {
        let begun = Instant::now();
        let folder = PathBuf::from(world().of(A, "STATE")).join("volumes/ebs");
        assert!(
            folder.is_dir(),
            "there is no {}: start the CSI stand-in with tests/cluster/csi up a",
            folder.display()
        );
        let settings = Settings {
            snapshot_takes: Duration::from_millis(1500),
            hidden_for: Duration::from_secs(1),
            volume_takes: Duration::from_millis(500),
            began: jiff::Timestamp::now(),
            folder: Some(folder),
        };
        let ec2 = Standin::new(settings, move || begun.elapsed());
        ec2.in_region(REGION, |region| region.add_instance(MACHINE, "/dev/xvda"));
        let address = format!("{}:0", world().of(A, "HOST_IP")).parse().expect("an address");
        let bound = ec2.serve(address);
        (ec2, format!("http://{bound}"))
    })
}

/// An installation whose Jobs talk to the stand-in, and a location of its own.
pub(crate) struct Installed {
    pub(crate) namespace: TempNamespace,
    pub(crate) location: Location,
}

impl Installed {
    pub(crate) fn new(name: &str) -> Self {
        Self::at(name, world().s3("S3_ENDPOINT"))
    }

    /// One that may run commands in pods.
    fn with_hooks(name: &str, endpoint: &str) -> Self {
        let own = Self::at(name, endpoint);
        backup(A, &["init", "--install-namespace", &own.namespace.name, "--hooks"]).exits(0);
        own
    }

    pub(crate) fn at(name: &str, endpoint: &str) -> Self {
        Self::with_env(name, endpoint, "")
    }

    /// One with more variables in its Jobs, as lines of YAML.
    pub(crate) fn with_env(name: &str, endpoint: &str, more: &str) -> Self {
        let namespace = TempNamespace::new(A, &format!("kubectl-backup-{name}"));
        install(A, &namespace.name, &format!("  env:\n    AWS_ENDPOINT_URL_EC2: {}\n{more}", ec2().1));
        let location = location_at(name, endpoint);
        let role = world().s3("ROLE_ARN_A");
        let args = ["init", "--install-namespace", &namespace.name, "--location", &format!("own={}", location.url)];
        let args: Vec<&str> = args.into_iter().chain(["--role-arn", role]).collect();
        backup(A, &args).exits(0);
        Self { namespace, location }
    }

    pub(crate) fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        let own = ["--install-namespace", &self.namespace.name, "--location", "own"];
        args.iter().copied().chain(own).collect()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        backup(A, &self.args(args))
    }

    /// Backs a namespace up; its report.
    pub(crate) fn report(&self, id: &str) -> Value {
        self.run(&["describe", id, "-o", "json"]).exits(0).json()["report"].clone()
    }
}

/// A PersistentVolume of the driver, bound to a claim. Removed in the end, with the volume's file.
pub(crate) struct Pv(pub(crate) String);

impl Pv {
    pub(crate) fn new(namespace: &str, claim: &str, volume: Volume) -> Self {
        let name = format!("pv-{namespace}-{claim}");
        let source = json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": volume.id, "fsType": "ext4"}});
        ec2().0.add_volume(REGION, volume);
        Self::of(namespace, claim, &name, source)
    }

    pub(crate) fn of(namespace: &str, claim: &str, name: &str, source: Value) -> Self {
        let mut spec = json!({
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": namespace, "name": claim}
        });
        spec.as_object_mut().expect("a spec").extend(source.as_object().expect("a source").clone());
        apply(
            A,
            &json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
                .to_string(),
        );
        let claim_spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name,
                                "resources": {"requests": {"storage": "1Gi"}}});
        let object = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
                            "metadata": {"namespace": namespace, "name": claim}, "spec": claim_spec});
        apply(A, &object.to_string());
        let bound =
            ["wait", "-n", namespace, &format!("pvc/{claim}"), "--for=jsonpath={.status.phase}=Bound", "--timeout=60s"];
        kubectl(A, &bound).exits(0);
        Self(name.to_owned())
    }

    fn delete(&self) {
        kubectl(A, &["delete", "pv", &self.0, "--timeout=60s", "--ignore-not-found"]).exits(0);
    }
}

impl Drop for Pv {
    fn drop(&mut self) {
        kubectl(A, &["delete", "pv", &self.0, "--wait=false", "--ignore-not-found"]);
    }
}

/// A volume as the driver makes it.
pub(crate) fn volume(id: &str) -> Volume {
    let tags = [("ebs.csi.aws.com/cluster".to_owned(), "true".to_owned())].into();
    Volume { gib: 1, tags, ..Volume::gp3(id, ZONE) }
}

pub(crate) fn id_of(name: &str) -> String {
    let hex: String = unique(name).bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("vol-0{hex}")
}

/// A database that keeps its data on two volumes.
fn apply_database(namespace: &str) {
    apply_database_of(namespace, ["", ""]);
}

/// The same, with a storage class for each of them.
pub(crate) fn apply_database_of(namespace: &str, classes: [&str; 2]) {
    let mount = |name: &str| json!({"name": name, "mountPath": format!("/{name}")});
    let template = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
               "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let container = json!({"name": "db", "image": "localhost/bb:1", "imagePullPolicy": "Never",
        "args": ["-c", "trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done"],
        "volumeMounts": [mount("data"), mount("wal")]});
    let spec = json!({"serviceName": "db", "replicas": 1, "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}},
                     "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}},
        "volumeClaimTemplates": [template("data", classes[0]), template("wal", classes[1])]});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": namespace, "name": "db"}, "spec": spec});
    apply(A, &set.to_string());
    ready(namespace);
}

pub(crate) fn ready(namespace: &str) {
    kubectl(A, &["-n", namespace, "rollout", "status", "statefulset/db", "--timeout=90s"]).exits(0);
}

pub(crate) fn shell(namespace: &str, script: &str) -> String {
    kubectl(A, &["-n", namespace, "exec", "db-0", "--", "/bin/sh", "-c", script]).exits(0).stdout
}

pub(crate) fn handle(namespace: &str, claim: &str) -> (String, String) {
    let object = get(A, &["-n", namespace, "pvc", claim]);
    let pv = object["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    let handle = get(A, &["pv", &pv])["spec"]["csi"]["volumeHandle"].as_str().expect("a handle").to_owned();
    (pv, handle)
}

#[test]
fn promise_4_the_data_on_volumes_comes_back_here_and_under_another_name() {
    let own = Installed::new("volumes");
    let namespace = TempNamespace::new(A, "volumes");
    let name = &namespace.name;
    let (data, wal) = (id_of("data"), id_of("wal"));
    let fast = Volume { iops: Some(6000), throughput: Some(250), ..volume(&data) };
    let volumes = [Pv::new(name, "data-db-0", fast), Pv::new(name, "wal-db-0", volume(&wal))];
    apply_database(name);
    shell(name, "echo old >/data/f; echo 41 >/wal/f; sync");

    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id").to_owned();
    let saved = manifest(&own.location, &id);
    assert_eq!((&saved["outcome"], &saved["counts"]["volumes"]), (&json!("Complete"), &json!(2)), "{saved}");
    let skew = saved["consistency"]["skewSeconds"].as_f64().expect("a number");
    assert!(skew > 0.0 && skew < 60.0, "{skew}");
    let copies = own.report(&id)["volumes"].clone();
    assert_eq!((&copies[0]["source"]["id"], &copies[0]["snapshot"]["state"]), (&json!(data), &json!("completed")));
    assert_eq!((&copies[0]["source"]["iops"], &copies[0]["source"]["zoneId"]), (&json!(6000), &json!("ue1-az1")));
    // attached to one machine, and so taken together, unless another test's volume came or went at that moment
    let on: Vec<&Value> = (0..2).map(|at| &copies[at]["snapshot"]["togetherOn"]).collect();
    assert!(on[0] == on[1] && (on[0].is_null() || on[0] == MACHINE), "{copies}");
    own.run(&["describe", &id]).exits(0);

    shell(name, "echo new >/data/f; rm /wal/f; sync");
    namespace.delete();
    volumes.iter().for_each(Pv::delete);
    let plan = own.run(&["restore", &id, "--dry-run=client", "-o", "json"]).exits(0).json();
    let notes = plan["notes"].to_string();
    assert!(notes.contains("a new gp3 volume of 1 GiB is made in `us-east-1a` from snapshot"), "{notes}");
    own.run(&["restore", &id, "--yes", "-o", "json"]).exits(0);
    ready(name);
    assert_eq!(shell(name, "cat /data/f /wal/f"), "old\n41\n");
    let (pv, new) = handle(name, "data-db-0");
    assert_eq!(pv, volumes[0].0, "its name was free");
    let made = ec2().0.volumes(REGION).into_iter().find(|volume| volume.id == new).expect("a volume");
    assert_eq!((made.iops, made.throughput, made.zone.as_str()), (Some(6000), Some(250), ZONE));
    assert_eq!(made.tags.get("ebs.csi.aws.com/cluster").map(String::as_str), Some("true"));

    // a second time, beside it: volumes of its own
    let copy = TempNamespace::new(A, "volumes-copy");
    let mapping = format!("{name}={}", copy.name);
    own.run(&["restore", &id, "--map-namespace", &mapping, "--yes", "-o", "json"]).exits(0);
    ready(&copy.name);
    assert_eq!(shell(&copy.name, "cat /data/f /wal/f"), "old\n41\n");
    let (other, another) = handle(&copy.name, "data-db-0");
    let others = [Pv(other.clone()), Pv(handle(&copy.name, "wal-db-0").0)];
    assert!(other != pv && another != new, "{other} {another}");
    assert_eq!(handle(name, "data-db-0"), (pv.clone(), new.clone()), "the first one's is not touched");
    undo_copy(&own, &copy.name, &others);
    assert_eq!(handle(name, "data-db-0"), (pv.clone(), new.clone()), "nor is it by the undo");
    assert_eq!(shell(name, "cat /data/f /wal/f"), "old\n41\n");
    undo_namespace(&own, name, (&pv, &new));
}

#[test]
fn promise_4_in_tree_and_auto_mode_volumes_come_back_in_another_zone_with_another_key() {
    let own = Installed::new("volume-kinds");
    let namespace = TempNamespace::new(A, "volume-kinds");
    let name = &namespace.name;
    // of a zone in which the target has no nodes
    let kept = |id: &str| Volume { zone: format!("{REGION}b"), kms: Some("arn:key/old".into()), ..volume(id) };
    let slow = |id: &str| Volume { kind: "st1".into(), iops: None, throughput: None, ..kept(id) };
    let (tree, auto) = (id_of("in-tree"), id_of("auto-mode"));
    ec2().0.add_volume(REGION, slow(&tree));
    ec2().0.add_volume(REGION, kept(&auto));
    let in_tree = json!({"awsElasticBlockStore": {"volumeID": format!("aws://{REGION}b/{tree}"), "fsType": "ext4"}});
    let auto_mode = json!({"csi": {"driver": "ebs.csi.eks.amazonaws.com", "volumeHandle": auto, "fsType": "ext4"}});
    let volumes = [
        Pv::of(name, "in-tree", &format!("pv-{name}-in-tree"), in_tree),
        Pv::of(name, "auto-mode", &format!("pv-{name}-auto-mode"), auto_mode),
    ];
    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id");
    let copies = own.report(id)["volumes"].clone();
    let saved: Vec<&str> = (0..2).filter_map(|at| copies[at]["source"]["id"].as_str()).collect();
    assert_eq!(saved, [&*auto, &*tree], "{copies}");
    assert!(copies[1]["snapshot"]["fullBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{copies}");
    let text = own.run(&["describe", id, "-o", "wide"]).exits(0).stdout;
    assert!(text.contains("arn:key/old") && text.contains("st1") && text.contains("512.0 MiB"), "{text}");
    assert!(own.run(&["list", "-o", "wide"]).exits(0).stdout.contains("2 (2.0 GiB)"));

    namespace.delete();
    volumes.iter().for_each(Pv::delete);
    let nowhere = format!("{REGION}b={REGION}c");
    own.run(&["restore", id, "--map-zone", &nowhere, "--yes"])
        .exits(1)
        .says(&["has no node in zone", "nothing was written"]);
    let zone = format!("{REGION}b={ZONE}");
    let elsewhere = ["--map-zone", &zone, "--kms-key", "arn:key/new", "--volume-type", "io2", "--iops", "4000"];
    own.run(&[&["restore", id, "--yes"], &elsewhere[..]].concat()).exits(0);
    for (claim, driver) in [("in-tree", "ebs.csi.aws.com"), ("auto-mode", "ebs.csi.eks.amazonaws.com")] {
        let (pv, handle) = handle(name, claim);
        let spec = get(A, &["pv", &pv])["spec"].clone();
        assert!(spec["csi"]["driver"] == driver && spec.get("awsElasticBlockStore").is_none(), "{spec}");
        let made = ec2().0.volumes(REGION).into_iter().find(|volume| volume.id == handle).expect("a volume");
        let found = (made.zone.as_str(), made.kms.as_deref(), made.kind.as_str(), made.iops);
        assert_eq!(found, (ZONE, Some("arn:key/new"), "io2", Some(4000)), "{claim}");
        eventually(&format!("claim {claim} to be bound"), || {
            (get(A, &["-n", name, "pvc", claim])["status"]["phase"] == "Bound").then_some(())
        });
    }
}

#[test]
fn promise_2_a_volume_that_has_one_pending_snapshot_at_most_waits_for_its_turn() {
    let own = Installed::new("volume-turn");
    let namespace = TempNamespace::new(A, "volume-turn");
    let (name, id) = (&namespace.name, id_of("turn"));
    let slow = Volume { kind: "st1".into(), iops: None, throughput: None, ..volume(&id) };
    let _volume = Pv::new(name, "logs", slow);
    // another tool's snapshot, pending for longer than the 15 s in which EC2 makes no second one of any volume
    let takes = Duration::from_secs(25);
    ec2().0.answer(REGION, format!("Action=CreateSnapshot&VolumeId={id}").as_bytes());
    let ends = ec2().0.in_region(REGION, |region| {
        let other = region.snapshots.values_mut().find(|one| one.volume == id).expect("a snapshot");
        other.takes = takes;
        other.started + takes
    });
    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let report = own.report(told["id"].as_str().expect("an id"));
    assert_eq!(report["volumes"][0]["snapshot"]["state"], "completed", "{report}");
    let made = ec2().0.calls("CreateSnapshot").into_iter().filter(|call| call.query.get("VolumeId") == Some(&id));
    let made: Vec<Duration> = made.filter(|call| call.refused.is_none()).map(|call| call.at).collect();
    assert!(made.len() == 2 && made[1] >= ends, "{made:?}, and the other one was pending until {ends:?}");
}

#[test]
fn promise_2_a_volume_that_is_not_saved_is_a_problem_with_its_reason() {
    let own = Installed::new("volume-problems");
    let namespace = TempNamespace::new(A, "volume-problems");
    let name = &namespace.name;
    let broken = Volume { breaks_snapshots: Some("the key is gone".into()), ..volume(&id_of("broken")) };
    let _volumes = [
        Pv::new(name, "broken", broken),
        Pv::new(name, "cache", volume(&id_of("cache"))),
        Pv::of(name, "host", &format!("pv-{name}-host"), json!({"hostPath": {"path": "/tmp/kubectl-backup-host"}})),
    ];
    let policy = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(policy.path(), "rules:\n  - claim: ['*/cache']\n    action: skip\n").expect("a file to write");
    let ran = own.run(&["ns", name, "-o", "json", "--volume-policy", &policy.path().to_string_lossy()]).exits(3);
    let told = ran.json();
    let id = told["id"].as_str().expect("an id");
    let report = own.report(id);
    let problems: Vec<String> = report["problems"].as_array().expect("problems").iter().map(Value::to_string).collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems.iter().any(|text| text.contains(&format!("{name}/host")) && text.contains("a `hostPath` volume")),
        "{problems:?}"
    );
    assert!(
        problems.iter().any(|text| text.contains(&format!("{name}/broken")) && text.contains("the key is gone")),
        "{problems:?}"
    );
    let omitted = report["omissions"].to_string();
    assert!(omitted.contains(&format!("{name}/cache")) && omitted.contains("rule 1 of the volume policy"), "{omitted}");
    own.run(&["ns", name, "-o", "json", "--volumes=skip"]).exits(0);
}

#[test]
fn promise_6_a_worker_killed_before_the_commit_leaves_one_snapshot_for_each_volume() {
    let proxy = Proxy::start();
    let own = Installed::at("volume-killed", &proxy.endpoint());
    let namespace = TempNamespace::new(A, "volume-killed");
    let (one, two) = (id_of("one"), id_of("two"));
    let _volumes = [Pv::new(&namespace.name, "one", volume(&one)), Pv::new(&namespace.name, "two", volume(&two))];
    proxy.hold("PUT", "/backups/", 1);
    let args = own.args(&["ns", &namespace.name, "-o", "json"]);
    let run = backup_command(A, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    proxy.wait_held(1);
    let of = |volume: &str| ec2().0.snapshots(REGION).into_iter().filter(|snapshot| snapshot.volume == volume).count();
    assert_eq!((of(&one), of(&two)), (1, 1));
    let pods = get(A, &["pods", "-n", &own.namespace.name, "-l", "kubectl-backup/verb=backup"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod");
    kubectl(A, &["delete", "pod", "-n", &own.namespace.name, pod, "--grace-period=0", "--force"]).exits(0);
    proxy.release();
    let told = Ran::of(run.wait_with_output().expect("the binary ends")).exits(0).json();
    assert_eq!((of(&one), of(&two)), (1, 1));
    let copies = own.report(told["id"].as_str().expect("an id"))["volumes"].clone();
    let kept: Vec<Value> = ec2().0.snapshots(REGION).iter().filter(|s| s.volume == one).map(|s| json!(s.id)).collect();
    assert_eq!(kept, [copies[0]["snapshot"]["id"].clone()], "{copies}");
}

#[test]
fn promise_6_a_restore_that_cannot_make_a_volume_writes_nothing_and_leaves_none() {
    let own = Installed::new("volume-undone");
    let namespace = TempNamespace::new(A, "volume-undone");
    let name = namespace.name.clone();
    let volumes = [Pv::new(&name, "one", volume(&id_of("one"))), Pv::new(&name, "two", volume(&id_of("two")))];
    let told = own.run(&["ns", &name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id");
    namespace.delete();
    volumes.iter().for_each(Pv::delete);
    let copies = own.report(id)["volumes"].clone();
    let snapshot = |at: usize| copies[at]["snapshot"]["id"].as_str().expect("an id").to_owned();
    // EC2 takes one of them for the snapshot of a larger volume
    ec2().0.in_region(REGION, |region| region.snapshots.get_mut(&snapshot(1)).expect("a snapshot").gib = 9);
    let ran = own.run(&["restore", id, "--yes"]).exits(1);
    ran.says(&["smaller than the size of snapshot", "nothing was written", "--volumes=skip"]);
    kubectl(A, &["get", "namespace", &name]).exits(1);
    let of = |volume: &Volume| volume.snapshot.as_ref() == Some(&snapshot(0));
    assert_eq!(ec2().0.volumes(REGION).iter().filter(|volume| of(volume)).count(), 0);
}

#[test]
fn promise_2_a_claim_whose_snapshot_is_gone_waits_and_gets_no_empty_volume() {
    let own = Installed::new("volume-gone");
    let namespace = TempNamespace::new(A, "volume-gone");
    let name = &namespace.name;
    let (data, wal) = (id_of("data"), id_of("wal"));
    let volumes = [Pv::new(name, "data-db-0", volume(&data)), Pv::new(name, "wal-db-0", volume(&wal))];
    apply_database(name);
    let told = own.run(&["ns", name, "-o", "json"]).exits(0).json();
    let id = told["id"].as_str().expect("an id");
    let copies = own.report(id)["volumes"].clone();
    let gone = copies[0]["snapshot"]["id"].as_str().expect("an id").to_owned();
    namespace.delete();
    volumes.iter().for_each(Pv::delete);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("plan.json").display().to_string();
    let approved = own.run(&["restore", id, "--plan-out", &file, "-o", "json"]).exits(0).json();
    ec2().0.in_region(REGION, |region| region.snapshots.remove(&gone));
    let plan = own.run(&["restore", id, "--dry-run=client", "-o", "json"]).exits(3).json();
    assert_ne!(plan["planDigest"], approved["planDigest"], "a volume fewer is another plan");
    own.run(&["restore", "--plan", &file, "--yes"]).exits(1).says(&["the plan has changed"]);
    own.run(&["restore", id, "--volumes=all", "--yes"]).exits(1).says(&[
        &gone,
        "`--volumes=all`",
        "nothing was written",
    ]);
    kubectl(A, &["get", "namespace", name]).exits(1);

    let ran = own.run(&["restore", id, "--yes", "-o", "json"]).exits(3).json();
    let problems = ran["problems"].to_string();
    assert!(problems.contains(&format!("{name}/data-db-0")) && problems.contains(&gone), "{problems}");
    let claim = get(A, &["-n", name, "pvc", "data-db-0"]);
    assert_eq!((&claim["status"]["phase"], &claim["spec"]["volumeName"]), (&json!("Pending"), &json!(volumes[0].0)));
    assert!(handle(name, "wal-db-0").1 != wal, "the other one is there, anew");
    kubectl(A, &["get", "pv", &volumes[0].0]).exits(1);
}

/// A pod that writes the time, in hundredths of a second, to its volume and then to a log elsewhere, ten times a second.
fn apply_writer(namespace: &str, claim: &str, privileged: bool) {
    let script =
        "while true; do cut -d' ' -f1 /proc/uptime | tr -d . >/data/tick; cat /data/tick >>/log/ticks; sleep 0.1; done";
    let container = json!({"name": "writer", "image": "localhost/bb:1", "imagePullPolicy": "Never", "args": ["-c", script],
        "securityContext": {"privileged": privileged},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "log", "mountPath": "/log"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "db-0"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container],
                 "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}, {"name": "log", "emptyDir": {}}]}});
    apply(A, &pod.to_string());
    kubectl(A, &["wait", "-n", namespace, "pod/db-0", "--for=condition=Ready", "--timeout=60s"]).exits(0);
}

/// The longest time in which the pod could not write.
fn longest_pause(namespace: &str) -> Duration {
    let ticks: Vec<u64> = shell(namespace, "cat /log/ticks").lines().filter_map(|line| line.parse().ok()).collect();
    let pause = ticks.windows(2).map(|two| two[1] - two[0]).max().expect("two ticks at least");
    Duration::from_millis(pause * 10)
}

#[test]
fn promise_2_a_volume_is_frozen_while_its_snapshot_is_begun_and_what_cannot_be_is_a_problem() {
    let own = Installed::with_hooks("volume-frozen", world().s3("S3_ENDPOINT"));
    let namespace = TempNamespace::new(A, "volume-frozen");
    let name = &namespace.name;
    let id = id_of("frozen");
    let _volumes = [Pv::new(name, "data", volume(&id)), Pv::new(name, "idle", volume(&id_of("idle")))];
    apply_writer(name, "data", true);
    ec2().0.slow_down(&id, Duration::from_secs(3));
    let told = own.run(&["ns", name, "--freeze", "-o", "json"]).exits(0).json();
    let copies = own.report(told["id"].as_str().expect("an id"))["volumes"].clone();
    assert_eq!(
        (&copies[0]["snapshot"]["frozen"], copies[1]["snapshot"].get("frozen")),
        (&json!(true), None),
        "{copies}"
    );
    let paused = longest_pause(name);
    assert!(paused > Duration::from_secs(2) && paused < Duration::from_secs(10), "{paused:?}");
    ec2().0.slow_down(&id, Duration::ZERO);

    // the same pod without the power to freeze
    kubectl(A, &["delete", "-n", name, "pod", "db-0", "--wait"]).exits(0);
    apply_writer(name, "data", false);
    ec2().0.in_region(REGION, |region| region.last_snapshot.remove(&id));
    let told = own.run(&["ns", name, "--freeze", "-o", "json"]).exits(3).json();
    let report = own.report(told["id"].as_str().expect("an id"));
    let problems = report["problems"].to_string();
    assert!(problems.contains("one needs `privileged: true`") && !problems.contains("/idle"), "{problems}");
    assert_eq!(report["volumes"].as_array().map(Vec::len), Some(2), "both are saved all the same");

    // and without the right
    let bare = Installed::new("volume-unfrozen");
    kubectl(A, &["delete", "-n", name, "pod", "db-0", "--wait"]).exits(0);
    apply_writer(name, "data", true);
    ec2().0.in_region(REGION, |region| region.last_snapshot.remove(&id));
    let told = bare.run(&["ns", name, "--freeze", "-o", "json"]).exits(3).json();
    let problems = bare.report(told["id"].as_str().expect("an id"))["problems"].to_string();
    assert!(problems.contains("`create` on `pods/exec` is not allowed; `kubectl backup init --hooks"), "{problems}");
}

#[test]
fn promise_6_a_worker_killed_while_a_volume_is_frozen_leaves_it_thawed() {
    let own = Installed::with_hooks("volume-thawed", world().s3("S3_ENDPOINT"));
    let namespace = TempNamespace::new(A, "volume-thawed");
    let name = &namespace.name;
    let id = id_of("thawed");
    let _volumes = [Pv::new(name, "data", volume(&id))];
    apply_writer(name, "data", true);
    ec2().0.slow_down(&id, Duration::from_secs(25));
    let args = own.args(&["ns", name, "--freeze", "-o", "json"]);
    let run = backup_command(A, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let begun = || ec2().0.calls("CreateSnapshot").iter().any(|call| call.query.get("VolumeId") == Some(&id));
    eventually("a snapshot to be begun", || begun().then_some(()));
    let pods = get(A, &["pods", "-n", &own.namespace.name, "-l", "kubectl-backup/verb=backup"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod");
    kubectl(A, &["delete", "pod", "-n", &own.namespace.name, pod, "--grace-period=0", "--force"]).exits(0);
    let told = Ran::of(run.wait_with_output().expect("the binary ends")).exits(0).json();
    let copies = own.report(told["id"].as_str().expect("an id"))["volumes"].clone();
    assert_eq!(copies[0]["snapshot"]["frozen"], json!(true), "the next worker uses the first one's: {copies}");
    assert_eq!(ec2().0.snapshots(REGION).iter().filter(|snapshot| snapshot.volume == id).count(), 1);
    eventually("the volume to be thawed", || (longest_pause(name) > Duration::from_secs(5)).then_some(()));
    let paused = longest_pause(name);
    assert!(paused < Duration::from_secs(20), "{paused:?}");
}
