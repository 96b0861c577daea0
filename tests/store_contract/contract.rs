//! The promises, each as a function that takes any store that is empty.

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::store::{Error, PART_SIZE, Store, Upload};

/// Bytes that repeat nowhere near a part's size.
fn body(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(length);
    bytes.into()
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|listed| listed.key).collect()
}

async fn write_in_pieces(upload: &mut dyn Upload, body: &Bytes, piece: usize) {
    let mut rest = body.clone();
    while !rest.is_empty() {
        let some = rest.split_to(piece.min(rest.len()));
        upload.write(some).await.unwrap();
    }
}

pub(crate) async fn what_is_created_is_read(store: &dyn Store) {
    for (key, length) in [("empty", 0), ("backups/one.json", 1), ("data/x/y/some", 100_000)] {
        let body = body(length);
        store.create(key, body.clone()).await.unwrap();
        assert_eq!(store.get(key, length as u64).await.unwrap(), body);
        assert_eq!(store.size(key).await.unwrap(), length as u64);
    }
    let error = store.get("data/x/y/some", 99_999).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 99_999, .. }), "{error}");
    for absent in ["none", "data/x/y", "backups/one.json/below"] {
        for error in [store.get(absent, 10).await.unwrap_err(), store.size(absent).await.unwrap_err()] {
            assert!(matches!(error, Error::NotFound { .. }), "{absent}: {error}");
            assert!(error.to_string().contains(absent), "{error}");
        }
    }
}

pub(crate) async fn nothing_is_replaced(store: &dyn Store) {
    store.create("a/b", "first".into()).await.unwrap();
    for second in ["second", "first", ""] {
        let error = store.create("a/b", second.into()).await.unwrap_err();
        assert!(matches!(error, Error::Exists { .. }) && error.to_string().contains("a/b"), "{error}");
    }
    assert_eq!(store.get("a/b", 100).await.unwrap(), "first");
}

pub(crate) async fn one_of_many_creators_wins(store: &dyn Store) {
    for round in 0..4 {
        let key = format!("race/{round}");
        let creators = (0..16).map(|number| {
            let key = key.clone();
            async move { (number, store.create(&key, format!("{number}").into()).await) }
        });
        let ended = futures::future::join_all(creators).await;
        let winners: Vec<i32> = ended.iter().filter(|(_, result)| result.is_ok()).map(|(number, _)| *number).collect();
        assert_eq!(winners.len(), 1, "{ended:?}");
        let others = ended.iter().filter(|(_, result)| matches!(result, Err(Error::Exists { .. })));
        assert_eq!(others.count(), 15, "{ended:?}");
        assert_eq!(store.get(&key, 10).await.unwrap(), winners[0].to_string());
    }
}

pub(crate) async fn ranges_are_exact(store: &dyn Store) {
    let body = body(1000);
    store.create("a", body.clone()).await.unwrap();
    for range in [0..1, 0..1000, 10..20, 999..1000] {
        let expected = body.slice(range.start as usize..range.end as usize);
        assert_eq!(store.get_range("a", range.clone()).await.unwrap(), expected, "{range:?}");
    }
    assert_eq!(store.get_range("a", 5..5).await.unwrap(), "");
    for range in [0..1001, 999..1001, 1000..1001, 5000..5001] {
        let error = store.get_range("a", range.clone()).await.unwrap_err();
        assert!(matches!(error, Error::Integrity { .. }), "{range:?}: {error}");
    }
    let error = store.get_range("b", 0..1).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

pub(crate) async fn lists_are_whole_and_sorted(store: &dyn Store) {
    assert_eq!(store.list("").await.unwrap(), []);
    assert_eq!(store.list("backups/").await.unwrap(), []);
    let all = ["a-b", "a/b-c", "a/b/c", "a/b0", "ab", "backups/x.json", "backups/y.json", "backupsz"];
    let before = Timestamp::now();
    for key in all.iter().rev() {
        store.create(key, key.to_owned().into()).await.unwrap();
    }
    let listed = store.list("").await.unwrap();
    assert_eq!(keys(store, "").await, all);
    for one in &listed {
        assert_eq!(one.size, one.key.len() as u64);
        let age = one.modified.duration_since(before);
        assert!(age.abs() < SignedDuration::from_mins(2), "{one:?} {before}");
    }
    assert_eq!(keys(store, "backups/").await, ["backups/x.json", "backups/y.json"]);
    assert_eq!(keys(store, "backups").await, ["backups/x.json", "backups/y.json", "backupsz"]);
    assert_eq!(keys(store, "backups/x").await, ["backups/x.json"]);
    assert_eq!(keys(store, "a/b").await, ["a/b-c", "a/b/c", "a/b0"]);
    assert_eq!(keys(store, "a/b/").await, ["a/b/c"]);
    assert_eq!(keys(store, "none/").await, [""; 0]);
}

pub(crate) async fn lists_have_no_limit(store: &dyn Store) {
    let all: Vec<String> = (0..1005).map(|number| format!("many/{number:04}")).collect();
    let created = stream::iter(&all).map(|key| store.create(key, "x".into())).buffer_unordered(16);
    created.try_collect::<Vec<()>>().await.unwrap();
    assert_eq!(keys(store, "many/").await, all);
}

pub(crate) async fn what_is_deleted_is_gone(store: &dyn Store) {
    store.delete("never/was").await.unwrap();
    store.create("a/b/c", "x".into()).await.unwrap();
    store.create("a/d", "x".into()).await.unwrap();
    store.delete("a/b/c").await.unwrap();
    assert!(matches!(store.get("a/b/c", 1).await, Err(Error::NotFound { .. })));
    assert_eq!(keys(store, "").await, ["a/d"]);
    store.delete("a/b/c").await.unwrap();
    store.create("a/b/c", "y".into()).await.unwrap();
    assert_eq!(store.get("a/b/c", 1).await.unwrap(), "y");
}

pub(crate) async fn keys_are_checked(store: &dyn Store) {
    for key in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".hidden", "a/.x", "a\0b", "a b", "ü"] {
        let is_key_error = |error: Option<Error>| matches!(error, Some(Error::Key { .. }));
        assert!(is_key_error(store.create(key, "x".into()).await.err()), "{key:?}");
        assert!(is_key_error(store.get(key, 1).await.err()), "{key:?}");
        assert!(is_key_error(store.get_range(key, 0..1).await.err()), "{key:?}");
        assert!(is_key_error(store.size(key).await.err()), "{key:?}");
        assert!(is_key_error(store.delete(key).await.err()), "{key:?}");
        assert!(is_key_error(store.upload(key).await.err()), "{key:?}");
    }
    for prefix in ["/", "../", "a//", ".x", "a b"] {
        assert!(matches!(store.list(prefix).await, Err(Error::Key { .. })), "{prefix:?}");
        assert!(matches!(store.pending_uploads(prefix).await, Err(Error::Key { .. })), "{prefix:?}");
    }
}

pub(crate) async fn uploads_of_any_size_arrive(store: &dyn Store) {
    let sizes = [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 4 * PART_SIZE + 12_345];
    for (number, (length, piece)) in
        sizes.into_iter().zip([1, 1, 1 << 20, 777_777, PART_SIZE, 20 << 20, 3 << 20]).enumerate()
    {
        let (key, body) = (format!("data/{number}"), body(length));
        let mut upload = store.upload(&key).await.unwrap();
        write_in_pieces(upload.as_mut(), &body, piece).await;
        assert_eq!(upload.finish().await.unwrap(), length as u64);
        assert_eq!(store.size(&key).await.unwrap(), length as u64);
        assert!(store.get(&key, length as u64).await.unwrap() == body, "{length} bytes in pieces of {piece}");
    }
    let across = PART_SIZE as u64 - 10..PART_SIZE as u64 + 10;
    let expected = body(sizes[6]).slice(PART_SIZE - 10..PART_SIZE + 10);
    assert_eq!(store.get_range("data/6", across).await.unwrap(), expected);
    assert_eq!(store.pending_uploads("").await.unwrap(), []);
}

pub(crate) async fn uploads_appear_when_finished(store: &dyn Store) {
    for (key, length) in [("data/small", 1000), ("data/large", 2 * PART_SIZE + 1)] {
        let mut upload = store.upload(key).await.unwrap();
        write_in_pieces(upload.as_mut(), &body(length), 1 << 20).await;
        assert!(matches!(store.size(key).await, Err(Error::NotFound { .. })));
        assert_eq!(keys(store, "data/").await, [""; 0]);
        upload.finish().await.unwrap();
        assert_eq!(keys(store, "data/").await, [key]);
        store.delete(key).await.unwrap();
    }
}

pub(crate) async fn small_uploads_replace_nothing(store: &dyn Store) {
    store.create("a", "first".into()).await.unwrap();
    let mut upload = store.upload("a").await.unwrap();
    upload.write("second".into()).await.unwrap();
    let error = upload.finish().await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(store.get("a", 100).await.unwrap(), "first");
    assert_eq!(store.pending_uploads("").await.unwrap(), []);
}

pub(crate) async fn aborted_uploads_leave_nothing(store: &dyn Store) {
    for length in [0, 10, 2 * PART_SIZE + 1] {
        let mut upload = store.upload("a/b").await.unwrap();
        write_in_pieces(upload.as_mut(), &body(length), 1 << 20).await;
        upload.abort().await.unwrap();
        assert_eq!(store.list("").await.unwrap(), []);
        assert_eq!(store.pending_uploads("").await.unwrap(), []);
    }
}

pub(crate) async fn killed_uploads_are_pending(store: &dyn Store) {
    let before = Timestamp::now();
    for key in ["data/x/objects", "data/y/objects"] {
        let mut upload = store.upload(key).await.unwrap();
        write_in_pieces(upload.as_mut(), &body(PART_SIZE + 1), 1 << 20).await;
        // A killed worker runs no destructor.
        std::mem::forget(upload);
    }
    assert_eq!(store.list("").await.unwrap(), []);
    let pending = store.pending_uploads("data/x/").await.unwrap();
    assert_eq!(pending.iter().map(|upload| upload.key.as_str()).collect::<Vec<_>>(), ["data/x/objects"]);
    let age = pending[0].initiated.duration_since(before);
    assert!(age.abs() < SignedDuration::from_mins(2), "{pending:?} {before}");
    store.abort_upload(&pending[0]).await.unwrap();
    store.abort_upload(&pending[0]).await.unwrap();
    let left = store.pending_uploads("").await.unwrap();
    assert_eq!(left.iter().map(|upload| upload.key.as_str()).collect::<Vec<_>>(), ["data/y/objects"]);
    store.abort_upload(&left[0]).await.unwrap();
    assert_eq!(store.pending_uploads("").await.unwrap(), []);
}
