//! `kill -9` at any call of the store: nothing is listed, the next try completes, and what the killed one left goes
//! after a day, and nothing else does.

use crate::api::Api;
use crate::bucket::{Bucket, Fault};
use crate::run::{Scope, Worker, ending, files, folder, read_back};
use crate::storing::calls;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::pipeline::sweep;
use kubectl_backup::store::Store;
use std::collections::BTreeSet;

/// What others keep in the bucket, and no run may touch.
const OTHERS: [&str; 5] = [
    "restores/shop-20261120-110000-aaaa.json",
    "data/shop-20261120-110000-aaaa/r1/report.json",
    "data/shop-20261120-110000-aaaa/r1/log.jsonl.zst",
    "data/README.txt",
    "elsewhere/notes.txt",
];

/// A run that is killed at a call.
async fn killed(api: &Api, bucket: &Bucket, about: &str) {
    let worker = Worker::named("killed");
    tokio::select! {
        result = worker.back_up(api, bucket, Scope::Shop) => panic!("{about}: it lived: {}", ending(&result)),
        () = bucket.killed() => (),
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_call_leaves_no_backup_and_the_next_try_completes() {
    let (calls, commit) = calls(Scope::Shop).await;
    for (place, (name, number)) in calls.iter().enumerate() {
        for fault in [Fault::Kill, Fault::KillAfter] {
            let about = format!("{name} #{number}: {fault:?}");
            let (api, folder) = (Api::busy(), folder());
            let shaky = Bucket::new(folder.path()).await;
            for key in OTHERS {
                shaky.create(key, Bytes::from_static(b"{}")).await.unwrap();
            }
            // calls are counted from the start of the run under test
            let shaky = Bucket::new(folder.path()).await;
            // its data stands under the killed attempt's name
            shaky.fault(&name.replace("/first/", "/killed/"), *number, fault);
            killed(&api, &shaky, &about).await;
            let is_committed = place > commit || (place == commit && fault == Fault::KillAfter);
            assert_eq!(folder.path().join("backups").exists(), is_committed, "{about}");

            let bucket = Bucket::new(folder.path()).await;
            let result = Worker::named("second").back_up(&api, &bucket, Scope::Shop).await;
            assert_eq!(ending(&result), "Complete", "{about}");
            let backup = read_back(&api, &bucket, Scope::Shop, &about).await;
            let stands = if is_committed { "killed" } else { "second" };
            assert_eq!(backup.manifest.attempt.as_str(), stands, "{about}");

            let before = files(folder.path());
            sweep::garbage(&bucket, Timestamp::now()).await.unwrap();
            assert_eq!(files(folder.path()), before, "{about}: what is young stays");
            let later = Timestamp::now().checked_add(SignedDuration::from_hours(48)).unwrap();
            sweep::garbage(&bucket, later).await.unwrap();
            let mut expected: BTreeSet<String> = OTHERS.iter().map(|key| (*key).to_owned()).collect();
            expected.extend(before.into_iter().filter(|file| {
                let of_backup = file.contains(&format!("/{stands}/")) && !file.ends_with(".tmp");
                of_backup || file.starts_with("backups/")
            }));
            assert_eq!(files(folder.path()), expected, "{about}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_run_sweeps_by_itself() {
    let (api, folder) = (Api::busy(), folder());
    let shaky = Bucket::new(folder.path()).await;
    shaky.fault(&calls(Scope::Shop).await.0[5].0.replace("/first/", "/killed/"), 0, Fault::Kill);
    killed(&api, &shaky, "by itself").await;
    assert!(files(folder.path()).iter().any(|file| file.ends_with(".tmp")), "{:?}", files(folder.path()));
    let bucket = Bucket::new(folder.path()).await;
    let worker = Worker { days: 2, ..Worker::named("second") };
    let result = worker.back_up(&api, &bucket, Scope::Shop).await;
    assert_eq!(ending(&result), "Complete");
    let left = files(folder.path());
    assert!(left.iter().all(|file| file.contains("/second/") || file.starts_with("backups/")), "{left:?}");
}
