//! Backups while the API server fails.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::consistency::with_many_gauges;
use crate::run::{Scope, Worker, assert_nothing_left, ending, folder, read_back};
use kubectl_backup::report::Outcome;
use std::time::Duration;

const ONCE: &[Fault] = &[
    Fault::Status(429),
    Fault::RetryAfter(429),
    Fault::Status(500),
    Fault::Status(502),
    Fault::Status(503),
    Fault::RetryAfter(503),
    Fault::Status(504),
    Fault::StatusStalls(503),
    Fault::Reset,
    Fault::ResetAfter,
    Fault::Silent,
    Fault::BreaksOff(0),
    Fault::BreaksOff(40),
    Fault::BreaksOff(99),
    Fault::Ends(0),
    Fault::Ends(60),
    Fault::Ends(99),
    Fault::Stalls(0),
    Fault::Stalls(50),
    Fault::Rots(0),
    Fault::Rots(70),
    Fault::Page,
    Fault::Slow,
];

const FOR_EVER: &[Fault] = &[
    Fault::RetryAfter(429),
    Fault::Status(500),
    Fault::Status(403),
    Fault::Reset,
    Fault::Silent,
    Fault::BreaksOff(50),
    Fault::Ends(70),
    Fault::Stalls(80),
    Fault::Rots(50),
    Fault::Nothing,
];

/// Every request of a run without faults.
pub(crate) async fn requests(scope: Scope) -> Vec<(String, usize)> {
    let (api, folder) = (Api::busy(), folder());
    let bucket = Bucket::new(folder.path()).await;
    let result = Worker::default().back_up(&api, &bucket, scope).await;
    assert_eq!(ending(&result), "Complete");
    read_back(&api, &bucket, scope, "without faults").await;
    let seen = api.seen();
    assert!(seen.len() > 25, "{seen:?}");
    seen
}

async fn any_request_may_fail_once(scope: Scope) {
    for (name, number) in requests(scope).await {
        for &fault in ONCE {
            let about = format!("{name} #{number}: {fault:?}");
            let (api, folder) = (Api::busy(), folder());
            api.fault(&name, Some(number), fault);
            let bucket = Bucket::new(folder.path()).await;
            let result = Worker::default().back_up(&api, &bucket, scope).await;
            assert_eq!(ending(&result), "Complete", "{about}");
            assert!(api.seen().contains(&(name.clone(), number)), "{about} was never met");
            read_back(&api, &bucket, scope, &about).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_request_of_a_backup_of_a_namespace_may_fail_once() {
    any_request_may_fail_once(Scope::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn any_request_of_a_backup_of_the_cluster_may_fail_once() {
    any_request_may_fail_once(Scope::Cluster).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_json_object_is_not_taken_for_an_empty_answer() {
    for (name, number) in requests(Scope::Cluster).await {
        let about = format!("{name} #{number}");
        let (api, folder) = (Api::busy(), folder());
        api.fault(&name, Some(number), Fault::Nothing);
        let bucket = Bucket::new(folder.path()).await;
        match Worker::default().back_up(&api, &bucket, Scope::Cluster).await {
            Ok(_) => _ = read_back(&api, &bucket, Scope::Cluster, &about).await,
            // what is asked only once and is JSON as well as can be
            Err(error) => {
                let asked = ["GET /api", "GET /apis", "GET /api/v1/namespaces/kube-system"];
                assert!(asked.contains(&name.as_str()), "{about}: {error:#}");
                assert_nothing_left(bucket.root(), &about);
            }
        }
    }
}

/// Requests whose answer is needed for nothing but where a kind counts: the list itself says that again. Where nobody may
/// list namespaces another kind is counted by. What serves a kind matters only where it can't be listed.
fn is_dispensable(name: &str, fault: Fault) -> bool {
    name.ends_with("/apiservices")
        || name.ends_with(" revision")
            && (!name.contains("/namespaces revision") || matches!(fault, Fault::Status(403)))
}

/// Whether something that was not to be listed could be read by its name.
fn was_read(api: &Api, name: &str) -> bool {
    let read = name.split_once(" metadata.name=");
    let read = read.map(|(path, name)| format!("{}/{name}", path.trim_end_matches(" names")));
    read.is_some_and(|read| api.seen().iter().any(|(name, _)| *name == read))
}

async fn no_backup_is_complete_without_an_answer(scope: Scope) {
    for (name, _) in requests(scope).await.into_iter().filter(|(_, number)| *number == 0) {
        for &fault in FOR_EVER {
            let about = format!("{name}, always: {fault:?}");
            let (api, folder) = (Api::busy(), folder());
            api.fault(&name, None, fault);
            let bucket = Bucket::new(folder.path()).await;
            let result = Worker::default().back_up(&api, &bucket, scope).await;
            let Ok(done) = &result else {
                assert_nothing_left(bucket.root(), &about);
                continue;
            };
            let backup = read_back(&api, &bucket, scope, &about).await;
            assert_eq!(backup.manifest.outcome, done.outcome, "{about}");
            // a list of all namespaces can be had namespace by namespace; that is complete, and was compared just now
            let had_otherwise = api.seen().iter().any(|(other, _)| {
                let resource = name.rsplit('/').next().unwrap().split(' ').next().unwrap();
                other.contains("/namespaces/") && other.ends_with(&format!("/{resource}"))
            });
            if !is_dispensable(&name, fault) && !had_otherwise && !was_read(&api, &name) {
                assert_eq!(done.outcome, Outcome::Partial, "{about}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_backup_of_a_namespace_is_complete_without_an_answer() {
    no_backup_is_complete_without_an_answer(Scope::Shop).await;
}

#[tokio::test(start_paused = true)]
async fn no_backup_of_the_cluster_is_complete_without_an_answer() {
    no_backup_is_complete_without_an_answer(Scope::Cluster).await;
}

/// Away, too busy, or behind a proxy that has nobody to ask: longer than a restart of a single API server takes.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_a_while_costs_time_only() {
    for fault in [Fault::Reset, Fault::RetryAfter(429), Fault::Status(503)] {
        for first in 0..requests(Scope::Shop).await.len() {
            let about = format!("{fault:?} from request {first} on");
            let (api, folder) = (Api::busy(), folder());
            api.outage_of(first, Duration::from_secs(100), fault);
            let bucket = Bucket::new(folder.path()).await;
            let result = Worker::default().back_up(&api, &bucket, Scope::Shop).await;
            assert_eq!(ending(&result), "Complete", "{about}");
            let backup = read_back(&api, &bucket, Scope::Shop, &about).await;
            assert_eq!(backup.manifest.consistency.unpinned.len(), 1, "{about}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_come_back_is_given_up_in_minutes() {
    let all = requests(Scope::Cluster).await.len();
    for first in (0..all).step_by(5) {
        let (api, folder) = (Api::busy(), folder());
        api.outage(first, Duration::from_secs(1_000_000));
        let bucket = Bucket::new(folder.path()).await;
        let begun = tokio::time::Instant::now();
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_ne!(ending(&result), "Complete", "from request {first} on");
        let taken = begun.elapsed().as_secs();
        assert!((120..480).contains(&taken), "from request {first} on: {taken} s");
    }
}

/// The API server breaks off an answer that takes 60 s: a slow bucket may make a page of large objects take many times as long.
#[tokio::test(start_paused = true)]
async fn a_page_that_breaks_off_again_and_again_and_gets_further_is_read_to_its_end() {
    // of three objects none, then some, then more
    let cuts = [0, 0, 0, 60, 60, 60, 60, 90, 90, 90, 90];
    for name in ["GET /api/v1/configmaps", "GET /api/v1/configmaps page 2", "GET /apis/own.example/v1/gauges"] {
        let (api, folder) = (with_many_gauges(), folder());
        for (number, percent) in cuts.into_iter().enumerate() {
            api.fault(name, Some(number), Fault::BreaksOff(percent));
        }
        let bucket = Bucket::new(folder.path()).await;
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_eq!(ending(&result), "Complete", "{name}");
        let seen = api.seen();
        assert!(seen.contains(&(name.to_owned(), cuts.len())), "{name}");
        assert!(!seen.iter().any(|(name, _)| name.ends_with("/shop/configmaps")), "it isn't listed by namespace");
        read_back(&api, &bucket, Scope::Cluster, name).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pages_of_large_objects_hold_fewer() {
    let (api, folder) = (with_many_gauges(), folder());
    let data = format!(r#""data":{{"x":"{}"}}"#, "x".repeat(200 * 1024));
    for number in 0..4 {
        api.state().world.put("secrets", Some("blog"), &format!("a-large-{number}"), "", &data);
    }
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Cluster).await), "Complete");
    let state = api.state();
    let limits = |name: &str| [name.to_owned(), format!("{name} page 1")].map(|name| state.limits[&name]);
    assert_eq!(limits("GET /api/v1/secrets"), [500, 100]);
    assert_eq!(limits("GET /api/v1/configmaps"), [500, 2000]);
    assert_eq!(limits("GET /apis/own.example/v1/gauges"), [500, 500], "what isn't Kubernetes' may count its pages");
}

#[tokio::test(start_paused = true)]
async fn claims_are_listed_first_and_then_what_has_most_pages() {
    let seen: Vec<String> = requests(Scope::Cluster).await.into_iter().map(|(name, _)| name).collect();
    let is_list = |name: &&String| seen.contains(&format!("{name} revision"));
    let mut lists = seen.iter().filter(is_list).filter(|name| !name.contains("own.example")); // which doesn't say how many
    assert_eq!(lists.next().unwrap(), "GET /api/v1/persistentvolumeclaims");
    let pages = |list: &String| seen.iter().filter(|name| name.starts_with(&format!("{list} page "))).count();
    let pages: Vec<usize> = lists.map(pages).collect();
    assert!(pages.len() > 5 && pages[0] > 0 && pages.is_sorted_by(|a, b| a >= b), "{pages:?}");
}
