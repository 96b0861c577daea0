//! Backups that are copied to another AWS account, or lent to it. The stand-in for EC2 tells accounts apart by their keys: those
//! that MiniStack's STS gives, and MinIO's root keys, are not those of the cluster's own role.

use crate::harness::{ClusterName::A, *};
use crate::life::{Saved, add};
use crate::proxy::Proxy;
use crate::standin::{Snapshot, default_key};
use crate::volumes::{Installed, REGION, ec2, id_of, volume};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Stdio;

/// The account of those who come with MinIO's root keys.
const LENT: &str = "222222222222";

fn snapshot(id: &str) -> Snapshot {
    ec2().0.snapshots(REGION).into_iter().find(|snapshot| snapshot.id == id).expect("a snapshot")
}

/// The changes of a snapshot's sharing so far, `Add` or `Remove`.
fn changes(id: &str) -> Vec<&'static str> {
    let calls = ec2().0.calls("ModifySnapshotAttribute");
    let of_it = calls.iter().filter(|call| call.query.get("SnapshotId") == Some(id) && call.refused.is_none());
    let what = |what: &'static str| {
        move |call: &&crate::standin::Call| {
            call.query.get(&format!("CreateVolumePermission.{what}.1.UserId")).map(|_| what)
        }
    };
    of_it.filter_map(|call| what("Add")(&call).or_else(|| what("Remove")(&call))).collect()
}

#[test]
fn promise_7_a_backup_goes_into_another_account_by_that_accounts_role_and_back() {
    // AWS is MiniStack here: its role is asked for where the settings say, that of MinIO at MinIO
    let aws = ministack();
    let (account, endpoint) = (aws["ACCOUNT"].as_str(), &aws["S3_ENDPOINT"]);
    ec2().0.belongs("ASIA", account);
    let more = format!("    AWS_ENDPOINT_URL_S3: {endpoint}\n    AWS_ENDPOINT_URL_STS: {endpoint}\n");
    let installed = Installed::with_env("account", world().s3("S3_ENDPOINT"), &more);
    let saved = Saved::new(installed, "account");
    let (own, id) = (&saved.own, saved.id.as_str());
    let vault = format!("vault=s3://{}/{}?region=us-east-1&path-style=true", aws["S3_BUCKET"], unique("vault"));
    let init = ["init", "--install-namespace", &own.namespace.name, "--location", &vault];
    backup(A, &[&init, &["--role-arn", &aws["ROLE_ARN_VAULT"]][..]].concat()).exits(0);
    let into = ["copy", id, "--to", "vault", "--copy-to-region", REGION, "-o", "json"];
    let wrong = own.run(&[&into[..], &["--share-with-account", LENT]].concat()).exits(2);
    wrong.says(&[account, LENT, "hint:"]);
    let told = own.run(&into).exits(0).json();
    assert_eq!((&told["snapshots"], &told["notes"]), (&json!(1), &json!([])), "{told}");
    assert_eq!(changes(&saved.snapshot), ["Add", "Remove"], "shared only while it was copied");
    assert_eq!(snapshot(&saved.snapshot).shared_with, BTreeSet::new());

    // account A is lost: what is in the vault is enough
    own.run(&["delete", id, "--yes"]).exits(0);
    let at_vault = ["--install-namespace", &own.namespace.name, "--location", "vault"];
    let run = |args: &[&str]| backup(A, &[args, &at_vault[..]].concat());
    let copied = run(&["describe", id, "-o", "json"]).exits(0).json()["report"]["volumes"][0]["snapshot"].clone();
    assert_eq!(copied["account"], account, "{copied}");
    let copied = copied["id"].as_str().expect("an id");
    run(&["verify", id]).exits(0);
    let namespace = unique("account-restored");
    run(&["restore", id, "--map-namespace", &format!("{}={namespace}", saved.namespace.name), "--yes"]).exits(0);
    let made = ec2().0.volumes(REGION).into_iter().find(|volume| volume.snapshot.as_deref() == Some(copied));
    assert_eq!(made.map(|volume| volume.account), Some(account.to_owned()));
    let pv = get(A, &["-n", &namespace, "pvc", "data"])["spec"]["volumeName"].as_str().expect("a name").to_owned();
    kubectl(A, &["delete", "namespace", &namespace, "--timeout=120s"]).exits(0);
    kubectl(A, &["delete", "pv", &pv, "--wait=false", "--ignore-not-found"]).exits(0);

    // the other way round, first the role at AWS and then the one at MinIO
    run(&["copy", id, "--to", "own"]).exits(0).says(&["stay where they are"]);
    own.run(&["delete", id, "--yes"]).exits(0);
    assert_eq!(snapshot(copied).account, account, "it is the vault's");
    run(&["delete", id, "--yes"]).exits(0);
    assert!(!ec2().0.snapshots(REGION).iter().any(|snapshot| snapshot.id == copied));
}

/// A location that is entered with MinIO's root keys.
fn add_lent(own: &Installed, at: &Location) {
    let (key, secret) = (world().s3("S3_ROOT_ACCESS_KEY_ID"), world().s3("S3_ROOT_SECRET_ACCESS_KEY"));
    ec2().0.belongs(key, LENT);
    let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": own.namespace.name},
        "stringData": {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}});
    apply(A, &keys.to_string());
    let location = format!("lent={}", at.url);
    let init = ["init", "--install-namespace", &own.namespace.name, "--location", &location];
    backup(A, &[&init, &["--credentials-secret", "keys"][..]].concat()).exits(0);
}

#[test]
fn promise_4_snapshots_are_lent_to_another_account_which_restores_from_them() {
    let saved = Saved::new(Installed::new("lent"), "lent");
    let (own, id) = (&saved.own, saved.id.as_str());
    let at = location("lent");
    add_lent(own, &at);
    own.run(&["copy", id, "--to", "lent", "--share-with-account", "22"]).exits(2).says(&["12 digits"]);
    // nobody says which account it is that is to copy them
    own.run(&["copy", id, "--to", "lent", "--copy-to-region", REGION]).exits(2).says(&["--share-with-account ACCOUNT"]);
    assert_eq!(keys(&format!("{}/", at.prefix)), Vec::<String>::new());
    let ran = own.run(&["copy", id, "--to", "lent", "--share-with-account", LENT, "-o", "json"]).exits(0);
    assert_eq!(ran.json()["sharedWith"], LENT);
    ran.says(&[&format!("shared with account `{LENT}`"), "stay where they are"]);
    assert_eq!(snapshot(&saved.snapshot).shared_with, [LENT.to_owned()].into());
    let at_lent = ["--install-namespace", &own.namespace.name, "--location", "lent"];
    let run = |args: &[&str]| backup(A, &[args, &at_lent[..]].concat());
    run(&["verify", id, "--level", "1"]).exits(0);
    let namespace = unique("lent-restored");
    run(&["restore", id, "--map-namespace", &format!("{}={namespace}", saved.namespace.name), "--yes"]).exits(0);
    let made = ec2().0.volumes(REGION).into_iter().find(|volume| volume.snapshot.as_ref() == Some(&saved.snapshot));
    assert_eq!(made.map(|volume| volume.account).as_deref(), Some(LENT));
    let pv = get(A, &["-n", &namespace, "pvc", "data"])["spec"]["volumeName"].as_str().expect("a name").to_owned();
    kubectl(A, &["delete", "namespace", &namespace, "--timeout=120s"]).exits(0);
    kubectl(A, &["delete", "pv", &pv, "--wait=false", "--ignore-not-found"]).exits(0);
    // the copy goes, and the snapshot stays the original's
    run(&["delete", id, "--yes"]).exits(0);
    assert!(saved.has_snapshot());

    // what is encrypted with the default key can't be lent, and nothing is begun
    let mut encrypted = volume(&id_of("default-key"));
    encrypted.kms = Some(default_key(REGION, crate::standin::ACCOUNT));
    let saved = Saved::of(Installed::new("default-key"), "default-key", encrypted);
    let at = add(&saved.own, "dr", &["--role-arn", world().s3("ROLE_ARN_A")]);
    let share = ["copy", &saved.id, "--to", "dr", "--share-with-account", LENT];
    saved.own.run(&share).exits(1).says(&["EBS default key cannot be shared", "hint:", "--kms-key KEY"]);
    assert_eq!(keys(&format!("{}/", at.prefix)), Vec::<String>::new());
}

#[test]
fn promise_6_what_a_killed_worker_shared_is_taken_back_by_the_next() {
    let proxy = Proxy::start();
    let saved = Saved::new(Installed::new("lent-killed"), "lent-killed");
    let (own, id) = (&saved.own, saved.id.as_str());
    let at = location_at("lent-killed", &proxy.endpoint());
    add_lent(own, &at);
    // its snapshots are copied, and still shared
    proxy.hold("PUT", "/report.json", 1);
    let copy = ["copy", id, "--to", "lent", "--copy-to-region", REGION, "--share-with-account", LENT, "-o", "json"];
    let args = own.args(&copy);
    let run = backup_command(A, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    proxy.wait_held(1);
    assert_eq!(snapshot(&saved.snapshot).shared_with, [LENT.to_owned()].into());
    let namespace = &own.namespace.name;
    let pods = get(A, &["pods", "-n", namespace, "-l", "kubectl-backup/verb=copy"]);
    let pod = pods["items"][0]["metadata"]["name"].as_str().expect("a pod");
    kubectl(A, &["delete", "pod", "-n", namespace, pod, "--grace-period=0", "--force"]).exits(0);
    proxy.release();
    let told: Value = Ran::ended(run).exits(0).json();
    assert_eq!((&told["snapshots"], &told["sharedWith"]), (&json!(1), &Value::Null), "{told}");
    assert_eq!(snapshot(&saved.snapshot).shared_with, BTreeSet::new());
    let copies = ec2().0.snapshots(REGION);
    let copies = copies.iter().filter(|one| one.tags.get("kubectl-backup/copy-of") == Some(&saved.snapshot));
    assert_eq!(copies.map(|copy| copy.account.as_str()).collect::<Vec<_>>(), [LENT], "copied once");
    let left = keys(&format!("{}/", at.prefix));
    assert!(!left.iter().any(|key| key.ends_with("/shared.json")), "{left:?}");
}
