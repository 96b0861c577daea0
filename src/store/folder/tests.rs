//! What only folders have: permissions, temporary files, links, and folders that come and go. The rest is in
//! `tests/store_contract`.

use super::*;
use futures::FutureExt;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_reads_backups() {
    let root = tempfile::tempdir().unwrap();
    let store = Folder::new(&root.path().join("a/b"));
    store.create("backups/x.json", "x".into()).await.unwrap();
    let mut upload = store.upload("data/x/objects").await.unwrap();
    upload.write("x".into()).await.unwrap();
    upload.finish().await.unwrap();
    for folder in ["a", "a/b", "a/b/backups", "a/b/data", "a/b/data/x"] {
        assert_eq!(mode(&root.path().join(folder)), 0o700, "{folder}");
    }
    for file in ["a/b/backups/x.json", "a/b/data/x/objects"] {
        assert_eq!(mode(&root.path().join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_dropped_upload_leaves_no_file() {
    let root = tempfile::tempdir().unwrap();
    let store = Folder::new(root.path());
    let mut upload = store.upload("a").await.unwrap();
    upload.write("x".into()).await.unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    drop(upload);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn empty_folders_go_and_come_again() {
    let root = tempfile::tempdir().unwrap();
    let store = Folder::new(root.path());
    store.create("data/x/y/z", "x".into()).await.unwrap();
    store.create("data/w", "x".into()).await.unwrap();
    store.delete("data/x/y/z").await.unwrap();
    assert!(!root.path().join("data/x").exists() && root.path().join("data/w").exists());
    store.delete("data/w").await.unwrap();
    assert!(root.path().exists() && !root.path().join("data").exists());

    // Somebody who removes the last key of a folder doesn't disturb somebody who creates the next.
    for round in 0..200 {
        let (old, new) = (format!("data/x/{round}"), format!("data/x/{}", round + 1));
        store
            .create(&old, "x".into())
            .await
            .or_else(|e| matches!(e, Error::Exists { .. }).then_some(()).ok_or(e))
            .unwrap();
        let (deleted, created) = tokio::join!(store.delete(&old), store.create(&new, "x".into()));
        deleted.unwrap();
        created.unwrap();
    }
}

#[tokio::test]
async fn links_and_folders_are_no_bodies() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
    let store = Folder::new(root.path());
    store.create("a/b", "x".into()).await.unwrap();
    let keys: Vec<String> = store.list("").await.unwrap().into_iter().map(|listed| listed.key).collect();
    assert_eq!(keys, ["a/b"]);
    for folder in ["a", "link"] {
        assert!(matches!(store.get(folder, 10).await, Err(Error::NotFound { .. })), "{folder}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "x").unwrap();
    let store = Folder::new(&root.path().join("file"));
    let error = store.create("a", "x".into()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("can't create a file in `{}/file`: ", root.path().display())), "{text}");
    assert_eq!(store.list("").await.unwrap(), []);
}

#[tokio::test]
async fn what_is_no_pending_upload_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = Folder::new(root.path());
    store.create("a", "x".into()).await.unwrap();
    for id in ["a", ".b.0.tmp", "../a", ".a", ".a.tmp/../a"] {
        let upload = PendingUpload { key: "a".to_owned(), initiated: Timestamp::UNIX_EPOCH, id: id.to_owned() };
        assert!(matches!(store.abort_upload(&upload).await, Err(Error::Key { .. })), "{id}");
    }
    assert_eq!(store.get("a", 1).await.unwrap(), "x");
}

#[tokio::test]
async fn an_abort_waits_for_a_write_whose_caller_went_away() {
    let root = tempfile::tempdir().unwrap();
    let store = Folder::new(root.path());
    let mut upload = store.upload("x").await.unwrap();
    assert!(upload.write(Bytes::from(vec![7; 32 << 20])).now_or_never().is_none(), "32 MiB are written at once");
    upload.abort().await.unwrap();
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}
