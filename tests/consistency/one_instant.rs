//! Every backup shows one instant; without the one revision it doesn't.

use crate::api::{Api, KINDS, NAMESPACE};
use crate::engine::{Backup, Backups, Seen, looking_glass};
use crate::history::History;
use crate::plane::ControlPlane;
use crate::writers::{STAYING, Writers, never_was};
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::pipeline::save::pin::Demand;
use kubectl_backup::rules::selection::Selection;
use std::collections::BTreeMap;

/// Backups that are made while the writers write.
const BACKUPS: usize = 200;
/// Objects in a page: three pages of what stays alone.
const PAGE: u32 = 24;

/// Groups that the API server leaves out: there is nothing of them here, and each kind costs every backup two requests.
const UNSERVED: &str = "--runtime-config=apps/v1=false,autoscaling/v1=false,autoscaling/v2=false,batch/v1=false,certificates.k8s.io/v1=false,events.k8s.io/v1=false,policy/v1=false,resource.k8s.io/v1=false";

fn task(consistency: Demand) -> BackupTask {
    BackupTask { selection: Selection::of_namespaces(vec![NAMESPACE.to_owned()]), consistency, ..BackupTask::default() }
}

/// How many pages of a kind were asked for.
fn pages(seen: &Seen, path: &str) -> usize {
    let begins = format!("{path}?limit={PAGE}");
    seen.lock().expect("the list").iter().filter(|uri| uri.starts_with(&begins)).count()
}

/// A backup that is all that is compared of it later.
struct Kept {
    revision: u64,
    states: BTreeMap<&'static str, BTreeMap<String, u64>>,
}

fn kept(backup: &Backup) -> Kept {
    let revision_of = |object: &serde_json::Value| {
        object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a resourceVersion")
    };
    let states = KINDS.map(|kind| {
        let objects = backup.of(kind.key()).into_iter().map(|(name, object)| (name.to_owned(), revision_of(object)));
        (kind.key(), objects.collect())
    });
    Kept { revision: backup.revision(), states: states.into() }
}

async fn exact(client: &kube::Client, writers: &Writers) -> Vec<Kept> {
    let mut all = Vec::new();
    for number in 0..BACKUPS {
        let (seen, backups) = (Seen::default(), Backups::new());
        let glass = looking_glass(client.clone(), PAGE, seen.clone(), writers.paced());
        let backup = backups.make(&format!("exact-{number}"), glass, task(Demand::Exact)).await;
        assert_eq!(never_was(&backup), [""; 0], "backup {number} shows what never was");
        assert_eq!((backup.unpinned().len(), backup.elsewhere()), (0, Vec::new()), "backup {number}");
        assert!(backup.manifest.consistency.skew_seconds == 0.0);
        assert!(backup.report.problems.is_empty(), "{:?}", backup.report.problems);
        for kind in KINDS {
            assert!(pages(&seen, &kind.path()) >= 3, "{kind:?} has {} pages", pages(&seen, &kind.path()));
        }
        all.push(kept(&backup));
    }
    all
}

/// Whether one of so many relaxed backups shows what never was.
async fn relaxed(client: &kube::Client, writers: &Writers) -> bool {
    for number in 0..BACKUPS {
        let glass = looking_glass(client.clone(), PAGE, Seen::default(), writers.paced());
        let backup = Backups::new().make(&format!("relaxed-{number}"), glass, task(Demand::Relaxed)).await;
        let consistency = &backup.manifest.consistency;
        assert!(consistency.revision.is_none() && consistency.skew_seconds > 0.0, "{consistency:?}");
        let unpinned = backup.unpinned();
        for kind in backup.report.kinds.iter().map(|kind| kind.kind.as_str()).chain(KINDS.map(|kind| kind.key())) {
            assert_eq!(unpinned.get(kind), Some(&"`--consistency=relaxed` was asked for"), "{kind}");
        }
        if !never_was(&backup).is_empty() {
            return true;
        }
    }
    false
}

async fn histories(api: &Api) -> Vec<History> {
    futures::future::join_all(KINDS.map(|kind| History::begin(api, kind))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backup_of_two_hundred_shows_a_state_that_never_existed() {
    let plane = ControlPlane::start("writers", &[UNSERVED]);
    let api = plane.api().await;
    api.namespace().await;
    api.orders().await;
    let histories = histories(&api).await;
    let writers = Writers::start(&api).await;
    let client = plane.client().await;

    let began = histories.iter().map(History::len).sum::<usize>();
    let backups = exact(&client, &writers).await;
    let changes = histories.iter().map(History::len).sum::<usize>() - began;
    assert!(changes > 10 * BACKUPS, "only {changes} changes during {BACKUPS} backups");
    assert!(
        relaxed(&client, &writers).await,
        "{BACKUPS} relaxed backups show nothing wrong: this test would find nothing"
    );
    writers.stop().await;

    for (kind, history) in KINDS.into_iter().zip(&histories) {
        let last = api.number(kind, "00-stays", 1).await;
        history.reaches(last).await;
        for (number, backup) in backups.iter().enumerate() {
            let was = history.at(backup.revision);
            assert!(was.len() as u64 > STAYING);
            assert_eq!(backup.states[kind.key()], was, "{kind:?} in backup {number}, at revision {}", backup.revision);
        }
    }
    let revisions: Vec<u64> = backups.iter().map(|backup| backup.revision).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "each backup is of a later instant: {revisions:?}");
}
