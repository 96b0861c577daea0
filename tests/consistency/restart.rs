//! The API server is killed in the middle of a backup and comes again.

use crate::api::{Api, Kind, eventually};
use crate::engine::{Backups, Before, Seen, looking_glass};
use crate::plane::ControlPlane;
use http::Method;
use kubectl_backup::operations::backup::BackupTask;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SECRETS: usize = 70;
const PAGE: u32 = 25;

/// Kills the API server before the first request for a second page of Secrets, which finds nobody.
fn killing(plane: Arc<ControlPlane>, api: Api) -> Before {
    let done = Arc::new(AtomicBool::new(false));
    Arc::new(move |uri| {
        let (plane, api, done) = (plane.clone(), api.clone(), done.clone());
        Box::pin(async move {
            let is_it = uri.contains("/secrets?") && uri.contains("&continue=");
            if is_it && !done.swap(true, Ordering::SeqCst) {
                plane.restart();
                eventually("the API server to be gone", || async {
                    api.call(Method::GET, "/version", None).await.err()
                })
                .await;
            }
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_restarted_in_the_middle_of_a_backup_costs_time_only() {
    let plane = Arc::new(ControlPlane::start("restart", &[]));
    let api = plane.api().await;
    api.namespace().await;
    for number in 0..SECRETS {
        api.create(Kind::Secret, &format!("s-{number:03}")).await;
    }
    let seen = Seen::default();
    let before = killing(plane.clone(), api.clone());
    let glass = looking_glass(plane.client().await, PAGE, seen.clone(), before);
    let backup = Backups::new().make("restarted", glass, BackupTask::default()).await;
    assert!(backup.report.problems.is_empty(), "{:?}", backup.report.problems);
    assert_eq!((backup.unpinned().len(), backup.elsewhere()), (0, Vec::new()), "all of it is of one revision");
    let saved: BTreeSet<String> = backup.of("secrets").into_keys().map(str::to_owned).collect();
    assert_eq!(saved.iter().filter(|name| name.starts_with("s-")).count(), SECRETS);
    // it was asked for a second page more than once, since nobody answered
    let pages = seen.lock().expect("the list").iter().filter(|uri| uri.contains("/secrets?")).count();
    assert!(pages > SECRETS / PAGE as usize + 1, "{pages}");
}
