//! Lists of many namespaces at once that the API server refuses, selections that find less than was asked for, and how
//! much is asked of the API server at a time.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::run::{Backup, Worker, assert_nothing_left, ending, folder, read_archive};
use crate::world::World;
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::report::Outcome;
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::kinds::ObjectArg;
use kubectl_backup::rules::selection::Selection;
use kubectl_backup::rules::selector::Selector;

/// More namespaces than are listed one by one, each with a Secret and a ConfigMap.
fn many() -> Api {
    let mut world = World::full();
    for number in 0..20 {
        let name = format!("team-{number:02}");
        world.put("namespaces", None, &name, "", r#""spec":{}"#);
        world.put("secrets", Some(&name), "db", "", r#""data":{}"#);
        world.put("configmaps", Some(&name), "settings", "", r#""data":{}"#);
    }
    Api::new(world)
}

async fn teams(api: &Api, objects: &[&str]) -> (anyhow::Result<kubectl_backup::operations::Done>, Option<Backup>) {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let objects = objects.iter().map(|text| ObjectArg::parse(text).unwrap()).collect();
    let selection = Selection { objects, ..Selection::of_namespaces(vec!["team-*".to_owned()]) };
    let task = BackupTask { selection, volumes: VolumeData::Skip, ..BackupTask::default() };
    let result = Worker::default().back_up_task(task, api, &bucket).await;
    if result.is_err() {
        assert_nothing_left(bucket.root(), "a failed backup");
        return (result, None);
    }
    let backup = read_archive(&bucket, "teams").await;
    (result, Some(backup))
}

fn count(backup: &Backup, beginning: &str) -> usize {
    backup.objects.keys().filter(|path| path.starts_with(beginning)).count()
}

fn lists_of(api: &Api, end: &str) -> usize {
    api.seen().iter().filter(|(name, _)| name.starts_with("GET") && name.ends_with(end)).count()
}

#[tokio::test(start_paused = true)]
async fn a_list_of_all_that_is_refused_is_made_namespace_by_namespace() {
    let api = many();
    api.fault("GET /api/v1/secrets", None, Fault::Status(403));
    let (result, backup) = teams(&api, &[]).await;
    assert_eq!(ending(&result), "Complete");
    let backup = backup.unwrap();
    assert_eq!((count(&backup, "resources/secrets/"), count(&backup, "resources/configmaps/")), (20, 20));
    assert_eq!(lists_of(&api, "/secrets"), 21, "one of all, and one of each namespace that was asked for");
    assert_eq!(lists_of(&api, "/configmaps"), 1, "what isn't refused is listed at once");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_refused_everywhere_is_one_problem_and_elsewhere_one_for_each() {
    let api = many();
    api.fault("GET /api/v1/secrets", None, Fault::Status(403));
    api.fault("GET /api/v1/namespaces/team-07/secrets", None, Fault::Status(403));
    let (_, backup) = teams(&api, &[]).await;
    let problems = |backup: &Backup| -> Vec<String> {
        backup.report.problems.iter().map(|problem| problem.subject.clone()).collect()
    };
    let backup = backup.unwrap();
    assert_eq!(problems(&backup), ["secrets in namespace team-07"]);
    assert_eq!((backup.manifest.outcome, count(&backup, "resources/secrets/")), (Outcome::Partial, 19));

    let api = many();
    api.fault("GET /api/v1/secrets", None, Fault::Status(403));
    for number in 0..20 {
        api.fault(&format!("GET /api/v1/namespaces/team-{number:02}/secrets"), None, Fault::Status(403));
    }
    let (_, backup) = teams(&api, &[]).await;
    assert_eq!(problems(&backup.unwrap()), ["secrets"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_named_and_not_there_is_an_error_unless_a_list_failed() {
    let (result, _) = teams(&many(), &["secret/db", "configmap/nothing"]).await;
    assert!(ending(&result).starts_with("NotFound: there is no `configmaps/nothing`"), "{}", ending(&result));

    let api = many();
    api.fault("GET /api/v1/configmaps metadata.name=settings", None, Fault::Status(500));
    for number in 0..20 {
        let name = format!("GET /api/v1/namespaces/team-{number:02}/configmaps metadata.name=settings");
        api.fault(&name, None, Fault::Status(500));
    }
    let (result, backup) = teams(&api, &["secret/db", "configmap/settings"]).await;
    assert_eq!(ending(&result), "Partial");
    let backup = backup.unwrap();
    assert_eq!(count(&backup, "resources/secrets/"), 20, "what is there is saved");
    let told = |subject: &str| backup.report.problems.iter().any(|problem| problem.subject == subject);
    assert!(told("configmaps settings"), "{:?}", backup.report.problems);
    assert!(!told("configmaps in namespace team-00"), "it failed everywhere: {:?}", backup.report.problems);
}

/// The fake, as some aggregated APIs, looks at no label selector.
#[tokio::test(start_paused = true)]
async fn an_api_that_ignores_labels_is_not_believed() {
    let mut world = World::full();
    world.put("configmaps", Some("shop"), "web", r#","labels":{"app":"web"}"#, r#""data":{}"#);
    let (api, folder) = (Api::new(world), folder());
    let bucket = Bucket::new(folder.path()).await;
    let selectors = vec![Selector::parse("app in (web)").unwrap()];
    let selection = Selection { selectors, ..Selection::of_namespaces(vec!["shop".to_owned()]) };
    let task = BackupTask { selection, ..BackupTask::default() };
    assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Complete");
    let backup = read_archive(&bucket, "labels").await;
    let held: Vec<&String> = backup.objects.keys().collect();
    assert_eq!(held, ["resources/configmaps/namespaces/shop/web.json", "resources/namespaces/cluster/shop.json"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_alone_can_be_asked_for() {
    let (result, backup) = teams(&many(), &["namespace/team-03"]).await;
    assert_eq!(ending(&result), "Complete");
    assert_eq!(backup.unwrap().objects.len(), 20, "the namespaces that are asked for, and nothing else");
    let (result, _) = teams(&many(), &["namespace/shop"]).await;
    assert!(ending(&result).starts_with("NotFound: there is no `namespaces/shop`"), "{}", ending(&result));
}

/// How often the lists change from one kind to another.
async fn changes(parallel: usize) -> usize {
    let (api, folder) = (Api::new(World::full()), folder());
    let bucket = Bucket::new(folder.path()).await;
    let task = BackupTask { volumes: VolumeData::Skip, parallel: Some(parallel), ..BackupTask::default() };
    assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Complete");
    let mut paths: Vec<String> = api.seen().into_iter().map(|(name, _)| name).collect();
    paths.retain(|name| !name.ends_with(" revision") && !name.ends_with(" names"));
    let mut paths: Vec<&str> = paths.iter().map(|name| name.split(" page ").next().unwrap()).collect();
    paths.dedup();
    let all = paths.len();
    paths.sort_unstable();
    paths.dedup();
    all - paths.len()
}

/// Requests under way at once, at most, while kinds are asked for their revisions and listed.
async fn at_once(parallel: Option<usize>) -> usize {
    let (api, folder) = (Api::new(World::full()), folder());
    let bucket = Bucket::new(folder.path()).await;
    let task = BackupTask { volumes: VolumeData::Skip, parallel, ..BackupTask::default() };
    assert_eq!(ending(&Worker::default().back_up_task(task, &api, &bucket).await), "Complete");
    let state = api.state();
    state.most_under_way
}

#[tokio::test(start_paused = true)]
async fn one_list_at_a_time_where_that_is_asked_for() {
    assert_eq!((at_once(Some(1)).await, at_once(Some(3)).await, at_once(None).await), (1, 3, 8));
    assert_eq!(changes(1).await, 0, "each kind is listed to its end");
    assert!(changes(4).await > 0, "several are listed at once");
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_is_left_alone_for_as_long_as_it_asks() {
    let api = many();
    api.fault("GET /api/v1/secrets", Some(0), Fault::RetryAfter(429));
    let begun = tokio::time::Instant::now();
    let (result, _) = teams(&api, &[]).await;
    assert_eq!(ending(&result), "Complete");
    let waited = begun.elapsed().as_secs_f32();
    assert!((3.0..4.0).contains(&waited), "{waited} s instead of 3");
}

/// What a report says was left out of a kind, by rule.
fn left_out(backup: &Backup, subject: &str) -> Vec<(String, Option<u64>)> {
    let omissions = backup.report.omissions.iter().filter(|omission| omission.subject == subject);
    omissions.map(|omission| (omission.rule.clone(), omission.objects)).collect()
}

async fn selected(api: &Api, selection: Selection) -> Backup {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let task = BackupTask { selection, volumes: VolumeData::Skip, ..BackupTask::default() };
    let result = Worker::default().back_up_task(task, api, &bucket).await;
    assert!(result.is_ok(), "{}", ending(&result));
    read_archive(&bucket, "selected").await
}

fn one(rule: &str, objects: Option<u64>) -> Vec<(String, Option<u64>)> {
    vec![(rule.to_owned(), objects)]
}

#[tokio::test(start_paused = true)]
async fn what_the_flags_leave_out_is_counted_where_that_can_be_done_for_certain() {
    let mut world = World::full();
    world.put("configmaps", Some("shop"), "web", r#","labels":{"app":"web"}"#, r#""data":{}"#);
    let selector = |text: &str| Selector::parse(text).unwrap();
    let shop = Selection::of_namespaces(vec!["shop".to_owned()]);
    let matching =
        |texts: &[&str]| Selection { selectors: texts.iter().map(|text| selector(text)).collect(), ..shop.clone() };
    // the API server looks at one selector, and counts what we don't read; we look at several
    for (texts, rule) in [(&["app=web"][..], "-l 'app=web'"), (&["app=web", "app=no"], "-l 'app=web' or -l 'app=no'")] {
        let backup = selected(&Api::new(world.clone()), matching(texts)).await;
        assert_eq!(left_out(&backup, "configmaps"), one(rule, Some(7)), "settings, gone-soon, not-me");
        assert_eq!(left_out(&backup, "orders.shop.example"), one(rule, Some(5)));
        assert_eq!(
            left_out(&backup, "events"),
            one("events tell what happened, expire within hours and are never restored", None)
        );
        assert_eq!(left_out(&backup, "gauges.own.example"), one(rule, Some(1)), "at a revision of its own");
        assert_eq!(left_out(&backup, "other objects"), [] as [_; 0]);
    }
    // by name: of their kind, and nothing is asked about the other kinds
    let api = Api::new(world);
    let objects = vec![ObjectArg::parse("configmap/web").unwrap(), ObjectArg::parse("configmap/settings-1").unwrap()];
    let backup = selected(&api, Selection { objects, ..shop }).await;
    let rule = "only configmap/web, configmap/settings-1 is named";
    assert_eq!(left_out(&backup, "configmaps"), one(rule, Some(6)));
    assert_eq!(left_out(&backup, "all other kinds"), one(rule, None));
    let counts = lists_of(&api, " count");
    assert_eq!((counts, lists_of(&api, "/secrets")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_count_of_another_revision_or_none_is_not_told() {
    let api = many();
    api.fault("GET /api/v1/namespaces/team-03/configmaps count", None, Fault::Status(410));
    let objects = vec![ObjectArg::parse("configmap/settings").unwrap()];
    let names = (0..4).map(|number| format!("team-{number:02}")).collect();
    let backup = selected(&api, Selection { objects, ..Selection::of_namespaces(names) }).await;
    assert_eq!(left_out(&backup, "configmaps"), [] as [_; 0]);
    assert_eq!(left_out(&backup, "other objects"), one("only configmap/settings is named", None));
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_are_named_need_not_be_listed() {
    let api = Api::new(World::full());
    for name in ["", " names", " revision", " metadata.name=shop", " names metadata.name=shop"] {
        api.fault(&format!("GET /api/v1/namespaces{name}"), None, Fault::Status(403));
    }
    let backup = selected(&api, Selection::of_namespaces(vec!["shop".to_owned()])).await;
    assert_eq!((backup.manifest.outcome, &backup.report.problems), (Outcome::Complete, &Vec::new()));
    assert!(backup.objects.contains_key("resources/namespaces/cluster/shop.json"));
    let consistency = &backup.manifest.consistency;
    assert!(consistency.revision.is_some(), "{consistency:?}");
    let unpinned: Vec<&str> = consistency.unpinned.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(unpinned, ["gauges.own.example", "namespaces"]);

    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let at =
        |name: &str| BackupTask { selection: Selection::of_namespaces(vec![name.to_owned()]), ..BackupTask::default() };
    let result = Worker::default().back_up_task(at("shpo"), &api, &bucket).await;
    assert!(ending(&result).starts_with("NotFound: there is no namespace `shpo`"), "{}", ending(&result));
    let result = Worker::default().back_up_task(at("sho*"), &api, &bucket).await;
    assert!(ending(&result).contains("listing namespaces"), "{}", ending(&result));
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_listed_one_by_one_where_much_of_a_kind_is_in_others() {
    let mut world = World::full();
    for number in 0..200 {
        world.put("configmaps", Some("blog"), &format!("much-{number:03}"), "", r#""data":{}"#);
    }
    let names = || Selection::of_namespaces(vec!["shop".to_owned(), "shop-dev".to_owned()]);
    let lists = |api: &Api, kind: &str| {
        let is_first = |name: &&String| !name.contains(' ') || name.matches(' ').count() == 1;
        let seen = api.seen();
        let of_kind = seen.iter().map(|(name, _)| name).filter(is_first).filter(|name| name.ends_with(kind));
        of_kind.map(|name| name.replace("GET /api/v1/", "")).collect::<Vec<_>>()
    };
    let api = Api::new(world.clone());
    let backup = selected(&api, names()).await;
    assert_eq!(backup.manifest.outcome, Outcome::Complete);
    assert_eq!((count(&backup, "resources/configmaps/"), count(&backup, "resources/secrets/")), (12, 4));
    assert_eq!(lists(&api, "/configmaps"), ["namespaces/shop/configmaps", "namespaces/shop-dev/configmaps"]);
    assert_eq!(lists(&api, "secrets"), ["secrets"]);
    // who may not list all is asked for the namespaces, and refused nothing
    let api = Api::new(world);
    api.fault("GET /api/v1/secrets revision", None, Fault::Status(403));
    selected(&api, names()).await;
    assert_eq!(lists(&api, "/secrets"), ["namespaces/shop/secrets", "namespaces/shop-dev/secrets"]);
}
