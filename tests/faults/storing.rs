//! Backups while the store fails. A store's errors are final: its own retries are behind them.

use crate::api::{self, Api};
use crate::bucket::{Bucket, Fault};
use crate::run::{ID, Scope, Worker, assert_nothing_left, ending, files, folder, read_back};
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::pipeline::sweep;
use std::path::Path;

/// Every call of a run without faults, and which of them writes the manifest.
pub(crate) async fn calls(scope: Scope) -> (Vec<(String, usize)>, usize) {
    let (api, folder) = (Api::busy(), folder());
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&api, &bucket, scope).await), "Complete");
    let calls = bucket.seen();
    let commit = calls.iter().position(|(name, _)| *name == manifest()).unwrap();
    assert!(commit > 15 && commit < calls.len() - 1, "{calls:?}");
    (calls, commit)
}

pub(crate) fn manifest() -> String {
    format!("create backups/{ID}.json")
}

#[tokio::test(start_paused = true)]
async fn no_backup_is_listed_when_any_call_fails() {
    let (calls, commit) = calls(Scope::Shop).await;
    for (place, (name, number)) in calls.iter().enumerate() {
        for fault in [Fault::Refused, Fault::Unavailable, Fault::Lost] {
            let about = format!("{name} #{number}: {fault:?}");
            let (api, folder) = (Api::busy(), folder());
            let bucket = Bucket::new(folder.path()).await;
            bucket.fault(name, *number, fault);
            let result = Worker::default().back_up(&api, &bucket, Scope::Shop).await;
            if place > commit || place == commit && fault == Fault::Lost {
                // what is swept, or what the manifest says itself
                assert_eq!(ending(&result), "Complete", "{about}");
                read_back(&api, &bucket, Scope::Shop, &about).await;
                continue;
            }
            assert!(result.is_err(), "{about}: {}", ending(&result));
            assert!(!bucket.root().join("backups").exists(), "{about}");
            if place == commit && fault == Fault::Unavailable {
                assert!(ending(&result).contains("not known"), "{}", ending(&result));
            } else if !(name.starts_with("upload") && fault == Fault::Lost) {
                assert_nothing_left(bucket.root(), &about);
            }
            let later = Timestamp::now().checked_add(SignedDuration::from_hours(48)).unwrap();
            sweep::garbage(&bucket, later).await.unwrap();
            assert_eq!(files(bucket.root()).len(), 0, "{about}: {:?}", files(bucket.root()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_manifest_whose_answer_is_lost_is_ours() {
    for fault in [Fault::Lost, Fault::LostExists] {
        let (api, folder) = (Api::busy(), folder());
        let bucket = Bucket::new(folder.path()).await;
        bucket.fault(&manifest(), 0, fault);
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_eq!(ending(&result), "Complete", "{fault:?}");
        let backup = read_back(&api, &bucket, Scope::Cluster, "lost").await;
        assert_eq!(backup.manifest.attempt.as_str(), "first");
    }
}

/// A backup that exists must never lose its data, whatever else goes wrong around its manifest.
#[tokio::test(start_paused = true)]
async fn a_manifest_that_may_have_arrived_keeps_its_data() {
    let key = format!("backups/{ID}.json");
    for lost in [Fault::Lost, Fault::LostExists] {
        for (asked, failing) in [("list", Fault::Unavailable), ("get", Fault::Unavailable), ("get", Fault::Refused)] {
            let (api, folder) = (Api::busy(), folder());
            let bucket = Bucket::new(folder.path()).await;
            bucket.fault(&manifest(), 0, lost).fault(&format!("{asked} {key}"), 0, failing);
            let result = Worker::default().back_up(&api, &bucket, Scope::Shop).await;
            assert!(ending(&result).contains("not known"), "{}", ending(&result));
            read_back(&api, &bucket, Scope::Shop, "it did arrive").await;
            // and the next try of the same run finds it
            let next = Worker::named("second").back_up(&api, &bucket, Scope::Shop).await;
            assert_eq!(ending(&next), "Complete");
            assert_eq!(read_back(&api, &bucket, Scope::Shop, "again").await.manifest.attempt.as_str(), "first");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_attempts_backup_stands_and_ours_goes() {
    let (api, folder) = (Api::busy(), folder());
    let bucket = Bucket::new(folder.path()).await;
    bucket.fault(&manifest(), 0, Fault::Theirs);
    let result = Worker::default().back_up(&api, &bucket, Scope::Shop).await;
    let done = result.unwrap();
    assert!(done.message.contains("by another worker"), "{}", done.message);
    let left = files(bucket.root());
    let expected = [format!("backups/{ID}.json"), format!("data/{ID}/first/log.jsonl.zst")];
    assert_eq!(left.iter().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn two_attempts_make_one_backup() {
    let (api, folder) = (Api::busy(), folder());
    let bucket = Bucket::new(folder.path()).await;
    let (one, two) = (Worker::default(), Worker::named("second"));
    let both = futures::join!(one.back_up(&api, &bucket, Scope::Shop), two.back_up(&api, &bucket, Scope::Shop));
    assert_eq!((ending(&both.0).as_str(), ending(&both.1).as_str()), ("Complete", "Complete"));
    let backup = read_back(&api, &bucket, Scope::Shop, "two").await;
    let stands = backup.manifest.attempt.as_str();
    let data = files(bucket.root()).into_iter().filter(|file| file.ends_with("objects.tar.zst"));
    assert_eq!(data.collect::<Vec<_>>(), [format!("data/{ID}/{stands}/objects.tar.zst")]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_bucket_slows_the_lists_down_and_fails_nothing() {
    let (calls, _) = calls(Scope::Cluster).await;
    let (api, folder) = (Api::busy(), folder());
    let bucket = Bucket::new(folder.path()).await;
    for (name, number) in calls {
        bucket.fault(&name, number, Fault::Slow);
    }
    let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
    assert_eq!(ending(&result), "Complete");
    read_back(&api, &bucket, Scope::Cluster, "slow").await;
}

/// A run that takes more than half a day, in which something happens to its objects just before its log is stored.
async fn long_run(pace: u32, meanwhile: fn(&Path)) -> (String, Bucket, tempfile::TempDir) {
    let (api, folder) = (Api::new(World::full()), folder());
    api.fault("GET /apis", None, api::Fault::Slow);
    let bucket = Bucket::new(folder.path()).await;
    let objects = bucket.root().join(format!("data/{ID}/first/objects.tar.zst"));
    bucket.at_each(move |name, _| {
        if name == format!("finish data/{ID}/first/log.jsonl.zst") {
            meanwhile(&objects);
        }
    });
    let result = Worker { pace, ..Worker::default() }.back_up(&api, &bucket, Scope::Shop).await;
    (ending(&result), bucket, folder)
}

#[tokio::test(start_paused = true)]
async fn a_long_run_whose_data_was_swept_is_no_backup() {
    let looks = |bucket: &Bucket| bucket.seen().iter().any(|(name, _)| *name == format!("list data/{ID}/first/"));
    let (ended, bucket, _folder) = long_run(1, |_| ()).await;
    assert_eq!((ended.as_str(), looks(&bucket)), ("Complete", false), "nobody sweeps what is so young");
    let (ended, bucket, _folder) = long_run(60, |_| ()).await;
    assert_eq!((ended.as_str(), looks(&bucket)), ("Complete", true));
    let cut = |path: &Path| std::fs::write(path, "x").unwrap();
    for (meanwhile, found) in [(remove as fn(&Path), "gone"), (cut, "1 bytes instead of")] {
        let (ended, bucket, _folder) = long_run(60, meanwhile).await;
        assert!(ended.contains(&format!("objects.tar.zst` that this run stored is {found}")), "{ended}");
        assert_nothing_left(bucket.root(), found);
    }
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}
