//! What a restore changes of others' while the API server fails: it holds in the end, once.

use crate::api::{Api, Fault};
use crate::bucket::Bucket;
use crate::run::{Scope, Worker, ending, folder};
use crate::world::{World, kind};
use serde_json::{Value, json};

const RESTORE: &str = "shop-20261120-120000-bbbb";
const PATCH: &str = "PATCH /api/v1/namespaces/shop/serviceaccounts/default";

#[tokio::test(start_paused = true)]
async fn an_account_that_appears_meanwhile_gets_what_it_lacks_whatever_happens_to_the_answer() {
    let folder = folder();
    let mut world = World::full();
    world.put("serviceaccounts", Some("shop"), "default", "", r#""imagePullSecrets":[{"name":"registry"}]"#);
    let bucket = Bucket::new(folder.path()).await;
    assert_eq!(ending(&Worker::default().back_up(&Api::new(world), &bucket, Scope::Cluster).await), "Complete");
    for fault in
        [None, Some(Fault::ResetAfter), Some(Fault::Reset), Some(Fault::Status(500)), Some(Fault::RetryAfter(429))]
    {
        let bucket = Bucket::new(folder.path()).await;
        for left in [bucket.root().join("restores"), bucket.root().join("data").join(RESTORE)] {
            _ = std::fs::remove_dir_all(left);
        }
        let target = Api::new(World::empty());
        target.state().appearing = true;
        if let Some(fault) = fault {
            target.fault(PATCH, Some(0), fault);
        }
        let result = Worker::default().restore(RESTORE, &target, &bucket).await;
        assert_eq!(ending(&result), "Complete", "{fault:?}");
        let state = target.state();
        let account: Value =
            serde_json::from_str(state.world.get(kind("serviceaccounts"), "shop/default").expect("an account"))
                .unwrap();
        let pulls = json!([{"name": "its-own"}, {"name": "registry"}]);
        assert_eq!(account["imagePullSecrets"], pulls, "{fault:?}");
        let notes =
            result.unwrap().result.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        assert!(notes.contains("what it lacked was added"), "{fault:?}: {notes}");
    }
}
