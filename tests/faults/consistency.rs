//! One revision for all, and what is said where that can't be had.

use crate::api::{Api, Fault};
use crate::backup::requests;
use crate::bucket::Bucket;
use crate::run::{ID, Scope, Worker, ending, folder, read_archive, read_back};
use crate::world::kind;
use jiff::Timestamp;
use kubectl_backup::id::{Attempt, BackupId};
use kubectl_backup::jobs::status::Status;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::report::{Event, Events, Outcome};
use kubectl_backup::rules::claims::VolumeData;
use std::sync::{Arc, Mutex};

const GAUGES: &str = "gauges.own.example";

#[tokio::test(start_paused = true)]
async fn a_kind_that_counts_for_itself_is_listed_as_it_is_and_named() {
    for scope in [Scope::Shop, Scope::Cluster] {
        let (api, folder) = (Api::busy(), folder());
        let bucket = Bucket::new(folder.path()).await;
        let result = Worker::default().back_up(&api, &bucket, scope).await;
        assert_eq!(ending(&result), "Complete");
        let backup = read_back(&api, &bucket, scope, "own counter").await;
        let unpinned = &backup.manifest.consistency.unpinned;
        assert_eq!(unpinned.len(), 1, "{unpinned:?}");
        assert_eq!((unpinned[0].kind.as_str(), unpinned[0].revision.as_str()), (GAUGES, "9"));
        assert!(unpinned[0].reason.contains("of its own"), "{unpinned:?}");
        // the others stand still while somebody writes
        let now = api.state().world.revision;
        let then: u64 = backup.manifest.consistency.revision.unwrap().parse().unwrap();
        assert!(then < now, "{then} {now}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_cannot_be_asked_for_is_not_trusted() {
    let nobodys = "kubectl-backup-asks-for-the-revision";
    let nothing = format!("GET /apis/own.example/v1/namespaces/{nobodys}/gauges revision metadata.name={nobodys}");
    for (fails_too, reason) in [(false, "has a revision counter of its own"), (true, "could not be asked")] {
        let (api, folder) = (Api::busy(), folder());
        api.fault("GET /apis/own.example/v1/gauges revision", None, Fault::Status(500));
        if fails_too {
            api.fault(&nothing, None, Fault::Status(500));
        }
        let bucket = Bucket::new(folder.path()).await;
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_eq!(ending(&result), "Complete");
        assert!(api.seen().iter().any(|(name, _)| *name == nothing));
        let unpinned = read_back(&api, &bucket, Scope::Cluster, reason).await.manifest.consistency.unpinned;
        assert_eq!(unpinned.len(), 1, "{unpinned:?}");
        assert!(unpinned[0].kind == GAUGES && unpinned[0].reason.contains(reason), "{unpinned:?}");
        assert_eq!(unpinned[0].revision, "9");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_costs_its_kind_no_instant() {
    for (broken, place) in [("secrets", "blog/db"), ("orders", ""), ("persistentvolumes", "volume-1")] {
        let (api, folder) = (Api::busy(), folder());
        api.state().broken.push((kind(broken), place.to_owned()));
        let bucket = Bucket::new(folder.path()).await;
        assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Cluster).await), "Partial");
        let unpinned = read_back(&api, &bucket, Scope::Cluster, broken).await.manifest.consistency.unpinned;
        assert_eq!(unpinned.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(), [GAUGES], "{broken}");
    }
}

/// Lists at the revision, and their later pages.
async fn pinned_lists(scope: Scope) -> Vec<(String, usize)> {
    let is_list = |name: &str| !name.ends_with(" revision") && !name.contains(" names") && !name.contains("gauges");
    let read = ["kube-system", "shop"].map(|name| format!("GET /api/v1/namespaces/{name}"));
    let others = ["GET /api", "GET /apis", "GET /version", &read[0], &read[1]];
    let all = requests(scope).await.into_iter();
    all.filter(|(name, _)| is_list(name) && !others.contains(&name.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_compaction_at_any_list_begins_all_again_at_a_new_revision() {
    for scope in [Scope::Shop, Scope::Cluster] {
        let lists = pinned_lists(scope).await;
        assert!(lists.iter().any(|(name, _)| name.ends_with("page 1")), "{lists:?}");
        for (name, number) in lists {
            let about = format!("{name} #{number}");
            let (api, folder) = (Api::busy(), folder());
            api.fault(&name, Some(number), Fault::Compact);
            let bucket = Bucket::new(folder.path()).await;
            let result = Worker::default().back_up(&api, &bucket, scope).await;
            assert_eq!(ending(&result), "Complete", "{about}");
            let unpinned = read_back(&api, &bucket, scope, &about).await.manifest.consistency.unpinned;
            assert!(unpinned.iter().all(|unpinned| unpinned.kind == GAUGES), "{about}: {unpinned:?}");
            let revisions = api.seen().iter().filter(|(name, _)| name == "GET /api/v1/namespaces revision").count();
            assert_eq!(revisions, 6, "{about}: two readings around each choice, and the kind's own");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_second_compaction_what_is_missing_is_listed_as_it_is_and_named() {
    // without somebody else at work, so that what is listed later is what was there before
    let name = "GET /api/v1/configmaps page 2";
    let (api, folder) = (Api::busy(), folder());
    api.state().churn = false;
    api.fault(name, Some(0), Fault::Compact).fault(name, Some(1), Fault::Compact);
    let bucket = Bucket::new(folder.path()).await;
    let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
    assert_eq!(ending(&result), "Complete");
    let backup = read_back(&api, &bucket, Scope::Cluster, name).await;
    let unpinned = backup.manifest.consistency.unpinned;
    let found = unpinned.iter().find(|unpinned| unpinned.kind == "configmaps").unwrap();
    assert!(found.reason.contains("compacted"), "{found:?}");
    assert_eq!(found.revision, api.state().world.revision.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_second_compaction_at_any_list_loses_nothing_that_stayed() {
    for scope in [Scope::Shop, Scope::Cluster] {
        let (api, other) = (Api::busy(), folder());
        let bucket = Bucket::new(other.path()).await;
        assert_eq!(ending(&Worker::default().back_up(&api, &bucket, scope).await), "Complete");
        let whole = read_archive(&bucket, "whole").await;
        for (name, _) in pinned_lists(scope).await {
            let (api, folder) = (Api::busy(), folder());
            api.fault(&name, Some(0), Fault::Compact).fault(&name, Some(1), Fault::Compact);
            let bucket = Bucket::new(folder.path()).await;
            let result = Worker::default().back_up(&api, &bucket, scope).await;
            assert_eq!(ending(&result), "Complete", "{name}");
            // half of a kind may be older than the other half: names are compared, and every byte verifies
            let backup = read_archive(&bucket, &name).await;
            assert_eq!(backup.manifest.outcome, Outcome::Complete, "{name}");
            let stayed = |path: &&String| !path.contains("churn-") && !path.contains("gone-soon");
            let found: Vec<&String> = backup.objects.keys().filter(stayed).collect();
            let expected: Vec<&String> = whole.objects.keys().filter(stayed).collect();
            assert_eq!(found, expected, "{name}");
            let unpinned = backup.manifest.consistency.unpinned;
            assert!(unpinned.iter().any(|unpinned| unpinned.reason.contains("compacted")), "{name}: {unpinned:?}");
        }
    }
}

/// A cluster whose kind of its own counter has two pages.
pub(crate) fn with_many_gauges() -> Api {
    let api = Api::busy();
    for name in ["a", "b", "c"] {
        api.state().world.put("gauges", Some("blog"), name, "", r#""value":1"#);
    }
    api
}

const SECOND_PAGE: &str = "GET /apis/own.example/v1/gauges page 1";

fn choices(api: &Api) -> usize {
    api.seen().iter().filter(|(name, _)| name == "GET /api/v1/namespaces revision").count() / 3
}

#[tokio::test(start_paused = true)]
async fn a_compaction_in_a_counter_of_its_own_begins_that_list_again_and_no_other() {
    let (api, folder) = (with_many_gauges(), folder());
    api.fault(SECOND_PAGE, Some(0), Fault::Status(410));
    let bucket = Bucket::new(folder.path()).await;
    let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
    assert_eq!(ending(&result), "Complete");
    let backup = read_back(&api, &bucket, Scope::Cluster, "410").await;
    assert_eq!(backup.objects.keys().filter(|path| path.contains(GAUGES)).count(), 5);
    assert_eq!(choices(&api), 1);
}

#[tokio::test(start_paused = true)]
async fn a_list_in_an_order_of_its_own_that_breaks_off_is_never_complete() {
    for (fault, unordered) in [(500, true), (410, true), (410, false)] {
        let (api, folder) = (with_many_gauges(), folder());
        api.state().unordered = unordered;
        api.fault(SECOND_PAGE, None, Fault::Status(fault));
        let bucket = Bucket::new(folder.path()).await;
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_eq!(ending(&result), "Partial", "{fault} {unordered}");
        let backup = read_back(&api, &bucket, Scope::Cluster, "unordered").await;
        let subjects: Vec<&str> = backup.report.problems.iter().map(|problem| problem.subject.as_str()).collect();
        assert_eq!(subjects, [GAUGES], "{fault} {unordered}");
        assert!(choices(&api) <= 2, "{fault} {unordered}");
    }
    // and it is complete where nothing breaks
    let (api, folder) = (with_many_gauges(), folder());
    api.state().unordered = true;
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Cluster).await), "Complete");
    read_back(&api, &bucket, Scope::Cluster, "unordered and whole").await;
}

#[tokio::test(start_paused = true)]
async fn a_compaction_in_a_list_of_names_begins_it_again() {
    let (api, folder) = (Api::busy(), folder());
    api.fault("GET /api/v1/namespaces names page 1", Some(0), Fault::Compact);
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Shop).await), "Complete");
    read_back(&api, &bucket, Scope::Shop, "names").await;
    assert_eq!(choices(&api), 1);
}

#[tokio::test(start_paused = true)]
async fn a_compaction_while_a_kind_is_listed_namespace_by_namespace_begins_all_again() {
    // the namespaces are listed at first, at the revision, and then for this
    for (name, number) in [("GET /api/v1/namespaces names", 2), ("GET /api/v1/namespaces/shop/secrets", 0)] {
        let (api, folder) = (Api::busy(), folder());
        api.state().broken.push((kind("secrets"), "blog/db".to_owned()));
        api.fault(name, Some(number), Fault::Compact);
        let bucket = Bucket::new(folder.path()).await;
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_eq!(ending(&result), "Partial", "{name}");
        let backup = read_back(&api, &bucket, Scope::Cluster, name).await;
        let subjects: Vec<&str> = backup.report.problems.iter().map(|problem| problem.subject.as_str()).collect();
        assert_eq!(subjects, ["secrets in namespace blog"], "{name}");
        assert_eq!(choices(&api), 2, "{name}");
        assert!(backup.manifest.consistency.unpinned.iter().all(|unpinned| unpinned.kind == GAUGES), "{name}");
    }
}

const NOVELTIES: &str = "GET /apis/novel.k8s.io/v1/novelties";

#[tokio::test(start_paused = true)]
async fn a_kind_that_nothing_is_known_to_serve_is_saved_where_it_can_be_listed() {
    for registered in [true, false] {
        let (api, folder) = (Api::busy(), folder());
        api.state().registered = registered;
        let bucket = Bucket::new(folder.path()).await;
        assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Cluster).await), "Complete");
        let backup = read_back(&api, &bucket, Scope::Cluster, "novel").await;
        assert_eq!(backup.objects.keys().filter(|path| path.contains("novelties")).count(), 1, "{registered}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_kind_that_nothing_serves_may_be_gone_since_discovery() {
    // the API server has it built in; it has no definition any more; something else is wrong with it
    for (registered, code, outcome) in [(true, 404, "Partial"), (false, 404, "Complete"), (false, 403, "Partial")] {
        let (api, folder) = (Api::busy(), folder());
        api.state().registered = registered;
        api.fault(&format!("{NOVELTIES} revision"), None, Fault::Status(code));
        api.fault(NOVELTIES, None, Fault::Status(code));
        let bucket = Bucket::new(folder.path()).await;
        let result = Worker::default().back_up(&api, &bucket, Scope::Cluster).await;
        assert_eq!(ending(&result), outcome, "{registered} {code}");
        let report = read_archive(&bucket, "gone").await.report;
        let subjects: Vec<&str> = report.problems.iter().map(|problem| problem.subject.as_str()).collect();
        assert_eq!(subjects, if outcome == "Partial" { &["novelties.novel.k8s.io"][..] } else { &[] });
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_at_the_revision_is_as_far_from_it_as_the_lists_took() {
    let begun = |slow: &'static str| async move {
        let (api, folder) = (Api::busy(), folder());
        api.fault(slow, None, Fault::Slow);
        let bucket = Bucket::new(folder.path()).await;
        assert_eq!(ending(&Worker::default().back_up(&api, &bucket, Scope::Cluster).await), "Complete");
        let backup = read_back(&api, &bucket, Scope::Cluster, slow).await;
        (backup.manifest.consistency.skew_seconds, backup.report.seconds)
    };
    // what comes before the revision is chosen, as hooks do, is not between them
    let (skew, whole) = begun("GET /apis").await;
    assert!(whole > 1000.0 && skew < 10.0, "{skew} of {whole} s");
    let (skew, whole) = begun("GET /apis/own.example/v1/gauges").await;
    assert!(skew > 200.0 && skew <= whole, "{skew} of {whole} s");
}

/// What somebody who watches is told in the end.
#[tokio::test(start_paused = true)]
async fn what_a_pass_told_that_began_again_is_told_no_more() {
    let (api, folder) = (Api::busy(), folder());
    api.state().broken.push((kind("secrets"), "shop/web".to_owned()));
    api.fault("GET /api/v1/namespaces page 1", Some(0), Fault::Compact);
    let bucket = Bucket::new(folder.path()).await;
    let attempt = Attempt::parse("first").unwrap();
    let status = Status::new(BackupId::parse(ID).unwrap(), "backup", "0.1.0", attempt, Timestamp::UNIX_EPOCH);
    let status = Arc::new(Mutex::new((status, 0)));
    let told = status.clone();
    let events = Events::new(move |event| {
        let (status, withdrawn) = &mut *told.lock().unwrap();
        status.take(&event, Timestamp::UNIX_EPOCH);
        *withdrawn += usize::from(matches!(event, Event::Withdrawn(_)));
    });
    // one list at a time: the Secrets fail before the namespaces, which are fewer, are listed
    let task = BackupTask { volumes: VolumeData::Skip, parallel: Some(1), ..BackupTask::default() };
    let result = Worker { events, ..Worker::default() }.back_up_task(task, &api, &bucket).await;
    assert_eq!(ending(&result), "Partial");
    let backup = read_back(&api, &bucket, Scope::Cluster, "withdrawn").await;
    let (status, withdrawn) = &*status.lock().unwrap();
    assert_eq!((&status.problems, status.problems_total, *withdrawn), (&backup.report.problems, 1, 1));
    assert_eq!((status.counts.objects, choices(&api)), (backup.manifest.counts.objects, 2));
}
