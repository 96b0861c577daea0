//! What every store promises, tried with a folder and with a real S3 server.
//!
//! The tests whose names begin with `s3_` need `KUBECTL_BACKUP_TEST_S3`, a location's URL such as
//! `s3://bucket?endpoint=http://127.0.0.1:9000`, with credentials in the environment; without it they fail, they are
//! never skipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;

use kubectl_backup::config::{Location, Place};
use kubectl_backup::store::{self, Error, Store};
use std::sync::Arc;

/// A store that holds nothing, and what must live as long as it.
struct Fresh {
    store: Arc<dyn Store>,
    location: Location,
    _folder: Option<tempfile::TempDir>,
}

async fn folder() -> Fresh {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::parse_url(&format!("file://{}/new", folder.path().display())).unwrap();
    Fresh { store: store::open(&location).await.unwrap(), location, _folder: Some(folder) }
}

async fn s3() -> Fresh {
    let url =
        std::env::var("KUBECTL_BACKUP_TEST_S3").expect("KUBECTL_BACKUP_TEST_S3 must be the URL of an S3 location");
    let mut location = Location::parse_url(&url).unwrap();
    let Place::S3(s3) = &mut location.place else { panic!("KUBECTL_BACKUP_TEST_S3 must begin with s3://") };
    let run = format!("contract-{:016x}", fastrand::u64(..));
    s3.prefix = if s3.prefix.is_empty() { run } else { format!("{}/{run}", s3.prefix) };
    Fresh { store: store::open(&location).await.unwrap(), location, _folder: None }
}

/// One test per store for each promise.
macro_rules! promises {
    ($($promise:ident => $folder:ident, $s3:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $folder() {
                contract::$promise(folder().await.store.as_ref()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $s3() {
                contract::$promise(s3().await.store.as_ref()).await;
            }
        )*
    };
}

promises! {
    what_is_created_is_read => folder_what_is_created_is_read, s3_what_is_created_is_read;
    nothing_is_replaced => folder_nothing_is_replaced, s3_nothing_is_replaced;
    one_of_many_creators_wins => folder_one_of_many_creators_wins, s3_one_of_many_creators_wins;
    ranges_are_exact => folder_ranges_are_exact, s3_ranges_are_exact;
    lists_are_whole_and_sorted => folder_lists_are_whole_and_sorted, s3_lists_are_whole_and_sorted;
    lists_have_no_limit => folder_lists_have_no_limit, s3_lists_have_no_limit;
    what_is_deleted_is_gone => folder_what_is_deleted_is_gone, s3_what_is_deleted_is_gone;
    keys_are_checked => folder_keys_are_checked, s3_keys_are_checked;
    uploads_of_any_size_arrive => folder_uploads_of_any_size_arrive, s3_uploads_of_any_size_arrive;
    uploads_appear_when_finished => folder_uploads_appear_when_finished, s3_uploads_appear_when_finished;
    small_uploads_replace_nothing => folder_small_uploads_replace_nothing, s3_small_uploads_replace_nothing;
    aborted_uploads_leave_nothing => folder_aborted_uploads_leave_nothing, s3_aborted_uploads_leave_nothing;
    killed_uploads_are_pending => folder_killed_uploads_are_pending, s3_killed_uploads_are_pending;
}

async fn read_only_stores_are_only_read(fresh: Fresh) {
    fresh.store.create("a", "x".into()).await.unwrap();
    let location = Location { read_only: true, ..fresh.location.clone() };
    let store = store::open(&location).await.unwrap();
    assert_eq!(store.get("a", 10).await.unwrap(), "x");
    assert_eq!(store.get_range("a", 0..1).await.unwrap(), "x");
    assert_eq!((store.size("a").await.unwrap(), store.list("").await.unwrap().len()), (1, 1));
    assert_eq!(store.describe(), fresh.store.describe());
    assert!(matches!(store.create("b", "x".into()).await, Err(Error::ReadOnly { .. })));
    assert!(matches!(store.delete("a").await, Err(Error::ReadOnly { .. })));
    assert!(matches!(store.upload("b").await.err(), Some(Error::ReadOnly { .. })));
    assert_eq!(fresh.store.list("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn folder_read_only_stores_are_only_read() {
    read_only_stores_are_only_read(folder().await).await;
}

#[tokio::test]
async fn s3_read_only_stores_are_only_read() {
    read_only_stores_are_only_read(s3().await).await;
}

#[tokio::test]
async fn s3_a_prefix_sees_nothing_of_its_neighbours() {
    let fresh = s3().await;
    fresh.store.create("a/b", "x".into()).await.unwrap();
    fresh.store.create("ab", "x".into()).await.unwrap();
    let mut within = fresh.location.clone();
    if let Place::S3(s3) = &mut within.place {
        s3.prefix.push_str("/a");
    }
    let within = store::open(&within).await.unwrap();
    let keys: Vec<String> = within.list("").await.unwrap().into_iter().map(|listed| listed.key).collect();
    assert_eq!(keys, ["b"]);
}

#[tokio::test]
async fn s3_a_bucket_that_is_not_there_is_named() {
    let mut location = s3().await.location;
    if let Place::S3(s3) = &mut location.place {
        s3.bucket = "kubectl-backup-not-there".into();
    }
    let store = store::open(&location).await.unwrap();
    for error in [store.list("").await.unwrap_err(), store.create("a", "x".into()).await.unwrap_err()] {
        assert!(error.to_string().starts_with("bucket `kubectl-backup-not-there` does not exist at http"), "{error}");
    }
    let error = store.upload("a").await.unwrap().finish().await.unwrap_err();
    assert!(matches!(error, Error::NoBucket { .. }), "{error}");
}
