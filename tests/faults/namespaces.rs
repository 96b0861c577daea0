//! Namespaces that labels leave out, and such that come, go or change between the first look and the backup's revision.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::run::{Backup, Worker, assert_nothing_left, ending, folder, read_archive};
use crate::world::{World, kind};
use kubectl_backup::operations::backup::BackupTask;
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::selection::Selection;

/// The first request after the hooks.
const REVISION: &str = "GET /api/v1/namespaces revision";
/// How often it is made to choose a revision.
const READINGS: usize = 3;
const OURS: &str = r#","labels":{"kubectl-backup/exclude":"true"}"#;
const VELERO: &str = r#","labels":{"velero.io/exclude-from-backup":"true"}"#;
const ENDING: &str = r#","deletionTimestamp":"2026-11-20T10:00:00Z""#;

fn label(world: &mut World, name: &str, more_meta: &str) {
    world.put("namespaces", None, name, more_meta, r#""spec":{}"#);
}

fn labelled(name: &str, more_meta: &str) -> Api {
    let mut world = World::full();
    label(&mut world, name, more_meta);
    Api::new(world)
}

/// A backup of these namespaces, none: of the cluster, and how it ended.
async fn backup(api: &Api, names: &[&str], without: &[&str]) -> (String, Option<Backup>) {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let namespaces = (!names.is_empty()).then(|| texts(names));
    let selection = Selection { namespaces, exclude_namespaces: texts(without), ..Selection::default() };
    let task = BackupTask { selection, volumes: VolumeData::Skip, ..BackupTask::default() };
    let result = Worker::default().back_up_task(task, api, &bucket).await;
    if result.is_err() {
        assert_nothing_left(bucket.root(), "a failed backup");
        return (ending(&result), None);
    }
    (ending(&result), Some(read_archive(&bucket, "namespaces").await))
}

async fn saved(api: &Api, names: &[&str], without: &[&str]) -> Backup {
    let (ending, backup) = backup(api, names, without).await;
    assert_eq!(ending, "Complete", "{names:?}");
    backup.unwrap()
}

/// How many objects are saved that are in a namespace, and whether the namespace is.
fn held(backup: &Backup, namespace: &str) -> (usize, bool) {
    let within = format!("/namespaces/{namespace}/");
    let itself = format!("resources/namespaces/cluster/{namespace}.json");
    (backup.objects.keys().filter(|path| path.contains(&within)).count(), backup.objects.contains_key(&itself))
}

fn problems(backup: &Backup) -> Vec<&str> {
    backup.report.problems.iter().map(|problem| problem.subject.as_str()).collect()
}

/// The rules by which namespaces are left out, with the omission's subject.
fn left_out(backup: &Backup) -> Vec<(&str, &str)> {
    let omissions = backup.report.omissions.iter().filter(|omission| omission.subject.starts_with("namespaces"));
    omissions.map(|omission| (omission.subject.as_str(), omission.rule.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_namespace_whose_label_excludes_it_is_left_out_with_all_that_is_in_it() {
    let selections: [(&[&str], &[&str]); 4] =
        [(&[], &[]), (&["*"], &[]), (&["blo*", "shop"], &[]), (&[], &["shop-d*"])];
    for (more_meta, rule) in
        [(OURS, "label kubectl-backup/exclude=true"), (VELERO, "label velero.io/exclude-from-backup=true")]
    {
        for (names, without) in selections {
            let api = labelled("blog", more_meta);
            // what is left out can't be broken either
            api.state().broken.push((kind("secrets"), "blog/db".to_owned()));
            let backup = saved(&api, names, without).await;
            assert_eq!(held(&backup, "blog"), (0, false), "{names:?} {without:?}");
            assert!(held(&backup, "shop").0 > 10 && held(&backup, "shop").1, "{names:?} {without:?}");
            let rule = format!("{rule}, with all that is in it");
            assert!(left_out(&backup).contains(&("namespaces blog", &rule)), "{:?}", left_out(&backup));
            assert!(backup.report.resolved.excluded_namespaces.contains(&"blog".to_owned()), "{names:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_names_a_namespace_means_it_whatever_its_label() {
    let api = labelled("blog", OURS);
    for names in [&["blog"][..], &["shop", "blog"], &["blo*", "blog"]] {
        let backup = saved(&api, names, &[]).await;
        assert!(held(&backup, "blog").0 > 10 && held(&backup, "blog").1, "{names:?}");
        assert_eq!(left_out(&backup), [], "{names:?}");
    }
    let (ending, _) = backup(&api, &["blo*"], &[]).await;
    assert!(ending.starts_with("NotFound: no namespace is left: `blog` is left out by its label"), "{ending}");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_gone_by_the_revision_is_an_error_or_a_problem() {
    let api = || {
        let api = Api::new(World::full());
        api.before(REVISION, 0, |world| world.delete("namespaces", "shop"));
        api
    };
    let (ending, _) = backup(&api(), &["shop"], &[]).await;
    assert!(ending.starts_with("NotFound: nothing is left of namespace `shop`"), "{ending}");
    let (ending, _) = backup(&api(), &["sho[p]"], &[]).await;
    assert!(ending.starts_with("NotFound: nothing is left of namespace `shop`"), "{ending}");
    for names in [["shop", "blog"], ["shop", "blo*"], ["sho[p]", "blog"]] {
        let (ending, backup) = backup(&api(), &names, &[]).await;
        assert_eq!(ending, "Partial", "{names:?}");
        let backup = backup.unwrap();
        assert_eq!(problems(&backup), [format!("namespaces {}", names[0])]);
        assert!(held(&backup, "blog").1 && backup.report.namespaces == ["blog"], "{:?}", backup.report.namespaces);
    }
    // of all that there are, it is none
    assert!(!held(&saved(&api(), &["*"], &[]).await, "shop").1);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_named_and_being_deleted_is_a_problem() {
    for names in [&["shop"][..], &["shop", "blog"], &["sh*", "shop"]] {
        let (ending, backup) = backup(&labelled("shop", ENDING), names, &[]).await;
        assert_eq!(ending, "Partial", "{names:?}");
        let backup = backup.unwrap();
        assert_eq!(problems(&backup), ["namespaces shop"], "{names:?}");
        assert!(held(&backup, "shop").0 > 10, "what is left of it is saved");
    }
    // of all that there are, one may end
    for names in [&["sh*"][..], &[]] {
        assert!(held(&saved(&labelled("shop", ENDING), names, &[]).await, "shop").0 > 10, "{names:?}");
    }
}

/// What hooks give somebody the time to do.
fn make(world: &mut World, name: &str, more_meta: &str) {
    label(world, name, more_meta);
    world.put("configmaps", Some(name), "settings", "", r#""data":{}"#);
}

#[tokio::test(start_paused = true)]
async fn namespaces_that_come_or_are_labelled_before_the_revision_are_taken_as_they_are_at_it() {
    for (names, without) in [(&[][..], &[][..]), (&["*"], &[]), (&["s*"], &[]), (&[], &["blog"])] {
        let api = labelled("shop-dev", "");
        api.before(REVISION, 0, |world| {
            make(world, "spring", "");
            make(world, "summer", OURS);
            label(world, "shop-dev", VELERO);
        });
        let backup = saved(&api, names, without).await;
        assert_eq!(held(&backup, "spring"), (1, true), "{names:?} {without:?}");
        assert_eq!(held(&backup, "summer"), (0, false), "{names:?} {without:?}");
        assert_eq!(held(&backup, "shop-dev"), (0, false), "{names:?} {without:?}");
        let is_told = |name| left_out(&backup).iter().any(|(subject, _)| *subject == format!("namespaces {name}"));
        assert!(is_told("summer") && is_told("shop-dev"), "{:?}", left_out(&backup));
        let named = |name: &str| backup.report.namespaces.contains(&name.to_owned());
        assert_eq!(named("spring"), !names.is_empty(), "{names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_compaction_namespaces_are_looked_for_at_the_new_revision() {
    for (name, number) in [("GET /api/v1/configmaps page 1", 0), ("GET /api/v1/namespaces names", 1)] {
        let api = Api::new(World::full());
        api.fault(name, Some(number), Fault::Compact).before(REVISION, READINGS, |world| {
            make(world, "spring", "");
            label(world, "blog", OURS);
        });
        let backup = saved(&api, &[], &[]).await;
        assert_eq!((held(&backup, "spring"), held(&backup, "blog")), ((1, true), (0, false)), "{name}");
        let choices = api.seen().iter().filter(|(name, _)| name == REVISION).count() / READINGS;
        assert_eq!(choices, 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_of_the_revision_is_a_problem() {
    for names in [&["*"][..], &[]] {
        let api = Api::new(World::full());
        api.fault("GET /api/v1/namespaces names", Some(1), Fault::Status(403));
        let (ending, backup) = backup(&api, names, &[]).await;
        assert_eq!(ending, "Partial", "{names:?}");
        assert_eq!(problems(&backup.unwrap()), ["namespaces"]);
    }
}
