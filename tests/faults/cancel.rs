//! A signal at any moment: nothing that looks like a backup stays, and nobody waits for a server that is silent.

use crate::api::{Api, Fault};
use crate::backup::requests;
use crate::bucket::Bucket;
use crate::run::{ID, Scope, Worker, assert_nothing_left, ending, exit_code, folder, read_back};
use crate::storing::{calls, manifest};
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::{Query, Verb};
use kubectl_backup::report::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_signal_at_any_request_interrupts() {
    for scope in [Scope::Shop, Scope::Cluster] {
        for (name, number) in requests(scope).await {
            for fault in [None, Some(Fault::Silent), Some(Fault::Stalls(50)), Some(Fault::RetryAfter(503))] {
                let about = format!("{name} #{number}: {fault:?}");
                let (api, folder, worker) = (Api::busy(), folder(), Worker::default());
                if let Some(fault) = fault {
                    api.fault(&name, None, fault);
                }
                let (cancel, at) = (worker.cancel.clone(), (name.clone(), number));
                // such a request may never be made again when the one before it goes wrong
                let number = if fault.is_some() { 0 } else { number };
                api.at_each(move |name, of| {
                    if name == at.0 && of == number {
                        cancel.cancel();
                    }
                });
                let bucket = Bucket::new(folder.path()).await;
                let begun = Instant::now();
                let result = worker.back_up(&api, &bucket, scope).await;
                assert_eq!(exit_code(&result), ExitCode::Interrupted, "{about}: {}", ending(&result));
                assert!(begun.elapsed() < Duration::from_secs(2), "{about}: {:?}", begun.elapsed());
                assert_nothing_left(bucket.root(), &about);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_at_any_call_of_the_store_interrupts_until_the_manifest_is_written() {
    let (calls, commit) = calls(Scope::Shop).await;
    for (place, (name, number)) in calls.into_iter().enumerate() {
        let about = format!("{name} #{number}");
        let (api, folder, worker) = (Api::busy(), folder(), Worker::default());
        let bucket = Bucket::new(folder.path()).await;
        let (cancel, at) = (worker.cancel.clone(), (name, number));
        bucket.at_each(move |name, number| {
            if (name, number) == (at.0.as_str(), at.1) {
                cancel.cancel();
            }
        });
        let result = worker.back_up(&api, &bucket, Scope::Shop).await;
        if place < commit {
            assert_eq!(exit_code(&result), ExitCode::Interrupted, "{about}: {}", ending(&result));
            assert_nothing_left(bucket.root(), &about);
        } else {
            assert_eq!(ending(&result), "Complete", "{about}");
            read_back(&api, &bucket, Scope::Shop, &about).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_leaves_its_log_and_a_later_try_completes() {
    let (api, folder, worker) = (Api::busy(), folder(), Worker::default());
    let cancel = worker.cancel.clone();
    let bucket = Bucket::new(folder.path()).await;
    bucket.at_each(move |name, _| {
        if name.starts_with("finish") {
            cancel.cancel();
        }
    });
    let result = worker.back_up(&api, &bucket, Scope::Shop).await;
    assert_eq!(exit_code(&result), ExitCode::Interrupted, "{}", ending(&result));
    assert!(bucket.seen().iter().all(|(name, _)| *name != manifest()), "the manifest was tried");
    let left = crate::run::files(bucket.root());
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left.first().unwrap().ends_with("/first/log.jsonl.zst"), "{left:?}");
    let logs = async |name: &str| {
        let query = Query { backup: BackupQuery::parse(name).unwrap(), from_cluster: None };
        Worker::named("reader").run("logs-20261120-150000-llll", Verb::Logs(query), &api, &bucket).await
    };
    let told =
        logs(&ID[..ID.len() - 4]).await.expect("the log of a run that is no backup").result.unwrap().open().unwrap();
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains("Saving") && told.contains("Committing"), "{told}");
    assert_eq!(exit_code(&logs("nothing").await), ExitCode::NotFound);
    let again = Worker::named("second").back_up(&api, &bucket, Scope::Shop).await;
    assert_eq!(ending(&again), "Complete");
    read_back(&api, &bucket, Scope::Shop, "again").await;
}
