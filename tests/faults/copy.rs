//! A backup copied into another location: whole, or not at all.

use crate::api::Api;
use crate::bucket::{Bucket, Fault};
use crate::restore::backed_up;
use crate::run::{ID, Worker, ending, exit_code, files, folder, read_archive, result_of};
use crate::world::World;
use kubectl_backup::config::Location;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::copy::{CopyResult, CopyTask};
use kubectl_backup::operations::{Done, Query, Verb};
use kubectl_backup::report::ExitCode;
use std::path::Path;

async fn copy(worker: &Worker, bucket: &Bucket, to: &Path) -> anyhow::Result<Done> {
    let to = Location::parse_url(&format!("file://{}", to.display())).unwrap();
    let query = Query { backup: BackupQuery::parse("latest").unwrap(), from_cluster: None };
    let task = CopyTask { query, to, region: None, kms_key: None, share_with: None, timeout_seconds: 60 };
    worker.run("copy-20261120-150000-ffff", Verb::Copy(Box::new(task)), &Api::new(World::full()), bucket).await
}

fn was_there(done: &anyhow::Result<Done>) -> bool {
    result_of::<CopyResult>(done).was_there
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_the_backup_and_copying_again_changes_nothing() {
    let ((_source, bucket), to) = (backed_up().await, folder());
    let done = copy(&Worker::named("copier"), &bucket, to.path()).await;
    assert_eq!((ending(&done).as_str(), was_there(&done)), ("Complete", false));
    let (ours, theirs) = (read_archive(&bucket, "source").await, Bucket::new(to.path()).await);
    let copied = read_archive(&theirs, "copy").await;
    assert_eq!(copied.manifest.files.objects.sha256, ours.manifest.files.objects.sha256);
    assert_eq!(copied.manifest.copied_from, Some(format!("file://{}", bucket.root().display())));
    assert_eq!(copied.manifest.attempt.as_str(), "copier");
    let before = files(to.path());
    let again = copy(&Worker::named("second"), &bucket, to.path()).await;
    assert_eq!((ending(&again).as_str(), was_there(&again)), ("Complete", true));
    assert_eq!(files(to.path()), before);
    assert_eq!(exit_code(&copy(&Worker::default(), &bucket, bucket.root()).await), ExitCode::Usage, "onto itself");
    // another backup of that id
    let path = to.path().join(format!("backups/{ID}.json"));
    let digest = ours.manifest.files.objects.sha256.to_string();
    let other = std::fs::read_to_string(&path).unwrap().replace(&digest, &"0".repeat(64));
    std::fs::write(&path, other).unwrap();
    assert_eq!(exit_code(&copy(&Worker::default(), &bucket, to.path()).await), ExitCode::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_copying_that_is_killed_or_fails_at_any_call_leaves_no_backup_there() {
    let ((_source, bucket), to) = (backed_up().await, folder());
    assert_eq!(ending(&copy(&Worker::named("first"), &bucket, to.path()).await), "Complete");
    let calls = bucket.seen();
    assert!(calls.len() > 5, "{calls:?}");
    for (name, number) in calls {
        for fault in [Fault::Kill, Fault::Refused] {
            let about = format!("{name} #{number}: {fault:?}");
            let ((source, shaky), to) = (backed_up().await, folder());
            shaky.fault(&name, number, fault);
            let worker = Worker::named("first");
            tokio::select! {
                done = copy(&worker, &shaky, to.path()) => assert!(done.is_err(), "{about}: {}", ending(&done)),
                () = shaky.killed() => (),
            }
            assert!(!to.path().join("backups").exists(), "{about}");
            if fault == Fault::Refused {
                assert!(files(to.path()).is_empty(), "{about}: {:?}", files(to.path()));
            }
            let bucket = Bucket::new(source.path()).await;
            let second = copy(&Worker::named("second"), &bucket, to.path()).await;
            assert_eq!(ending(&second), "Complete", "{about}");
            read_archive(&Bucket::new(to.path()).await, &about).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn damage_is_not_copied() {
    for name in ["objects.tar.zst", "index.jsonl.zst", "report.json", "log.jsonl.zst"] {
        let ((source, bucket), to) = (backed_up().await, folder());
        let path = source.path().join(format!("data/{ID}/first/{name}"));
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let done = copy(&Worker::named("copier"), &bucket, to.path()).await;
        assert_eq!(exit_code(&done), ExitCode::Integrity, "{name}: {}", ending(&done));
        assert!(files(to.path()).iter().all(|file| file.ends_with("log.jsonl.zst")), "{name}: {:?}", files(to.path()));
    }
}
