//! The revision is compacted in the middle of a list.
//!
//! The API server answers lists at a revision from its own snapshots for a while after etcd has forgotten it
//! (`ListFromCacheSnapshot`, on by default since 1.34), so that the moment of the 410 isn't the compaction's. Without
//! that gate it is.

use crate::api::{Api, Kind};
use crate::engine::{Backup, Backups, Before, Seen, looking_glass};
use crate::etcd::Etcd;
use crate::plane::ControlPlane;
use kubectl_backup::operations::backup::BackupTask;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const COMPACTED: &str = "the revision was compacted while it was listed";
const SECRETS: u32 = 70;
const PAGE: u32 = 25;

/// Compacts before each of the first `times` requests for a second page of Secrets, and makes a Secret first, by which
/// the state before is known from the one behind.
fn compacting(etcd: Etcd, api: Api, run: &'static str, times: u32) -> Before {
    let done = Arc::new(AtomicU32::new(0));
    Arc::new(move |uri| {
        let (etcd, api, done) = (etcd.clone(), api.clone(), done.clone());
        Box::pin(async move {
            if !uri.contains("/secrets?") || !uri.contains("&continue=") || done.load(Ordering::SeqCst) == times {
                return;
            }
            let time = done.fetch_add(1, Ordering::SeqCst) + 1;
            api.create(Kind::Secret, &format!("zz-{run}-compaction-{time}")).await;
            etcd.compact().await;
        })
    })
}

/// The revisions that lists were asked for, in the order in which they came up.
fn revisions_asked(seen: &Seen) -> Vec<u64> {
    let mut revisions = Vec::new();
    for uri in seen.lock().expect("the list").iter() {
        let Some((_, rest)) = uri.split_once("&resourceVersion=") else { continue };
        let revision = rest.split('&').next().and_then(|text| text.parse().ok()).expect("a revision");
        if !revisions.contains(&revision) {
            revisions.push(revision);
        }
    }
    revisions
}

async fn backed_up(
    plane: &ControlPlane,
    api: &Api,
    run: &'static str,
    times: u32,
    parallel: Option<usize>,
) -> (Backup, Vec<u64>) {
    let seen = Seen::default();
    let before = compacting(plane.etcd(), api.clone(), run, times);
    let glass = looking_glass(plane.client().await, PAGE, seen.clone(), before);
    let backup = Backups::new().make(run, glass, BackupTask { parallel, ..BackupTask::default() }).await;
    assert!(backup.report.problems.is_empty(), "{:?}", backup.report.problems);
    (backup, revisions_asked(&seen))
}

async fn secrets(api: &Api) -> BTreeSet<String> {
    let list = api.get("/api/v1/secrets").await;
    let items = list["items"].as_array().expect("items").iter();
    items.map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

fn saved_secrets(backup: &Backup) -> BTreeSet<String> {
    backup.of("secrets").into_keys().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_revision_is_replaced_once_and_then_given_up_by_name() {
    let plane = ControlPlane::start("compaction", &["--feature-gates=ListFromCacheSnapshot=false"]);
    let api = plane.api().await;
    api.namespace().await;
    for number in 0..SECRETS {
        api.create(Kind::Secret, &format!("s-{number:03}")).await;
    }
    for number in 0..2 * SECRETS {
        api.create(Kind::ConfigMap, &format!("c-{number:03}")).await;
    }

    // not compacted: one revision, no second try
    let (backup, asked) = backed_up(&plane, &api, "never", 0, None).await;
    assert_eq!((asked, backup.unpinned().len()), (vec![backup.revision()], 0));

    // once: everything again at a new revision, which the manifest names, and which shows what was made meanwhile
    let (backup, asked) = backed_up(&plane, &api, "once", 1, None).await;
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0] < asked[1] && backup.revision() == asked[1], "{asked:?}, {}", backup.revision());
    assert_eq!((backup.unpinned().len(), backup.elsewhere()), (0, Vec::new()));
    assert!(backup.notes.iter().any(|note| note.contains("starting again at a new one")), "{:?}", backup.notes);
    assert_eq!(saved_secrets(&backup), secrets(&api).await);
    assert!(backup.of("secrets").contains_key("zz-once-compaction-1"));

    // twice: what was listed by then (one after the other, the longest first) stays at the second revision, the rest is
    // listed as it is, and named
    let (backup, asked) = backed_up(&plane, &api, "twice", 2, Some(1)).await;
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(backup.revision(), asked[1]);
    let unpinned = backup.unpinned();
    assert_eq!(unpinned.get("secrets"), Some(&COMPACTED), "{unpinned:?}");
    assert!(unpinned.values().all(|reason| *reason == COMPACTED), "{unpinned:?}");
    assert!(!unpinned.contains_key("configmaps"), "they were listed before the Secrets: {unpinned:?}");
    let unnamed: Vec<_> = backup.elsewhere().into_iter().filter(|kind| !unpinned.contains_key(kind)).collect();
    assert_eq!(unnamed, [""; 0], "kinds that are of another revision and not named");
    assert!(backup.manifest.consistency.skew_seconds > 0.0);
    assert_eq!(saved_secrets(&backup), secrets(&api).await, "all of them, once");
    assert!(backup.of("secrets").contains_key("zz-twice-compaction-2"), "what came after is of the unpinned list");
}
