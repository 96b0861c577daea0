//! Restores into clusters that aren't well: away for a while, with webhooks that aren't up, namespaces that go, quotas, and
//! other people at work.

use crate::api::{Api, Fault};
use crate::existing::{AGAIN, changed, forget_restores, restore, result, with};
use crate::restore::{RESTORE, backed_up};
use crate::run::{ending, exit_code};
use crate::world::{World, kind};
use kubectl_backup::operations::restore::RestoreTask;
use kubectl_backup::report::ExitCode;
use kubectl_backup::rules::verdict::Existing;
use serde_json::Value;
use std::time::Duration;

fn object(api: &Api, resource: &str, place: &str) -> Value {
    serde_json::from_str(api.state().world.get(kind(resource), place).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_api_server_may_be_away_for_a_while_at_any_point() {
    let (_folder, bucket) = backed_up().await;
    for (existing, target) in [
        (Existing::Skip, (|| Api::new(World::empty())) as fn() -> Api),
        (Existing::Update, changed),
        (Existing::Recreate, changed),
    ] {
        forget_restores(&bucket);
        let whole = target();
        assert_eq!(ending(&restore(RESTORE, with(existing), &whole, &bucket).await), "Complete");
        let requests = whole.seen();
        // a write is worth a longer wait than a look: what is there already was written for nothing otherwise
        let is_change = |name: &str| existing != Existing::Skip && !name.starts_with("GET");
        let away = requests.iter().enumerate().map(|(first, (name, _))| (first, if is_change(name) { 20 } else { 1 }));
        for (first, seconds) in away.filter(|(first, seconds)| *seconds > 1 || first % 3 == 0) {
            let about = format!("{existing:?}: away from request {first} of {} for {seconds} s", requests.len());
            forget_restores(&bucket);
            let api = target();
            api.outage(first, Duration::from_secs(seconds));
            let done = restore(RESTORE, with(existing), &api, &bucket).await;
            assert_eq!(ending(&done), "Complete", "{about}");
            let again = restore(AGAIN, with(Existing::Fail), &api, &bucket).await;
            assert_eq!(ending(&again), "Complete", "{about}: all is as it was saved");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_come_right_is_tried_again() {
    let (_folder, bucket) = backed_up().await;
    let posts = "POST /api/v1/namespaces/blog/configmaps";
    let orders = "POST /apis/shop.example/v1/namespaces/blog/orders";
    let webhook = Fault::Says(500, "failed calling webhook \"w\": no endpoints available for service", "");
    let account = Fault::Says(403, "error looking up service account blog/runner: not found", "");
    let unserved = Fault::Says(404, "the server could not find the requested resource", "");
    for (name, fault) in [(posts, webhook), (posts, account), (orders, unserved)] {
        forget_restores(&bucket);
        let api = Api::new(World::empty());
        for number in 0..12 {
            api.fault(name, Some(number), fault);
        }
        let done = restore(RESTORE, with(Existing::Skip), &api, &bucket).await;
        assert_eq!(ending(&done), "Complete", "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_told_in_the_api_servers_words_and_the_rest_is_restored() {
    let (_folder, bucket) = backed_up().await;
    let posts = "POST /api/v1/namespaces/blog/configmaps";
    let put = "PUT /api/v1/namespaces/shop/configmaps/settings-0";
    let going = Fault::Says(403, "namespace blog is being terminated", "NamespaceTerminating");
    let quota = Fault::Says(403, "configmaps is forbidden: exceeded quota: few", "");
    let fixed = Fault::Says(422, "ConfigMap \"settings-0\" is invalid: data: field is immutable", "");
    for (name, existing, target, fault, says) in [
        (posts, Existing::Skip, Api::new(World::empty()), going, "is being terminated"),
        (posts, Existing::Skip, Api::new(World::empty()), quota, "exceeded quota"),
        (put, Existing::Update, changed(), fixed, "`--existing=recreate`"),
    ] {
        forget_restores(&bucket);
        target.fault(name, None, fault);
        let done = restore(RESTORE, with(existing), &target, &bucket).await;
        assert_eq!(ending(&done), "Partial", "{fault:?}");
        let result = result(&done);
        assert!(result.problems.iter().all(|problem| problem.message.contains(says)), "{:?}", result.problems);
        let failed = result.items.iter().filter(|item| item.verdict == "failed").count();
        assert_eq!(failed, result.problems.len());
        assert!(object(&target, "secrets", "blog/db")["data"].get("more").is_none(), "the rest is restored");
    }
}

#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_is_told_once_and_where_nothing_may_be_written_the_exit_code_says_so() {
    let (_folder, bucket) = backed_up().await;
    let no = Fault::Says(
        403,
        "configmaps is forbidden: User \"u\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"blog\"",
        "",
    );
    for (objects, code) in [(&[][..], ExitCode::Partial), (&["cm/settings-0", "cm/settings-1"], ExitCode::Forbidden)] {
        forget_restores(&bucket);
        let mut world = World::empty();
        world.put("namespaces", None, "blog", "", "\"spec\":{}");
        let target = Api::new(world);
        target.fault("POST /api/v1/namespaces/blog/configmaps", None, no);
        let task = RestoreTask {
            objects: objects.iter().map(|&object| object.to_owned()).collect(),
            namespaces: vec!["blog".to_owned()],
            ..with(Existing::Skip)
        };
        let done = restore(RESTORE, task, &target, &bucket).await;
        assert_eq!(exit_code(&done), code, "{}", ending(&done));
        let result = result(&done);
        let failed = result.items.iter().filter(|item| item.verdict == "failed").count();
        assert!(
            failed > 1 && result.items.iter().all(|item| item.verdict != "failed" || item.reason.contains("cannot"))
        );
        // the orders' definition isn't in a namespace
        let told: Vec<&str> = result.problems.iter().map(|problem| problem.message.as_str()).collect();
        let told: Vec<&&str> = told.iter().filter(|message| !message.contains("serves no such kind")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("`create` on `configmaps` in namespace `blog`: needed for"), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_changes_meanwhile_is_left_alone() {
    let (_folder, bucket) = backed_up().await;
    let path = "/api/v1/namespaces/shop/configmaps/settings-0";
    for (existing, request) in
        [(Existing::Update, format!("PUT {path}")), (Existing::Recreate, format!("DELETE {path}"))]
    {
        forget_restores(&bucket);
        let api = changed();
        api.fault(&request, Some(0), Fault::Edited);
        let done = restore(RESTORE, with(existing), &api, &bucket).await;
        assert_eq!(ending(&done), "Partial", "{existing:?}");
        let problems = result(&done).problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].message.contains("somebody has changed it since the plan was made"), "{problems:?}");
        let left = object(&api, "configmaps", "shop/settings-0");
        assert_eq!((&left["data"]["n"], &left["data"]["by"]), (&"changed".into(), &"somebody".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_that_moves_meanwhile_is_in_nobodys_way() {
    let (_folder, bucket) = backed_up().await;
    let path = "/apis/apps/v1/namespaces/shop/deployments/web";
    for (existing, method) in [(Existing::Update, "PUT"), (Existing::Recreate, "DELETE")] {
        forget_restores(&bucket);
        let api = changed();
        for number in 0..4 {
            api.fault(&format!("{method} {path}"), Some(number), Fault::Touched);
        }
        let done = restore(RESTORE, with(existing), &api, &bucket).await;
        assert_eq!(ending(&done), "Complete", "{existing:?}");
        assert_eq!(object(&api, "deployments", "shop/web")["spec"]["replicas"], 1);
    }
}
