//! Where many objects are to be compared they are read by pages of a list; and where that fails, one by one, with the same
//! plan.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::existing::{edit, restore, result, with};
use crate::restore::RESTORE;
use crate::run::{Scope, Worker, ending, folder};
use crate::world::World;
use kubectl_backup::operations::restore::{DryRun, RestoreTask};
use kubectl_backup::rules::verdict::Existing;
use serde_json::json;

/// Enough of one kind in one namespace to be listed.
const MANY: usize = 40;
const LIST: &str = "GET /api/v1/namespaces/shop/configmaps";

fn world() -> World {
    let mut world = World::full();
    for number in 0..MANY {
        world.put("configmaps", Some("shop"), &format!("many-{number:02}"), "", r#""data":{"n":"1"}"#);
    }
    world
}

/// All of the many were written since, and two of them differ.
fn touched() -> Api {
    let api = Api::new(world());
    for number in 0..MANY {
        edit(&api, "configmaps", &format!("shop/many-{number:02}"), |object| {
            object["status"] = json!({"seen": true});
            if number % 30 == 7 {
                object["data"]["n"] = json!("2");
            }
        });
    }
    api
}

fn gets(api: &Api) -> usize {
    api.seen().iter().filter(|(name, _)| name.starts_with(&format!("{LIST}/"))).count()
}

#[tokio::test(start_paused = true)]
async fn many_objects_are_compared_by_pages_and_one_by_one_where_a_page_fails() {
    let folder = folder();
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&Api::new(world()), &bucket, Scope::Cluster).await), "Complete");
    let bucket = Bucket::new(folder.path()).await;
    let plan = || RestoreTask { dry_run: DryRun::Client, ..with(Existing::Update) };
    let api = touched();
    let whole = result(&restore(RESTORE, plan(), &api, &bucket).await);
    let updates: Vec<&str> =
        whole.items.iter().filter(|item| item.verdict == "update").map(|item| &*item.name).collect();
    assert_eq!(updates, ["many-07", "many-37"]);
    assert_eq!(whole.items.iter().flat_map(|item| &item.changes).count(), 2, "the type is no change");
    assert_eq!(gets(&api), 0, "{:?}", api.seen());
    let lists: Vec<(String, usize)> = api
        .seen()
        .into_iter()
        .filter(|(name, _)| name.strip_prefix(LIST).is_some_and(|rest| rest.is_empty() || rest.starts_with(" page")))
        .collect();
    assert!(lists.len() > 10, "{lists:?}");
    let faults = [
        Fault::Status(403),
        Fault::Status(410),
        Fault::BreaksOff(50),
        Fault::Ends(50),
        Fault::Rots(40),
        Fault::Page,
        Fault::Nothing,
    ];
    for (name, number) in lists {
        for fault in faults {
            let api = touched();
            api.fault(&name, Some(number), fault);
            let done = restore(RESTORE, plan(), &api, &bucket).await;
            assert_eq!(result(&done).plan_digest, whole.plan_digest, "{name} {fault:?}");
            assert!(gets(&api) > 0, "{name} {fault:?}");
        }
    }
}
