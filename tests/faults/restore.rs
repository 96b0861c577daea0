//! Restores while the API server fails: they converge, nothing is made twice, and nothing is written of an archive that
//! isn't whole.

use crate::api::{Api, Fault};
use crate::bucket::{self, Bucket};
use crate::run::{ID, Scope, Worker, ending, exit_code, files, folder};
use crate::world::{World, is_saved, kind, uid};
use bytes::Bytes;
use jiff::Timestamp;
use kubectl_backup::archive::encoders::Encoders;
use kubectl_backup::archive::frame::{FrameBuilder, Object, end_of_archive};
use kubectl_backup::archive::index::IndexWriter;
use kubectl_backup::id::{BackupId, Digest};
use kubectl_backup::pipeline::fetch;
use kubectl_backup::report::ExitCode;
use kubectl_backup::resource::Kind;
use kubectl_backup::store::Store;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) const RESTORE: &str = "shop-20261120-120000-aaaa";

/// A bucket with a backup of everything.
pub(crate) async fn backed_up() -> (tempfile::TempDir, Bucket) {
    let (api, folder) = (Api::new(World::full()), folder());
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Cluster).await), "Complete");
    let bucket = Bucket::new(folder.path()).await;
    (folder, bucket)
}

/// What the records of earlier restores are in the way of.
fn forget_restores(bucket: &Bucket) {
    for folder in [bucket.root().join("restores"), bucket.root().join("data").join(RESTORE)] {
        if folder.exists() {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

fn posts(api: &Api) -> Vec<(String, usize)> {
    api.seen().into_iter().filter(|(name, _)| name.starts_with("POST")).collect()
}

/// What a cluster holds, without what its API server gives anew.
pub(crate) fn contents(api: &Api) -> BTreeMap<(usize, String), Value> {
    let state = api.state();
    let known: BTreeMap<String, String> =
        state.world.all().map(|(kind, place, text)| (uid(text), format!("uid of {kind} {place}"))).collect();
    let clean = |text: &str| {
        let mut object: Value = serde_json::from_str(text).unwrap();
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.remove("uid");
        metadata.remove("resourceVersion");
        for owner in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
            let uid = known.get(owner["uid"].as_str().unwrap()).expect("an owner that is there");
            owner["uid"] = json!(uid);
        }
        object
    };
    state.world.all().map(|(kind, place, text)| ((kind, place.to_owned()), clean(text))).collect()
}

/// Checks that everything was restored, once, as a restore without faults does it.
fn assert_restored(api: &Api, whole: &BTreeMap<(usize, String), Value>, about: &str) {
    assert_eq!(&contents(api), whole, "{about}");
    let state = api.state();
    for (kind, place, _) in state.world.all() {
        assert_eq!(state.world.times_made(kind, place), 1, "{about}: {place}");
    }
}

/// A restore without faults: what the cluster holds then, and the requests it took.
async fn whole(bucket: &Bucket) -> (BTreeMap<(usize, String), Value>, Vec<(String, usize)>) {
    forget_restores(bucket);
    let target = Api::new(World::empty());
    let result = Worker::default().restore(RESTORE, &target, bucket).await;
    assert_eq!(ending(&result), "Complete");
    let found = contents(&target);
    let full = World::full();
    let expected: Vec<(usize, String)> = full
        .all()
        .filter(|(kind, place, _)| is_saved(*kind, place))
        .map(|(kind, place, _)| (kind, place.to_owned()))
        .collect();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
    (found, target.seen())
}

#[tokio::test(start_paused = true)]
async fn any_request_of_a_restore_may_fail_once() {
    let (_folder, bucket) = backed_up().await;
    let (whole, requests) = whole(&bucket).await;
    assert!(requests.iter().filter(|(name, _)| name.starts_with("POST")).count() > 40, "{requests:?}");
    let faults = [
        Fault::Status(429),
        Fault::RetryAfter(429),
        Fault::Status(500),
        Fault::RetryAfter(503),
        Fault::StatusStalls(503),
        Fault::Reset,
        Fault::ResetAfter,
        Fault::Silent,
        Fault::SilentAfter,
        Fault::BreaksOff(50),
        Fault::Ends(50),
        Fault::Stalls(50),
        Fault::Rots(30),
        Fault::Page,
        Fault::Slow,
    ];
    for (place, (name, number)) in requests.into_iter().enumerate() {
        // the first of a name meets all faults; those after it share them out
        let spread = faults.iter().enumerate().filter(|(at, _)| number == 0 || at % 5 == place % 5);
        for (_, &fault) in spread {
            let about = format!("{name} #{number}: {fault:?}");
            forget_restores(&bucket);
            let target = Api::new(World::empty());
            target.fault(&name, Some(number), fault);
            let result = Worker::default().restore(RESTORE, &target, &bucket).await;
            assert_eq!(ending(&result), "Complete", "{about}");
            assert_restored(&target, &whole, &about);
            let report = std::fs::read(bucket.root().join(format!("data/{RESTORE}/first/report.json"))).unwrap();
            let report: Value = serde_json::from_slice(&report).unwrap();
            let made = report["items"].as_array().unwrap().iter().filter(|item| item["verdict"] == "created").count();
            assert_eq!(made, whole.len() - 1, "{about}: all but kube-system, which was there");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_ever_is_told_and_the_next_restore_makes_only_that() {
    let (_folder, bucket) = backed_up().await;
    let (whole, requests) = whole(&bucket).await;
    for (name, _) in requests.into_iter().filter(|(name, number)| name.starts_with("POST") && *number == 0) {
        for fault in [Fault::Status(500), Fault::Status(403), Fault::Reset, Fault::ResetAfter, Fault::Stalls(50)] {
            let about = format!("{name}, always: {fault:?}");
            forget_restores(&bucket);
            let target = Api::new(World::empty());
            target.fault(&name, None, fault);
            let result = Worker::default().restore(RESTORE, &target, &bucket).await;
            assert_eq!(ending(&result), "Partial", "{about}");
            // the cluster as it was left, and nothing in the way any more
            let left = Api::new(target.state().world.clone());
            let missing = whole.len() - contents_count(&left);
            let happened = matches!(fault, Fault::ResetAfter | Fault::Stalls(_));
            assert_eq!(missing == 0, happened, "{about}: {missing} are missing");
            let again = Worker::named("second").restore("shop-20261120-130000-bbbb", &left, &bucket).await;
            assert_eq!(ending(&again), "Complete", "{about}");
            assert_eq!(posts(&left).len(), missing, "{about}");
            assert!(contents_count(&left) == whole.len(), "{about}");
            std::fs::remove_dir_all(bucket.root().join("restores")).unwrap();
            std::fs::remove_dir_all(bucket.root().join("data/shop-20261120-130000-bbbb")).unwrap();
        }
    }
}

fn contents_count(api: &Api) -> usize {
    api.state().world.all().count()
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_interrupted_at_any_write_goes_on_from_there() {
    let (_folder, bucket) = backed_up().await;
    let (whole, requests) = whole(&bucket).await;
    for (name, number) in requests {
        let about = format!("{name} #{number}");
        let last_wave = ["shop.example", "own.example", "novel.k8s.io"];
        let is_last_wave = last_wave.iter().any(|group| name.starts_with(&format!("POST /apis/{group}/")));
        forget_restores(&bucket);
        let (target, worker) = (Api::new(World::empty()), Worker::default());
        let (cancel, at) = (worker.cancel.clone(), (name, number));
        target.at_each(move |name, number| {
            if (name, number) == (at.0.as_str(), at.1) {
                cancel.cancel();
            }
        });
        let result = worker.restore(RESTORE, &target, &bucket).await;
        // the last wave may be through before anybody looks at the signal
        if result.is_ok() && is_last_wave {
            assert_restored(&target, &whole, &about);
            continue;
        }
        assert_eq!(exit_code(&result), ExitCode::Interrupted, "{about}: {}", ending(&result));
        let written = posts(&target).len();
        let again = Worker::named("second").restore(RESTORE, &target, &bucket).await;
        assert_eq!(ending(&again), "Complete", "{about}");
        let left = contents(&target);
        assert_eq!(left.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{about}");
        assert!(posts(&target).len() <= whole.len() - 1 + 2 * written, "{about}: what is there is not written again");
    }
}

/// How many objects a restore has made here.
fn whole_count(api: &Api) -> usize {
    api.state().world.all().count() - World::empty().all().count()
}

#[tokio::test(start_paused = true)]
async fn a_second_restore_makes_nothing() {
    let (_folder, bucket) = backed_up().await;
    let target = Api::new(World::empty());
    assert_eq!(ending(&Worker::default().restore(RESTORE, &target, &bucket).await), "Complete");
    let (before, written) = (contents(&target), posts(&target).len());
    // another run, and another attempt at the same one
    let all = format!("{} created", whole_count(&target));
    for (id, attempt, created) in [("shop-20261120-130000-bbbb", "first", "0 created"), (RESTORE, "second", &*all)] {
        let again = Worker::named(attempt).restore(id, &target, &bucket).await;
        assert_eq!(ending(&again), "Complete", "{id}");
        // what an earlier attempt made is the restore's work, too
        assert!(again.unwrap().message.contains(created), "{id}");
        assert_eq!((contents(&target), posts(&target).len()), (before.clone(), written), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_of_a_damaged_backup() {
    let (_folder, bucket) = backed_up().await;
    let read = fetch::open(&bucket, &BackupId::parse(ID).unwrap()).await.unwrap();
    let last = read.index.frames().last().unwrap();
    let objects = usize::try_from(last.offset + last.size).unwrap();
    let index = usize::try_from(read.manifest.files.index.size).unwrap();
    let damage = |file: &str, bytes: Option<Vec<u8>>| {
        let path = bucket.root().join(format!("data/{ID}/first/{file}"));
        let whole = std::fs::read(&path).unwrap();
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        move || std::fs::write(&path, &whole).unwrap()
    };
    let bytes = |file: &str| std::fs::read(bucket.root().join(format!("data/{ID}/first/{file}"))).unwrap();
    let mut cases: Vec<(&str, String, Option<Vec<u8>>)> = Vec::new();
    for (file, end) in [("objects.tar.zst", objects), ("index.jsonl.zst", index)] {
        for position in (0..end).step_by(29).chain([end - 1]) {
            let mut changed = bytes(file);
            changed[position] ^= 4;
            cases.push((file, format!("bit flipped at {position}"), Some(changed)));
        }
        cases.push((file, "cut".to_owned(), Some(bytes(file)[..end / 2].to_vec())));
        cases.push((file, "empty".to_owned(), Some(Vec::new())));
        cases.push((file, "missing".to_owned(), None));
    }
    for (file, what, changed) in cases {
        let mend = damage(file, changed);
        let target = Api::new(World::empty());
        let result = Worker::default().restore(RESTORE, &target, &bucket).await;
        assert_eq!(exit_code(&result), ExitCode::Integrity, "{file}: {what}: {}", ending(&result));
        assert_eq!(posts(&target), [], "{file}: {what}");
        assert!(!bucket.root().join("restores").exists(), "{file}: {what}");
        mend();
    }
    let whole = Worker::named("second").restore(RESTORE, &Api::new(World::empty()), &bucket).await;
    assert_eq!(ending(&whole), "Complete");
}

/// A backup of one ConfigMap `shop/settings`, all digests right, whose content is this.
async fn forged(content: &str) -> (tempfile::TempDir, Bucket) {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let kind = Kind {
        group: String::new(),
        version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        resource: "configmaps".to_owned(),
        namespaced: true,
    };
    let mut builder = FrameBuilder::new(&kind, &Encoders::default());
    let (namespace, name) = (Some("shop"), "settings");
    builder
        .push(&Object { namespace, name, uid: "", resource_version: "", json: content.as_bytes(), lacks_type: false })
        .unwrap();
    let frame = builder.take().unwrap().unwrap().compress().unwrap();
    let mut writer = IndexWriter::new().unwrap();
    let mut index = writer.frame(&frame).unwrap().to_vec();
    let end = end_of_archive().unwrap();
    index.extend_from_slice(&writer.finish(&end).unwrap());
    let objects = [frame.bytes.as_ref(), &end].concat();
    let mut written = serde_json::Map::new();
    for (field, file, bytes) in [
        ("objects", "objects.tar.zst", objects),
        ("index", "index.jsonl.zst", index),
        ("report", "report.json", b"{}".to_vec()),
        ("log", "log.jsonl.zst", Vec::new()),
    ] {
        let key = format!("data/{ID}/first/{file}");
        written.insert(field.to_owned(), json!({"key": key, "size": bytes.len(), "sha256": Digest::of(&bytes)}));
        bucket.create(&key, Bytes::from(bytes)).await.unwrap();
    }
    let now = Timestamp::now();
    let manifest = json!({
        "format": "kubectl-backup/1", "id": ID, "attempt": "first", "cluster": {"uid": "u", "version": "v1.36.3"},
        "scope": "cluster", "startedAt": now, "endedAt": now, "outcome": "Complete",
        "consistency": {"skewSeconds": 0.0}, "counts": {"objects": 1, "bytes": 1, "problems": 0, "omissions": 0},
        "files": written, "tool": "a forger"
    });
    bucket.create(&format!("backups/{ID}.json"), Bytes::from(manifest.to_string())).await.unwrap();
    (folder, bucket)
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_holds_another_object_than_its_index_says_is_refused() {
    let honest = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","namespace":"shop"}}"#;
    let changes = [
        ("\"settings\"", "\"other\""),
        ("\"shop\"", "\"blog\""),
        (",\"namespace\":\"shop\"", ""),
        ("ConfigMap", "Secret"),
        ("\"v1\"", "\"apps/v1\""),
        ("{\"name\"", "{\"nam\""),
        ("}}", "}"),
    ];
    for (from, to) in changes {
        assert!(honest.contains(from), "{from}");
        let (_folder, bucket) = forged(&honest.replacen(from, to, 1)).await;
        let target = Api::new(World::empty());
        let result = Worker::default().restore(RESTORE, &target, &bucket).await;
        assert_eq!(exit_code(&result), ExitCode::Integrity, "{from} -> {to}: {}", ending(&result));
        assert_eq!(posts(&target), [], "{from} -> {to}");
    }
    let (_folder, bucket) = forged(honest).await;
    let mut world = World::empty();
    world.put("namespaces", None, "shop", "", "\"spec\":{}");
    let target = Api::new(world);
    assert_eq!(ending(&Worker::default().restore(RESTORE, &target, &bucket).await), "Complete");
    assert!(target.state().world.get(kind("configmaps"), "shop/settings").is_some());
}

/// Deeper than any API server stores: a parser that goes along would need a stack without end.
#[tokio::test(start_paused = true)]
async fn json_that_is_a_bomb_costs_its_object_and_nothing_else() {
    let honest = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","namespace":"shop"},"data":0}"#;
    for (from, code) in [("\"data\":0", ExitCode::Partial), ("\"namespace\":\"shop\"", ExitCode::Integrity)] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}0{}", open.repeat(200_000), close.repeat(200_000));
            let field = from.split_once(':').unwrap().0;
            let (_folder, bucket) = forged(&honest.replacen(from, &format!("{field}:{deep}"), 1)).await;
            let mut world = World::empty();
            world.put("namespaces", None, "shop", "", "\"spec\":{}");
            let target = Api::new(world);
            let result = Worker::default().restore(RESTORE, &target, &bucket).await;
            assert_eq!(exit_code(&result), code, "{field} {open}: {}", ending(&result));
            assert_eq!(posts(&target), [], "{field} {open}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_call_of_the_store_may_fail_and_the_next_try_restores_all() {
    let (_folder, bucket) = backed_up().await;
    let (whole, _) = whole(&bucket).await;
    let calls = bucket.seen();
    for (name, number) in calls {
        for fault in [bucket::Fault::Unavailable, bucket::Fault::Lost, bucket::Fault::LostExists] {
            let about = format!("{name} #{number}: {fault:?}");
            forget_restores(&bucket);
            let shaky = Bucket::new(bucket.root()).await;
            shaky.fault(&name, number, fault);
            let target = Api::new(World::empty());
            let result = Worker::default().restore(RESTORE, &target, &shaky).await;
            let is_record = name.starts_with("create restores/");
            if is_record && fault == bucket::Fault::LostExists {
                assert_eq!(ending(&result), "Complete", "{about}");
            } else {
                assert!(result.is_err(), "{about}: {}", ending(&result));
            }
            let again = Worker::named("second").restore(RESTORE, &target, &bucket).await;
            assert_eq!(ending(&again), "Complete", "{about}");
            assert_restored(&target, &whole, &about);
            assert!(files(bucket.root()).contains(&format!("restores/{RESTORE}.json")), "{about}");
        }
    }
}
