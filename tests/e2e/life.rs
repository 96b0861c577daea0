//! What becomes of backups and their snapshots: deleted, verified, found again where they are nobody's.

use crate::harness::{ClusterName::A, *};
use crate::proxy::Proxy;
use crate::standin::{Fault, Volume};
use crate::volumes::{Installed, Pv, REGION, ec2, id_of, volume};
use serde_json::{Value, json};
use std::process::Stdio;

/// A namespace with a volume, and a backup of it.
pub(crate) struct Saved {
    pub(crate) own: Installed,
    pub(crate) namespace: TempNamespace,
    _volume: Pv,
    pub(crate) id: String,
    pub(crate) snapshot: String,
}

impl Saved {
    pub(crate) fn new(own: Installed, name: &str) -> Self {
        Self::of(own, name, volume(&id_of(name)))
    }

    pub(crate) fn of(own: Installed, name: &str, volume: Volume) -> Self {
        let namespace = TempNamespace::new(A, name);
        let pv = Pv::new(&namespace.name, "data", volume);
        let told = own.run(&["ns", &namespace.name, "-o", "json"]).exits(0).json();
        let id = told["id"].as_str().expect("an id").to_owned();
        let snapshot = own.report(&id)["volumes"][0]["snapshot"]["id"].as_str().expect("a snapshot").to_owned();
        Self { own, namespace, _volume: pv, id, snapshot }
    }

    fn keys(&self) -> Vec<String> {
        keys(&format!("{}/", self.own.location.prefix))
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        ec2().0.snapshots(REGION).iter().any(|snapshot| snapshot.id == self.snapshot)
    }

    fn listed(&self) -> Vec<String> {
        self.own.run(&["list", "-o", "name"]).exits(0).stdout.lines().map(str::to_owned).collect()
    }
}

#[test]
fn promise_6_a_backup_is_deleted_with_its_snapshots_and_nothing_else_is() {
    let saved = Saved::new(Installed::new("delete"), "delete");
    let (own, id) = (&saved.own, saved.id.as_str());
    let before = saved.keys();
    let plan = own.run(&["delete", id, "--dry-run=server", "-o", "json"]).exits(0).json();
    assert_eq!(
        (&plan["backups"][0]["verdict"], &plan["backups"][0]["snapshots"][0]["id"]),
        (&"delete".into(), &saved.snapshot.as_str().into())
    );
    own.run(&["delete", id]).exits(2).says(&["nobody can be asked", "1 snapshot", "--yes"]);
    own.run(&["delete", "latest", "--yes"]).exits(2).says(&["another backup each time"]);
    assert!(saved.has_snapshot() && saved.keys() == before);

    // locked: it stays whole
    let lock = |locked| {
        ec2().0.in_region(REGION, |region| region.snapshots.get_mut(&saved.snapshot).expect("it").locked = locked)
    };
    lock(true);
    own.run(&["delete", id, "--yes"]).exits(3).says(&[&saved.snapshot, "it is locked (compliance until"]);
    assert_eq!((saved.keys(), saved.listed()), (before, vec![saved.id.clone()]));
    lock(false);

    let told = own.run(&["delete", id, "--yes", "-o", "json"]).exits(0).json();
    assert_eq!(told["backups"][0]["verdict"], "deleted", "{told}");
    assert!(!saved.has_snapshot());
    assert_eq!((saved.keys(), saved.listed()), (Vec::new(), Vec::new()));
    own.run(&["delete", id, "--yes"]).exits(5).says(&["there are no backups in"]);
}

#[test]
fn promise_6_a_deletion_whose_worker_is_killed_goes_on() {
    let proxy = Proxy::start();
    let saved = Saved::new(Installed::at("delete-killed", &proxy.endpoint()), "delete-killed");
    // the manifest and the snapshot are gone, the data not yet
    proxy.hold("DELETE", "/data/", 1);
    let args = saved.own.args(&["delete", &saved.id, "--yes", "-o", "json"]);
    let run = backup_command(A, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    proxy.wait_held(1);
    assert!(!saved.keys().iter().any(|key| key.contains("/backups/")), "{:?}", saved.keys());
    let namespace = &saved.own.namespace.name;
    let pods = get(A, &["pods", "-n", namespace, "-l", "kubectl-backup/verb=delete"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod");
    kubectl(A, &["delete", "pod", "-n", namespace, pod, "--grace-period=0", "--force"]).exits(0);
    proxy.release();
    let told: Value = Ran::ended(run).exits(0).json();
    assert_eq!(told["backups"][0]["verdict"], "deleted", "{told}");
    assert!(!saved.has_snapshot() && saved.keys().is_empty(), "{:?}", saved.keys());
}

#[test]
fn promise_4_verify_finds_damage_in_the_bucket_and_in_ec2() {
    let saved = Saved::new(Installed::new("verify"), "verify");
    let (own, id) = (&saved.own, saved.id.as_str());
    let told = own.run(&["verify", "latest", "-o", "json"]).exits(0).json();
    let one = &told["backups"][0];
    assert_eq!((one["verdict"].as_str(), one["snapshots"][0]["state"].as_str()), (Some("intact"), Some("completed")));
    let size: u64 = told["backups"][0]["bytes"].as_u64().expect("bytes");
    let manifest = manifest(&own.location, id);
    let whole: u64 = ["objects", "index", "report", "log"]
        .iter()
        .map(|file| manifest["files"][file]["size"].as_u64().expect("a size"))
        .sum();
    assert_eq!(size, whole, "every byte");

    // a snapshot that can't be asked for, one of another size, one that is gone
    let refuse = Fault::Refuse { status: 403, code: "UnauthorizedOperation", message: "not you" };
    ec2().0.fault_about(&saved.snapshot, 1, refuse);
    own.run(&["verify", id, "--level", "1"]).exits(3).says(&["DescribeSnapshots", "not you"]);
    ec2().0.in_region(REGION, |region| region.snapshots.get_mut(&saved.snapshot).expect("it").gib = 2);
    own.run(&["verify", id, "--level", "1"]).exits(7).says(&[&saved.snapshot, "2 GiB"]);
    ec2().0.in_region(REGION, |region| region.snapshots.get_mut(&saved.snapshot).expect("it").gib = 1);

    let objects = format!("{}/{}", own.location.prefix, manifest["files"]["objects"]["key"].as_str().expect("a key"));
    let whole = download(&objects);
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&objects, &bytes);
    own.run(&["verify", id, "--level", "1"]).exits(0);
    let ran = own.run(&["verify", id]).exits(7).says(&["objects.tar.zst", "its SHA-256 is"]);
    assert!(ran.stdout.contains("damaged"), "{}", ran.stdout);
    overwrite(&objects, &whole);
    own.run(&["verify", id, "-o", "wide"]).exits(0);
}

#[test]
fn promise_6_what_is_nobodys_is_found_and_named_and_goes() {
    let saved = Saved::new(Installed::new("orphans"), "orphans");
    let own = &saved.own;
    own.run(&["list", "--orphans"]).exits(0).says(&["nothing is left over"]);
    // as a deletion leaves it that was killed after the manifest
    let mark = json!([{"region": REGION, "id": saved.snapshot}]);
    let prefix = format!("{}/{}", bucket(), own.location.prefix);
    overwrite(&format!("{}/data/{}/killed/deleted.json", own.location.prefix, saved.id), mark.to_string().as_bytes());
    s3("DELETE", &format!("{prefix}/backups/{}.json", saved.id), None).exits(0);
    let told = own.run(&["list", "--orphans", "-o", "json"]).exits(0).says(&["kubectl backup delete"]).json();
    let orphan = &told["orphans"][0];
    assert_eq!(
        (&orphan["id"], &orphan["snapshots"][0]["id"]),
        (&saved.id.as_str().into(), &saved.snapshot.as_str().into())
    );
    own.run(&["delete", &saved.id, "--yes"]).exits(0);
    own.run(&["list", "--orphans"]).exits(0).says(&["nothing is left over"]);
    assert!(!saved.has_snapshot() && saved.keys().is_empty(), "{:?}", saved.keys());
}

#[test]
fn promise_6_what_is_nobodys_in_another_region_is_found_too() {
    const FAR: &str = "eu-west-1";
    let saved = Saved::new(Installed::new("orphans-far"), "orphans-far");
    let own = &saved.own;
    add(own, "dr", &["--role-arn", world().s3("ROLE_ARN_A")]);
    own.run(&["copy", &saved.id, "--to", "dr", "--copy-to-region", FAR]).exits(0);
    // as a copying leaves it that was killed, and never tried again
    let id = format!("{}-20200101-000000-aaaa", unique("gone"));
    ec2().0.in_region(FAR, |region| {
        let of = |one: &&crate::standin::Snapshot| one.tags.get("kubectl-backup/copy-of") == Some(&saved.snapshot);
        let mut left = region.snapshots.values().find(of).expect("a copy").clone();
        left.id = format!("snap-0{}", id_of("left").trim_start_matches("vol-"));
        left.started_at = "2020-01-01T00:00:00Z".parse().expect("a time");
        left.tags.insert("kubectl-backup/id".into(), id.clone());
        region.snapshots.insert(left.id.clone(), left);
    });
    let count = || ec2().0.snapshots(FAR).iter().filter(|one| one.tags.get("kubectl-backup/id") == Some(&id)).count();
    let at_dr = ["--install-namespace", &own.namespace.name, "--location", "dr"];
    let ran = backup(A, &[&["list", "--orphans"], &at_dr[..]].concat()).exits(0);
    assert!(ran.stdout.contains(&id) && ran.stdout.contains(FAR), "{}", ran.stdout);
    let ran = ran.says(&[&format!("kubectl backup delete {id}")]);
    assert_eq!((ran.stdout.lines().count(), count()), (2, 1), "{}", ran.stdout);
    backup(A, &[&["delete", &id, "--yes"], &at_dr[..]].concat()).exits(0);
    assert_eq!(count(), 0);
    backup(A, &[&["delete", &saved.id, "--yes"], &at_dr[..]].concat()).exits(0);
    assert!(saved.has_snapshot(), "the original's");
}

/// Adds a location to the configuration of an installation.
pub(crate) fn add(own: &Installed, name: &str, args: &[&str]) -> Location {
    let place = location(name);
    let at = format!("{name}={}", place.url);
    let init = ["init", "--install-namespace", &own.namespace.name, "--location", &at];
    backup(A, &[&init, args].concat()).exits(0);
    place
}

#[test]
fn promise_4_a_backup_is_copied_with_its_snapshots_and_restored_from_there() {
    let saved = Saved::new(Installed::new("copy"), "copy");
    let (own, id) = (&saved.own, saved.id.as_str());
    let dr = add(own, "dr", &["--role-arn", world().s3("ROLE_ARN_A")]);
    let told = own.run(&["copy", id, "--to", "dr", "--copy-to-region", REGION, "-o", "json"]).exits(0).json();
    assert_eq!((&told["wasThere"], &told["snapshots"]), (&false.into(), &1.into()));
    let there = manifest(&dr, id);
    assert_eq!(there["files"]["objects"]["sha256"], manifest(&own.location, id)["files"]["objects"]["sha256"]);
    own.run(&["copy", id, "--to", "dr", "--copy-to-region", REGION]).exits(0).says(&["already"]);

    // the original goes, and the copy has all it needs
    own.run(&["delete", id, "--yes"]).exits(0);
    let at_dr = ["--install-namespace", &own.namespace.name, "--location", "dr"];
    let told = backup(A, &[&["verify", id, "-o", "json"], &at_dr[..]].concat()).exits(0).json();
    let copied = told["backups"][0]["snapshots"][0]["id"].as_str().expect("a snapshot").to_owned();
    assert_ne!(copied, saved.snapshot);
    let namespace = unique("copy-restored");
    let mapping = format!("{}={namespace}", saved.namespace.name);
    backup(A, &[&["restore", id, "--map-namespace", &mapping, "--yes"], &at_dr[..]].concat()).exits(0);
    let made = ec2().0.volumes(REGION).into_iter().find(|volume| volume.snapshot.as_deref() == Some(&copied));
    assert!(made.is_some(), "a volume is made of the copy");
    let pv = get(A, &["-n", &namespace, "pvc", "data"])["spec"]["volumeName"].as_str().expect("a name").to_owned();
    kubectl(A, &["delete", "namespace", &namespace, "--timeout=120s"]).exits(0);
    kubectl(A, &["delete", "pv", &pv, "--wait=false", "--ignore-not-found"]).exits(0);
    backup(A, &[&["delete", id, "--yes"], &at_dr[..]].concat()).exits(0);
    assert!(!ec2().0.snapshots(REGION).iter().any(|snapshot| snapshot.id == copied));
}

#[test]
fn promise_7_each_location_is_entered_with_its_own_credentials() {
    let saved = Saved::new(Installed::new("copy-keys"), "copy-keys");
    let own = &saved.own;
    let (key, secret) = (world().s3("S3_ROOT_ACCESS_KEY_ID"), world().s3("S3_ROOT_SECRET_ACCESS_KEY"));
    let keys = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "keys", "namespace": own.namespace.name},
        "stringData": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}});
    apply(A, &keys.to_string());
    let keyed = add(own, "keyed", &["--credentials-secret", "keys"]);
    let ran = own.run(&["copy", &saved.id, "--to", "keyed"]).exits(0);
    ran.says(&["stay where they are"]);
    manifest(&keyed, &saved.id);
    // a role that nobody gives is that of the second location only
    add(own, "refused", &["--role-arn", "arn:minio:iam:::role/nobodys"]);
    own.run(&["copy", &saved.id, "--to", "refused"]).exits(6).says(&["nobodys"]);
    own.run(&["verify", &saved.id, "--level", "1"]).exits(0);
    // the snapshots are the original's: deleting the copy leaves them, and says nothing of them
    let at = ["--install-namespace", &own.namespace.name, "--location", "keyed"];
    backup(A, &[&["delete", &saved.id, "--yes"], &at[..]].concat()).exits(0);
    assert!(saved.has_snapshot());
}
