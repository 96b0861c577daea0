//! Damage of every sort is found, at the level that looks for it.

use crate::api::Api;
use crate::bucket::Bucket;
use crate::restore::backed_up;
use crate::run::{ID, Worker, ending, exit_code, files, result_of};
use crate::world::World;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::verify::{Level, VerifyResult, VerifyTask};
use kubectl_backup::operations::{Done, Verb};
use kubectl_backup::report::ExitCode;

async fn verify(ids: &[&str], level: Level, bucket: &Bucket) -> anyhow::Result<Done> {
    let backups = ids.iter().map(|id| BackupQuery::parse(id).unwrap()).collect();
    let verb = Verb::Verify(VerifyTask { backups, from_cluster: None, level });
    Worker::default().run("verify-20261120-150000-eeee", verb, &Api::new(World::full()), bucket).await
}

fn result(done: &anyhow::Result<Done>) -> VerifyResult {
    result_of(done)
}

#[tokio::test(start_paused = true)]
async fn a_whole_backup_is_intact_and_every_byte_of_it_is_read() {
    let (folder, bucket) = backed_up().await;
    let data = files(&folder.path().join(format!("data/{ID}")));
    let bytes: u64 =
        data.iter().map(|file| folder.path().join(format!("data/{ID}")).join(file).metadata().unwrap().len()).sum();
    for (level, read) in [(Level::Keys, 0), (Level::Bytes, bytes)] {
        let done = verify(&["latest"], level, &bucket).await;
        assert_eq!((ending(&done).as_str(), result(&done).backups[0].bytes), ("Complete", read));
    }
    // names that mean nothing: one alone is not found, one of several is a problem
    assert_eq!(exit_code(&verify(&["nothing"], Level::Keys, &bucket).await), ExitCode::NotFound);
    assert_eq!(exit_code(&verify(&["nothing", ID], Level::Keys, &bucket).await), ExitCode::Partial);
}

#[tokio::test(start_paused = true)]
async fn damage_is_an_integrity_failure_with_the_file_that_has_it() {
    for name in ["objects.tar.zst", "index.jsonl.zst", "report.json", "log.jsonl.zst"] {
        for (damage, at_level_1) in [("flip", false), ("cut", true), ("gone", true)] {
            let (folder, bucket) = backed_up().await;
            let path = folder.path().join(format!("data/{ID}/first/{name}"));
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes.truncate(bytes.len() - usize::from(damage == "cut"));
            std::fs::remove_file(&path).unwrap();
            if damage != "gone" {
                std::fs::write(&path, bytes).unwrap();
            }
            for (level, found) in [(Level::Keys, at_level_1), (Level::Bytes, true)] {
                let about = format!("{damage} {name} {level:?}");
                let done = verify(&[ID], level, &bucket).await;
                let expected = if found { ExitCode::Integrity } else { ExitCode::Complete };
                assert_eq!(exit_code(&done), expected, "{about}");
                assert_eq!(result(&done).problems.iter().any(|one| one.message.contains(name)), found, "{about}");
            }
        }
    }
    let (folder, bucket) = backed_up().await;
    std::fs::write(folder.path().join(format!("backups/{ID}.json")), "{").unwrap();
    assert_eq!(exit_code(&verify(&[ID], Level::Keys, &bucket).await), ExitCode::Integrity);
}
