//! Deleting while workers are killed: what is listed can be restored, and what isn't goes when it is asked for again.

use crate::api::Api;
use crate::bucket::{Bucket, Fault};
use crate::restore::{RESTORE, backed_up};
use crate::run::{ID, Scope, Worker, ending, exit_code, files, folder, read_archive, result_of};
use crate::world::World;
use bytes::Bytes;
use kubectl_backup::config::Location;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::delete::{DeleteResult, DeleteTask, Verdict};
use kubectl_backup::operations::restore::DryRun;
use kubectl_backup::operations::{Done, Verb};
use kubectl_backup::report::ExitCode;
use kubectl_backup::store::Store;

const DELETE: &str = "delete-20261120-150000-dddd";

fn task(ids: &[&str], dry_run: DryRun) -> Verb {
    let backups = ids.iter().map(|id| BackupQuery::parse(id).unwrap()).collect();
    Verb::Delete(DeleteTask { backups, from_cluster: None, dry_run })
}

async fn delete(worker: &Worker, ids: &[&str], bucket: &Bucket) -> anyhow::Result<Done> {
    worker.run(DELETE, task(ids, DryRun::None), &Api::new(World::full()), bucket).await
}

fn result(done: &anyhow::Result<Done>) -> DeleteResult {
    result_of(done)
}

#[tokio::test(start_paused = true)]
async fn a_deleted_backup_leaves_nothing_and_is_not_found_again() {
    let (folder, bucket) = backed_up().await;
    let before = files(folder.path());
    let api = Api::new(World::full());
    for dry_run in [DryRun::Client, DryRun::Server] {
        let plan = Worker::default().run(DELETE, task(&[ID], dry_run), &api, &bucket).await;
        let plan = result(&plan).backups.remove(0);
        assert_eq!((plan.verdict, plan.keys), (Verdict::Delete, before.len() as u64));
        assert_eq!(files(folder.path()), before);
    }
    // the beginning of an id does, and a name that means nothing doesn't keep the others
    let done = delete(&Worker::default(), &["shop-", "nothing-1", ID], &bucket).await;
    assert_eq!(exit_code(&done), ExitCode::Partial);
    let told = result(&done);
    assert_eq!(told.backups.iter().map(|one| one.verdict).collect::<Vec<_>>(), [Verdict::Deleted]);
    assert!(told.problems.len() == 1 && told.problems[0].subject == "nothing-1", "{:?}", told.problems);
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
    assert_eq!(exit_code(&delete(&Worker::default(), &[ID], &bucket).await), ExitCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_is_killed_at_any_call_leaves_a_whole_backup_or_none_and_goes_on() {
    let (_folder, bucket) = backed_up().await;
    assert_eq!(ending(&delete(&Worker::named("killed"), &[ID], &bucket).await), "Complete");
    let calls = bucket.seen();
    assert!(calls.len() > 8, "{calls:?}");
    for (name, number) in calls {
        for fault in [Fault::Kill, Fault::KillAfter] {
            let about = format!("{name} #{number}: {fault:?}");
            let (folder, bucket) = backed_up().await;
            bucket.fault(&name, number, fault);
            let killed = Worker::named("killed");
            tokio::select! {
                done = delete(&killed, &[ID], &bucket) => panic!("{about}: it lived: {}", ending(&done)),
                () = bucket.killed() => (),
            }
            let bucket = Bucket::new(folder.path()).await;
            let listed = folder.path().join(format!("backups/{ID}.json")).exists();
            if listed {
                read_archive(&bucket, &about).await;
            }
            // the very last call leaves nothing to go on with
            let second = delete(&Worker::named("second"), &[ID], &bucket).await;
            let nothing_was_left = exit_code(&second) == ExitCode::NotFound;
            assert!(nothing_was_left || ending(&second) == "Complete", "{about}: {}", ending(&second));
            assert!(files(folder.path()).is_empty(), "{about}: {:?}", files(folder.path()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_may_still_be_at_stays() {
    let (api, folder) = (Api::new(World::full()), folder());
    let bucket = Bucket::new(folder.path()).await;
    bucket.fault(&format!("create backups/{ID}.json"), 0, Fault::Kill);
    let killed = Worker::default();
    tokio::select! {
        done = killed.back_up(&api, &bucket, Scope::Shop) => panic!("it lived: {}", ending(&done)),
        () = bucket.killed() => (),
    }
    let before = files(folder.path());
    let bucket = Bucket::new(folder.path()).await;
    let done = delete(&Worker::named("second"), &[ID], &bucket).await;
    assert_eq!((exit_code(&done), result(&done).backups[0].verdict), (ExitCode::Partial, Verdict::Kept));
    assert_eq!(files(folder.path()), before);
    // two days later it is garbage
    let done = delete(&Worker { days: 2, ..Worker::named("third") }, &[ID], &bucket).await;
    assert_eq!(result(&done).backups[0].verdict, Verdict::Deleted);
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_backup_goes_by_its_whole_id_and_a_newer_one_stays() {
    for (manifest, goes) in [("{", true), (r#"{"format":"kubectl-backup/2"}"#, false)] {
        let (folder, bucket) = backed_up().await;
        std::fs::write(folder.path().join(format!("backups/{ID}.json")), manifest).unwrap();
        let done = delete(&Worker::default(), &[ID], &bucket).await;
        assert_eq!(files(folder.path()).is_empty(), goes, "{manifest} {:?}", result(&done).problems);
        assert_eq!(exit_code(&done), ExitCode::Partial, "whether it had snapshots isn't known");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_meant_to_go_is_refused() {
    let (folder, bucket) = backed_up().await;
    let api = Api::new(World::full());
    let restored = Worker::default().restore(RESTORE, &api, &bucket).await;
    assert_eq!(ending(&restored), "Complete");
    bucket.create("data/notes.txt", Bytes::from_static(b"x")).await.unwrap();
    let before = files(folder.path());
    for (name, code) in [("latest", ExitCode::Usage), ("@2026-11-30", ExitCode::Usage), (RESTORE, ExitCode::NotFound)] {
        assert_eq!(exit_code(&delete(&Worker::default(), &[name], &bucket).await), code, "{name}");
    }
    let mut location = Location::parse_url(&format!("file://{}", folder.path().display())).unwrap();
    location.read_only = true;
    let done = Worker::default().run_at(DELETE, task(&[ID], DryRun::None), location, &api, &bucket).await;
    assert_eq!(exit_code(&done), ExitCode::Usage);
    assert_eq!(files(folder.path()), before);
}
