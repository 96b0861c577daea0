//! Which backups there are: one LIST, and the manifests. Finds the one that a person means.

use super::Error;
use crate::archive::manifest::{BACKUPS, MANIFEST_LIMIT, Manifest, id_of_key, manifest_key};
use crate::id::{BackupId, BackupQuery};
use crate::report::Problem;
use crate::store::{self, Store};
use futures::{StreamExt, stream};

/// Manifests read at once.
const AT_ONCE: usize = 16;
/// Ids named in an error.
const NAMED: usize = 5;

/// The backups of a location, oldest first.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Their manifests.
    pub backups: Vec<Manifest>,
    /// Manifests that can't be read, each with the reason.
    pub problems: Vec<Problem>,
}

/// Reads all manifests of a location.
///
/// # Errors
/// The bucket's. A single manifest that can't be read is a problem in the result.
pub async fn read(store: &dyn Store) -> Result<Catalog, Error> {
    read_beginning(store, "").await
}

/// Reads the manifests of the backups whose ids begin so.
async fn read_beginning(store: &dyn Store, beginning: &str) -> Result<Catalog, Error> {
    let listed = store.list(&format!("{BACKUPS}{beginning}")).await?;
    let mut ids: Vec<BackupId> = listed.iter().filter_map(|object| id_of_key(&object.key)).collect();
    // an id written out in full means itself, also when others begin with it
    if let Some(exact) = ids.iter().position(|id| id.as_str() == beginning) {
        ids = vec![ids.swap_remove(exact)];
    }
    let mut manifests = stream::iter(ids).map(|id| async move { (manifest(store, &id).await, id) }).buffered(AT_ONCE);
    let mut catalog = Catalog::default();
    while let Some((result, id)) = manifests.next().await {
        match result {
            Ok(manifest) => catalog.backups.push(manifest),
            Err(error @ Error::Archive(_)) => {
                catalog.problems.push(Problem { subject: id.to_string(), message: error.to_string() });
            }
            Err(Error::NotFound(_)) => (), // deleted since the LIST
            Err(error) => return Err(error),
        }
    }
    catalog.backups.sort_by(|a, b| (a.started_at, &a.id).cmp(&(b.started_at, &b.id)));
    Ok(catalog)
}

/// The manifest of one backup.
///
/// # Errors
/// [`Error::NotFound`] where there is none, [`Error::Archive`] where it can't be read.
pub async fn manifest(store: &dyn Store, id: &BackupId) -> Result<Manifest, Error> {
    match store.get(&manifest_key(id), MANIFEST_LIMIT).await {
        Ok(bytes) => Ok(Manifest::read(id, &bytes)?),
        Err(store::Error::NotFound { .. }) => {
            Err(Error::NotFound(format!("there is no backup `{id}` in {}", store.describe())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds the backup that a person means. `cluster` is the uid of the cluster whose backups count; an id written out
/// in full is found whatever cluster it is from.
///
/// # Errors
/// [`Error::NotFound`] with what there is instead.
pub async fn find(store: &dyn Store, query: &BackupQuery, cluster: Option<&str>) -> Result<Manifest, Error> {
    let beginning = if let BackupQuery::Prefix(text) = query { text.as_str() } else { "" };
    let mut catalog = read_beginning(store, beginning).await?;
    if catalog.backups.is_empty()
        && let [problem] = &catalog.problems[..]
    {
        // the only one that can be meant can't be read: that is the answer
        return manifest(store, &BackupId::parse(&problem.subject).map_err(|e| Error::NotFound(e.to_string()))?).await;
    }
    if let [only] = &catalog.backups[..]
        && only.id.as_str() == beginning
    {
        return Ok(catalog.backups.swap_remove(0));
    }
    let is_ours = |backup: &Manifest| cluster.is_none_or(|uid| backup.cluster.uid == uid);
    if !beginning.is_empty() && !catalog.backups.iter().any(is_ours) {
        // whether others' may be meant, and what there is instead, only the whole location tells
        catalog = read(store).await?;
    }
    choose(catalog, query, cluster, &store.describe()).map_err(Error::NotFound)
}

/// Chooses among all backups; pure.
fn choose(catalog: Catalog, query: &BackupQuery, cluster: Option<&str>, place: &str) -> Result<Manifest, String> {
    let all = catalog.backups;
    if all.is_empty() {
        return Err(format!("there are no backups in {place}"));
    }
    let shared = all.iter().any(|backup| backup.cluster.uid != all[0].cluster.uid);
    let ours = |backup: &Manifest| !shared || cluster.is_none_or(|uid| backup.cluster.uid == uid);
    let means = |backup: &Manifest| match query {
        BackupQuery::Prefix(prefix) => backup.id.as_str().starts_with(prefix.as_str()),
        // what a restore saved for its undoing is nobody's latest backup
        _ if backup.safety_of.is_some() => false,
        BackupQuery::Latest => true,
        BackupQuery::LatestOf(namespace) => backup.namespaces.iter().any(|name| name == namespace),
        BackupQuery::At(time) => backup.started_at <= *time,
    };
    let (matching, foreign): (Vec<_>, Vec<_>) = all.into_iter().filter(means).partition(ours);
    if matches!(query, BackupQuery::Prefix(_)) && matching.len() > 1 {
        let ids: Vec<String> = matching.iter().take(NAMED).map(|backup| format!("`{}`", backup.id)).collect();
        return Err(format!(
            "`{query}` means more than one backup: {}{}",
            ids.join(", "),
            if matching.len() > NAMED { ", …" } else { "" }
        ));
    }
    match (matching.into_iter().next_back(), foreign.last()) {
        (Some(backup), _) => Ok(backup),
        (None, Some(other)) => Err(format!(
            "`{query}` means no backup of this cluster in {place}\nhint: there are backups of other clusters, such as `{}`; name one in full or add `--from-cluster {}`",
            other.id, other.cluster.uid
        )),
        (None, None) => {
            Err(format!("`{query}` means no backup in {place}\nhint: `kubectl backup list` shows what is there"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup(id: &str, cluster: &str, time: &str, namespace: &str) -> Manifest {
        let file = json!({"key": "k", "size": 1, "sha256": crate::id::Digest::of(b"")});
        serde_json::from_value(json!({
            "format": "kubectl-backup/1", "id": id, "attempt": "a", "cluster": {"uid": cluster, "version": "v"},
            "scope": "namespaces", "namespaces": [namespace], "startedAt": time, "endedAt": time, "outcome": "Complete",
            "consistency": {"skewSeconds": 0.0}, "counts": {"objects": 0, "bytes": 0, "problems": 0, "omissions": 0},
            "files": {"objects": file, "index": file, "report": file, "log": file}, "tool": "t"
        }))
        .unwrap()
    }

    fn found(backups: &[(&str, &str, &str, &str)], query: &str, cluster: &str) -> Result<String, String> {
        let backups = backups.iter().map(|(id, cluster, time, ns)| backup(id, cluster, time, ns)).collect();
        let catalog = Catalog { backups, problems: Vec::new() };
        choose(catalog, &BackupQuery::parse(query).unwrap(), Some(cluster), "s3://b")
            .map(|backup| backup.id.to_string())
    }

    const SHARED: &[(&str, &str, &str, &str)] = &[
        ("shop-1", "here", "2026-11-19T10:00:00Z", "shop"),
        ("shop-2", "here", "2026-11-20T10:00:00Z", "shop"),
        ("blog-1", "here", "2026-11-20T11:00:00Z", "blog"),
        ("shop-3", "there", "2026-11-21T10:00:00Z", "shop"),
        ("wiki-1", "there", "2026-11-21T11:00:00Z", "wiki"),
    ];

    #[test]
    fn in_a_shared_location_this_clusters_backups_are_meant() {
        for (query, id) in [
            ("latest", "blog-1"),
            ("latest:shop", "shop-2"),
            ("@2026-11-20", "shop-1"),
            ("@2026-11-20T10:00", "shop-2"),
            ("blog", "blog-1"),
        ] {
            assert_eq!(found(SHARED, query, "here").as_deref(), Ok(id), "{query}");
        }
        assert!(found(SHARED, "wiki", "here").unwrap_err().contains("--from-cluster there"));
        assert!(found(SHARED, "shop-", "here").unwrap_err().contains("`shop-1`, `shop-2`"));
        assert!(found(SHARED, "@2020-01-01", "here").unwrap_err().contains("means no backup"));
    }

    #[tokio::test]
    async fn the_beginning_of_another_clusters_id_is_not_enough_in_a_shared_location() {
        let folder = tempfile::tempdir().unwrap();
        let location = crate::config::Location::parse_url(&format!("file://{}", folder.path().display())).unwrap();
        let store = store::open(&location).await.unwrap();
        for (id, cluster, time, namespace) in SHARED {
            let mut manifest = backup(id, cluster, time, namespace);
            let key = |name: &str| crate::archive::manifest::data_key(&manifest.id, &manifest.attempt, name);
            let [objects, index, report, log] = crate::archive::manifest::FILE_NAMES.map(key);
            let files = &mut manifest.files;
            (files.objects.key, files.index.key, files.report.key, files.log.key) = (objects, index, report, log);
            let bytes = bytes::Bytes::from(manifest.to_bytes().unwrap());
            store.create(&manifest_key(&manifest.id), bytes).await.unwrap();
        }
        let find = async |text: &str| {
            let found = find(&*store, &BackupQuery::parse(text).unwrap(), Some("here")).await;
            found.map(|manifest| manifest.id.to_string()).map_err(|error| error.to_string())
        };
        assert!(find("wiki").await.unwrap_err().contains("--from-cluster there"));
        assert_eq!(find("wiki-1").await.as_deref(), Ok("wiki-1"), "written out in full it is enough");
        assert_eq!(find("blog").await.as_deref(), Ok("blog-1"));
        assert!(find("nothing").await.unwrap_err().contains("means no backup"));
    }

    #[test]
    fn a_safety_backup_is_meant_by_its_id_only() {
        let ordinary = backup("shop-1", "here", "2026-11-19T10:00:00Z", "shop");
        let mut safety = backup("safety-restore-1", "here", "2026-11-20T10:00:00Z", "shop");
        safety.safety_of = Some(BackupId::parse("restore-1").unwrap());
        let found = |query: &str| {
            let catalog = Catalog { backups: vec![ordinary.clone(), safety.clone()], problems: Vec::new() };
            choose(catalog, &BackupQuery::parse(query).unwrap(), Some("here"), "s3://b")
                .map(|found| found.id.to_string())
        };
        for query in ["latest", "latest:shop", "@2026-11-21"] {
            assert_eq!(found(query).as_deref(), Ok("shop-1"), "{query}");
        }
        assert_eq!(found("safety").as_deref(), Ok("safety-restore-1"));
    }

    #[test]
    fn a_new_cluster_finds_the_backups_of_the_only_one_there_is() {
        assert_eq!(found(&SHARED[..3], "latest", "new").as_deref(), Ok("blog-1"));
        assert!(found(&[], "latest", "new").unwrap_err().contains("no backups"));
    }
}
