//! The end of a backup: the manifest, once; and taking back what never became a backup.

use crate::archive::manifest::{File, MANIFEST_LIMIT, Manifest, data_key, manifest_key};
use crate::archive::packed::Packed;
use crate::id::{Attempt, BackupId};
use crate::pipeline::Error;
use crate::pipeline::upload;
use crate::store::{self, Store};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

/// Bytes of what is packed that are opened at once.
const PIECE: usize = 256 * 1024;

/// What became of a manifest.
#[derive(Debug)]
pub enum Committed {
    /// Ours is the backup.
    Ours,
    /// Another attempt's is the backup, and ours is taken back.
    Theirs(Box<Manifest>),
}

/// Stores a data file that is whole in memory, such as the report.
///
/// # Errors
/// The bucket's.
pub async fn put_file(
    store: &dyn Store,
    id: &BackupId,
    attempt: &Attempt,
    name: &str,
    bytes: Bytes,
) -> Result<File, Error> {
    upload::put(store, data_key(id, attempt, name), [Ok(bytes)]).await
}

/// The same of one that is packed.
///
/// # Errors
/// The bucket's.
pub async fn put_packed(
    store: &dyn Store,
    id: &BackupId,
    attempt: &Attempt,
    name: &str,
    packed: &Packed,
) -> Result<File, Error> {
    upload::put(store, data_key(id, attempt, name), packed.pieces(PIECE)?).await
}

/// How long a run may have taken whose data is certainly still there: half of what others leave it alone for.
const SURELY_THERE: SignedDuration = SignedDuration::from_hours(12);

/// Checks before the commit of a long run that nobody has swept what it stored: a Job's time is bounded, that of a run with
/// `--local` or on a machine that slept isn't.
///
/// # Errors
/// [`Error::Swept`], or the bucket's.
pub async fn check_stored(
    store: &dyn Store,
    manifest: &Manifest,
    began: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    if now.duration_since(began) < SURELY_THERE {
        return Ok(());
    }
    let listed = store.list(&data_key(&manifest.id, &manifest.attempt, "")).await?;
    let files = &manifest.files;
    for file in [&files.objects, &files.index, &files.report, &files.log] {
        let found = match listed.iter().find(|object| object.key == file.key) {
            Some(object) if object.size == file.size => continue,
            Some(object) => format!("{} bytes instead of {}", object.size, file.size),
            None => "gone".to_owned(),
        };
        return Err(Error::Swept { key: file.key.clone(), found });
    }
    Ok(())
}

/// Writes the manifest: from then on the backup exists. Where one is there already, or the answer got lost, it is read
/// back to see whose it is.
///
/// # Errors
/// The bucket's refusal, or [`Error::ManifestTooLarge`]: then there is no manifest, and what the attempt stored may be
/// removed. [`Error::Unsure`] where nobody can tell: then it must stay.
pub async fn manifest(store: &dyn Store, manifest: &Manifest) -> Result<Committed, Error> {
    let key = manifest_key(&manifest.id);
    let bytes = manifest.to_bytes()?;
    if bytes.len() as u64 > MANIFEST_LIMIT {
        let (id, namespaces) = (manifest.id.clone(), manifest.namespaces.len());
        return Err(Error::ManifestTooLarge { id, bytes: bytes.len() as u64, namespaces });
    }
    let Err(error) = store.create(&key, Bytes::from(bytes)).await else { return Ok(Committed::Ours) };
    let unsure = |source: Error| Error::Unsure { id: manifest.id.clone(), source: Box::new(source) };
    // presence is asked by LIST: with rights limited to a prefix S3 may answer 403 to a GET of what isn't there
    match store.list(&key).await {
        Ok(found) if found.iter().any(|object| object.key == key) => (),
        // a request that was given up may still arrive
        Ok(_) if error.is_transient() => return Err(unsure(error.into())),
        Ok(_) if !matches!(error, store::Error::Exists { .. }) => return Err(error.into()),
        _ => return Err(unsure(error.into())),
    }
    let standing = match store.get(&key, MANIFEST_LIMIT).await {
        Ok(bytes) => Manifest::read(&manifest.id, &bytes).map_err(|error| unsure(error.into()))?,
        Err(_) => return Err(unsure(error.into())),
    };
    if standing.attempt == manifest.attempt {
        return Ok(Committed::Ours);
    }
    if let Err(error) = discard(store, &manifest.id, &manifest.attempt).await {
        tracing::warn!(%error, "what this attempt stored is left for a later run to sweep");
    }
    Ok(Committed::Theirs(Box::new(standing)))
}

/// Removes what an attempt stored, all but its log.
///
/// # Errors
/// The bucket's; a later run's sweep removes what is left.
pub async fn discard(store: &dyn Store, id: &BackupId, attempt: &Attempt) -> Result<(), Error> {
    let prefix = data_key(id, attempt, "");
    for object in store.list(&prefix).await? {
        if !object.key.ends_with("/log.jsonl.zst") {
            store.delete(&object.key).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Location;
    use crate::id::Digest;
    use serde_json::json;

    fn manifest(namespaces: usize) -> Manifest {
        let id = BackupId::parse("all-20261120-100000-k3fa").unwrap();
        let file = |name: &str| json!({"key": format!("data/{id}/a1/{name}"), "size": 1, "sha256": Digest::of(b"")});
        let names: Vec<String> = (0..namespaces).map(|number| format!("team-of-many-people-{number:030}")).collect();
        let text = json!({
            "format": "kubectl-backup/1", "id": id, "attempt": "a1", "cluster": {"uid": "u", "version": "v1.36.3"},
            "scope": "namespaces", "namespaces": names, "startedAt": "2026-11-20T10:00:00Z", "endedAt": "2026-11-20T10:00:02Z",
            "outcome": "Complete", "consistency": {"revision": "7", "skewSeconds": 0.0},
            "counts": {"objects": 1, "bytes": 2, "problems": 0, "omissions": 0},
            "files": {"objects": file("objects.tar.zst"), "index": file("index.jsonl.zst"), "report": file("report.json"), "log": file("log.jsonl.zst")},
            "tool": "kubectl-backup 0.1.0"
        });
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn a_manifest_that_nobody_would_read_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::parse_url(&format!("file://{}", folder.path().display())).unwrap();
        let store = store::open(&location).await.unwrap();
        let error = super::manifest(store.as_ref(), &manifest(20_000)).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("20000 namespaces") && said.contains("hint: `kubectl backup cluster`"), "{said}");
        assert!(store.list("").await.unwrap().is_empty());
        // as many as Kubernetes is made for
        assert!(matches!(super::manifest(store.as_ref(), &manifest(10_000)).await, Ok(Committed::Ours)));
        let read = store.get(&manifest_key(&manifest(0).id), MANIFEST_LIMIT).await.unwrap();
        assert_eq!(Manifest::read(&manifest(0).id, &read).unwrap().namespaces.len(), 10_000);
    }
}
