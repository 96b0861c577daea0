//! Claims that the CSI driver fills: the objects that it needs for that are made once, waited for, and removed again.

use crate::api::{Api, Fault};
use crate::world::World;
use kubectl_backup::id::BackupId;
use kubectl_backup::report::Events;
use kubectl_backup::resource::Kind;
use kubectl_backup::rules::volumes::import::Import;
use kubectl_backup::volumes::Error;
use kubectl_backup::volumes::import::{Filled, Imports};
use kubectl_backup::volumes::record::{EbsVolume, Method, Snapshot, VolumeCopy};
use kubectl_backup::volumes::restore::{Way, Wish};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

const CONTENTS: &str = "POST /apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
const SNAPSHOTS: &str = "POST /apis/snapshot.storage.k8s.io/v1/namespaces/shop/volumesnapshots";

/// A cluster with VolumeSnapshots.
fn api() -> Api {
    let mut world = World::empty();
    for resource in ["volumesnapshotcontents", "volumesnapshots"] {
        let name = format!("{resource}.snapshot.storage.k8s.io");
        world.put("customresourcedefinitions", None, &name, "", r#""spec":{}"#);
    }
    world.put("namespaces", None, "shop", "", r#""spec":{}"#);
    Api::new(world)
}

fn imports(api: &Api, restore: &str) -> Imports {
    let id = BackupId::parse(restore).unwrap();
    let claims = Kind {
        group: String::new(),
        version: "v1".into(),
        kind: "PersistentVolumeClaim".into(),
        resource: "persistentvolumeclaims".into(),
        namespaced: true,
    };
    Imports::new(&api.cluster().of_run(&id), claims, &id, &Events::ignored())
}

fn filled(claims: &[&str]) -> Vec<Filled> {
    let one = |claim: &&str| {
        let snapshot = Snapshot { id: format!("snap-{claim}"), ..Snapshot::default() };
        let copy = VolumeCopy {
            namespace: "shop".into(),
            claim: (*claim).to_owned(),
            volume: format!("pv-{claim}"),
            method: Method::EbsSnapshot,
            source: EbsVolume::default(),
            snapshot,
        };
        let import = Import { driver: "ebs.csi.aws.com".into(), class: "fast".into(), mode: "Filesystem".into() };
        let (way, zone) = (Way::Filled(import), String::new());
        let wish = Wish { volume: copy.volume.clone(), copy, namespace: "shop".into(), there: None, zone, way };
        Filled { name: format!("kubectl-backup-{claim}"), wish }
    };
    claims.iter().map(one).collect()
}

/// All objects of a kind, by place.
fn all(api: &Api, resource: &str) -> Vec<(String, Value)> {
    let of = crate::world::kind(resource);
    let state = api.state();
    let objects = state.world.all().filter(|(kind, ..)| *kind == of);
    objects.map(|(_, place, text)| (place.to_owned(), serde_json::from_str(text).unwrap())).collect()
}

fn left(api: &Api) -> BTreeSet<String> {
    ["volumesnapshotcontents", "volumesnapshots"].iter().flat_map(|of| all(api, of)).map(|(place, _)| place).collect()
}

/// Writes an object anew, as a controller does.
fn write(api: &Api, resource: &str, place: &str, change: impl Fn(&mut Value)) {
    let of = crate::world::kind(resource);
    let mut state = api.state();
    let text = state.world.get(of, place).unwrap().to_owned();
    let mut object: Value = serde_json::from_str(&text).unwrap();
    change(&mut object);
    let revision = state.world.next(of);
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    let meta = object["metadata"].to_string();
    state.world.insert(of, place, Some((object.to_string(), meta)));
}

/// Plays the controllers of a cluster, which say this of all objects of some kinds.
fn play(api: &Api, resources: &'static [&'static str], status: Value) -> tokio::task::JoinHandle<()> {
    let api = api.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(700)).await;
            for resource in resources {
                for (place, object) in all(&api, resource) {
                    if object.get("status").is_none() {
                        write(&api, resource, &place, |object| object["status"] = status.clone());
                    }
                }
            }
        }
    })
}

const BOTH: &[&str] = &["volumesnapshotcontents", "volumesnapshots"];

/// Makes all that claims need.
async fn made(api: &Api, imports: &Imports, all: &[Filled]) -> Result<(), Error> {
    let controllers = play(api, BOTH, json!({"readyToUse": true}));
    let result = async {
        imports.prepare(all, std::future::pending()).await?;
        imports.bind(all).await
    };
    let result = result.await;
    controllers.abort();
    result
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_imported_once_whatever_answers_get_lost_and_is_retained() {
    let api = api();
    let claims = filled(&["data", "wal"]);
    let imports = imports(&api, "restore-1");
    for name in [CONTENTS, SNAPSHOTS] {
        api.fault(name, Some(0), Fault::ResetAfter).fault(name, Some(1), Fault::Reset);
    }
    made(&api, &imports, &claims).await.unwrap();
    made(&api, &imports, &claims).await.unwrap(); // as the next try of the same restore does
    let contents = all(&api, "volumesnapshotcontents");
    let places: Vec<&str> = contents.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["kubectl-backup-data", "kubectl-backup-wal"]);
    let (spec, meta) = (&contents[0].1["spec"], &contents[0].1["metadata"]);
    let reference = json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "namespace": "shop", "name": "kubectl-backup-data"});
    let expected = json!({"driver": "ebs.csi.aws.com", "deletionPolicy": "Retain", "sourceVolumeMode": "Filesystem",
        "source": {"snapshotHandle": "snap-data"}, "volumeSnapshotRef": reference});
    assert_eq!(spec, &expected);
    assert_eq!(meta["labels"]["kubectl-backup/restore"], "restore-1");
    let (place, snapshot) = all(&api, "volumesnapshots").remove(0);
    assert_eq!(place, "shop/kubectl-backup-data");
    assert_eq!(snapshot["spec"]["source"], json!({"volumeSnapshotContentName": "kubectl-backup-data"}));
    // one that goes is waited for, and made anew
    let going = |one: &mut Value| {
        one["metadata"]["finalizers"] = json!(["a"]);
        one["metadata"]["deletionTimestamp"] = json!("2026-11-20T10:00:00Z");
    };
    write(&api, "volumesnapshotcontents", "kubectl-backup-data", going);
    let gone = api.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        gone.state().world.delete("volumesnapshotcontents", "kubectl-backup-data");
    });
    made(&api, &imports, &claims).await.unwrap();
    assert!(all(&api, "volumesnapshotcontents")[0].1["metadata"].get("deletionTimestamp").is_none());
    // another's of that name is not taken
    let anothers = |one: &mut Value| {
        one["metadata"]["labels"] = json!({});
        one["metadata"]["managedFields"] = json!([{"manager": "kubectl-create"}]);
    };
    write(&api, "volumesnapshotcontents", "kubectl-backup-wal", anothers);
    let error = imports.prepare(&claims, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("another VolumeSnapshotContent `kubectl-backup-wal`"), "{error}");
    assert!(left(&api).contains("kubectl-backup-wal"), "and it isn't removed");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_a_snapshot_up_is_named_and_nothing_is_left() {
    let claims = filled(&["data", "wal"]);
    // no csi-snapshotter
    let world = api();
    let begun = Instant::now();
    let error = imports(&world, "restore-1").prepare(&claims, std::future::pending()).await.unwrap_err().to_string();
    assert!(begun.elapsed() < Duration::from_secs(130), "{:?}", begun.elapsed());
    for part in [
        "can't be filled from snapshot `snap-",
        "ebs.csi.aws.com hasn't taken up the VolumeSnapshotContent `kubectl-backup-",
        "\nhint: `--import-snapshots=false`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(left(&world), BTreeSet::new());
    // no snapshot controller
    let world = api();
    let controllers = play(&world, &["volumesnapshotcontents"], json!({"readyToUse": true}));
    let one = imports(&world, "restore-1");
    one.prepare(&claims, std::future::pending()).await.unwrap();
    let error = one.bind(&claims).await.unwrap_err().to_string();
    assert!(error.contains("the snapshot controller hasn't taken up the VolumeSnapshot `shop/kubectl-"), "{error}");
    controllers.abort();
    one.settle(&claims, false).await.unwrap();
    assert_eq!(left(&world), BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn what_the_driver_says_is_told_in_its_words_and_soon() {
    let world = api();
    let claims = filled(&["data"]);
    let status = json!({"readyToUse": false, "error": {"message": "UnauthorizedOperation: not you"}});
    let controllers = play(&world, BOTH, status);
    let begun = Instant::now();
    let error = imports(&world, "restore-1").prepare(&claims, std::future::pending()).await.unwrap_err().to_string();
    controllers.abort();
    assert!(error.contains("ebs.csi.aws.com says: UnauthorizedOperation: not you"), "{error}");
    assert!((20..30).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(left(&world), BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_cancelled_or_refused_on_the_way_leaves_nothing() {
    let claims = filled(&["data", "wal"]);
    let world = api();
    let error =
        imports(&world, "restore-1").prepare(&claims, tokio::time::sleep(Duration::from_secs(3))).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!((left(&world), all(&world, "volumesnapshotcontents").len()), (BTreeSet::new(), 0));
    world.fault(CONTENTS, Some(3), Fault::Status(403));
    let error = imports(&world, "restore-1").prepare(&claims, std::future::pending()).await.unwrap_err();
    assert!(matches!(&error, Error::Cluster(error) if error.is_forbidden()), "{error}");
    assert_eq!(left(&world), BTreeSet::new());
}

/// A claim that is filled from an import.
fn claim(api: &Api, name: &str, meta: &str, phase: &str) {
    let source = format!(r#"{{"kind":"VolumeSnapshot","name":"kubectl-backup-{name}"}}"#);
    let rest = format!(r#""spec":{{"dataSource":{source}}},"status":{{"phase":"{phase}"}}"#);
    api.state().world.put("persistentvolumeclaims", Some("shop"), name, meta, &rest);
}

const ASKED: &str = r#","annotations":{"volume.kubernetes.io/storage-provisioner":"ebs.csi.aws.com"}"#;

#[tokio::test(start_paused = true)]
async fn what_a_claim_needs_stays_until_it_is_bound() {
    let world = api();
    let claims = filled(&["bound", "waits", "asked", "missing", "taken"]);
    let one = imports(&world, "restore-1");
    made(&world, &one, &claims).await.unwrap();
    claim(&world, "bound", ASKED, "Bound");
    claim(&world, "waits", "", "Pending");
    claim(&world, "asked", ASKED, "Pending");
    claim(&world, "taken", ASKED, "Bound");
    let delete = |content: &mut Value| content["spec"]["deletionPolicy"] = json!("Delete");
    write(&world, "volumesnapshotcontents", "kubectl-backup-taken", delete);
    let message = r#""message":"failed to provision\n volume: UnauthorizedOperation""#;
    world.state().world.put("events", Some("shop"), "asked.1", "", message);
    let begun = Instant::now();
    let ending = one.settle(&claims, true).await.unwrap();
    assert!((30..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(ending.waiting.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shop/waits"]);
    let why = Some("failed to provision volume: UnauthorizedOperation".to_owned());
    assert_eq!((ending.unfilled[0].0.to_string(), &ending.unfilled[0].1), ("shop/asked".to_owned(), &why));
    assert!(ending.left.iter().all(|left| !left.uid.is_empty()) && ending.left.len() == 4, "{ending:?}");
    let names = |claims: &[&str]| -> BTreeSet<String> {
        let both = |claim: &&str| [format!("kubectl-backup-{claim}"), format!("shop/kubectl-backup-{claim}")];
        claims.iter().flat_map(both).collect()
    };
    assert_eq!(
        left(&world),
        names(&["asked", "taken", "waits"]),
        "a snapshot in EC2 goes with a content that says Delete"
    );

    // a later restore finds what is bound by then; what no claim names, only after a day
    claim(&world, "asked", ASKED, "Bound");
    let other = imports(&world, "restore-2");
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let made_at = |object: &mut Value| object["metadata"]["creationTimestamp"] = json!("2026-11-20T10:00:00Z");
    write(&world, "volumesnapshotcontents", "kubectl-backup-waits", made_at);
    write(&world, "volumesnapshotcontents", "kubectl-backup-taken", |one| one["metadata"]["labels"] = json!({}));
    other.sweep(at("2026-11-20T12:00:00Z")).await.unwrap();
    assert_eq!(left(&world), names(&["taken", "waits"]));
    world.state().world.delete("persistentvolumeclaims", "shop/waits");
    other.sweep(at("2026-11-20T12:00:00Z")).await.unwrap();
    assert_eq!(left(&world), names(&["taken", "waits"]));
    other.sweep(at("2026-11-21T12:00:00Z")).await.unwrap();
    assert_eq!(left(&world), names(&["taken"]));
}
