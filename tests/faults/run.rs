//! Runs of the real engine against the fakes, and the reading of what they left: by the engine itself and, without it,
//! with zstd, tar and SHA-256.

use crate::api::Api;
use crate::bucket::Bucket;
use crate::clean;
use crate::world::{KINDS, World, belongs_to_shop, is_saved};
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::archive::manifest::Manifest;
use kubectl_backup::config::Location;
use kubectl_backup::id::{Attempt, BackupId, BackupQuery};
use kubectl_backup::operations::backup::{BackupTask, Report};
use kubectl_backup::operations::restore::{DryRun, RestoreTask};
use kubectl_backup::operations::{self, Context, Done, Query, Task, Verb};
use kubectl_backup::pipeline::fetch;
use kubectl_backup::report::{Events, ExitCode, Outcome};
use kubectl_backup::resource::Kind;
use kubectl_backup::rules::adapt::AdaptOptions;
use kubectl_backup::rules::claims::VolumeData;
use kubectl_backup::rules::selection::Selection;
use kubectl_backup::rules::verdict::Existing;
use kubectl_backup::store::Store;
use kubectl_backup::volumes::restore;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The id of every backup here.
pub(crate) const ID: &str = "shop-20261120-100000-k3fa";

/// What is backed up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scope {
    Shop,
    Cluster,
}

/// One worker.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) attempt: &'static str,
    pub(crate) cancel: CancellationToken,
    /// Days that its clock is ahead.
    pub(crate) days: i64,
    /// How many times as fast as ours its clock goes.
    pub(crate) pace: u32,
    pub(crate) events: Events,
}

impl Default for Worker {
    fn default() -> Self {
        Self { attempt: "first", cancel: CancellationToken::new(), days: 0, pace: 1, events: Events::ignored() }
    }
}

impl Worker {
    pub(crate) fn named(attempt: &'static str) -> Self {
        Self { attempt, ..Self::default() }
    }

    fn context(&self) -> Context {
        let began = Timestamp::now().checked_add(SignedDuration::from_hours(24 * self.days)).unwrap();
        let (start, pace, events) = (tokio::time::Instant::now(), self.pace, self.events.clone());
        Context {
            now: Arc::new(move || began.checked_add(start.elapsed() * pace).unwrap()),
            events: Events::new(move |event| {
                clean::check("an event", &format!("{event:?}"));
                events.send(event);
            }),
            cancel: self.cancel.clone(),
            attempt: Attempt::parse(self.attempt).unwrap(),
            install_namespace: "kubectl-backup".to_owned(),
        }
    }

    pub(crate) async fn back_up(&self, api: &Api, bucket: &Bucket, scope: Scope) -> anyhow::Result<Done> {
        self.back_up_as(ID, api, bucket, scope).await
    }

    pub(crate) async fn back_up_as(&self, id: &str, api: &Api, bucket: &Bucket, scope: Scope) -> anyhow::Result<Done> {
        self.run(id, Verb::Backup(backup_task(scope)), api, bucket).await
    }

    pub(crate) async fn back_up_task(&self, task: BackupTask, api: &Api, bucket: &Bucket) -> anyhow::Result<Done> {
        self.run(ID, Verb::Backup(task), api, bucket).await
    }

    pub(crate) async fn restore(&self, id: &str, api: &Api, bucket: &Bucket) -> anyhow::Result<Done> {
        self.restore_as(id, restore_task(), api, bucket).await
    }

    pub(crate) async fn restore_as(
        &self,
        id: &str,
        task: RestoreTask,
        api: &Api,
        bucket: &Bucket,
    ) -> anyhow::Result<Done> {
        self.run(id, Verb::Restore(Box::new(task)), api, bucket).await
    }

    pub(crate) async fn run(&self, id: &str, verb: Verb, api: &Api, bucket: &Bucket) -> anyhow::Result<Done> {
        let location = Location::parse_url(&format!("file://{}", bucket.root().display())).unwrap();
        self.run_at(id, verb, location, api, bucket).await
    }

    pub(crate) async fn run_at(
        &self,
        id: &str,
        verb: Verb,
        location: Location,
        api: &Api,
        bucket: &Bucket,
    ) -> anyhow::Result<Done> {
        self.run_on(id, verb, location, api, bucket).await
    }

    /// In any store.
    pub(crate) async fn run_on(
        &self,
        id: &str,
        verb: Verb,
        location: Location,
        api: &Api,
        store: &dyn Store,
    ) -> anyhow::Result<Done> {
        let task = Task { id: BackupId::parse(id).unwrap(), location, verb };
        clean::listen();
        let result = operations::run(&task, &api.cluster(), store, &self.context()).await;
        clean::check_run(&task.verb, &result);
        result
    }
}

/// A backup of this scope, without volumes: that nothing saves what is on them would be a problem in every report.
pub(crate) fn backup_task(scope: Scope) -> BackupTask {
    let namespaces = (scope == Scope::Shop).then(|| vec!["shop".to_owned()]);
    let selection = Selection { namespaces, ..Selection::default() };
    BackupTask { selection, volumes: VolumeData::Skip, ..BackupTask::default() }
}

/// Everything in the backup, what exists left alone.
pub(crate) fn restore_task() -> RestoreTask {
    RestoreTask {
        query: Query { backup: BackupQuery::parse(ID).unwrap(), from_cluster: None },
        objects: Vec::new(),
        namespaces: Vec::new(),
        selection: Selection::default(),
        map_namespace: Vec::new(),
        adapt: AdaptOptions::default(),
        existing: Existing::Skip,
        safety_location: None,
        dry_run: DryRun::None,
        approved: None,
        volumes: restore::Options::default(),
    }
}

/// A folder for a bucket. Memory where there is some: the store asks the disk to keep every file.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// How a run ended, for messages and comparisons.
pub(crate) fn ending(result: &anyhow::Result<Done>) -> String {
    match result {
        Ok(done) => done.outcome.to_string(),
        Err(error) => format!("{:?}: {error:#}", operations::exit_code(error)),
    }
}

/// What a run came to, as the one who asked for it is told.
pub(crate) fn result_of<T: DeserializeOwned>(result: &anyhow::Result<Done>) -> T {
    let done = result.as_ref().unwrap_or_else(|error| panic!("{error:#}"));
    serde_json::from_slice(&done.result.as_ref().unwrap().open().unwrap()).unwrap()
}

pub(crate) fn exit_code(result: &anyhow::Result<Done>) -> ExitCode {
    match result {
        Ok(done) => done.exit_code,
        Err(error) => operations::exit_code(error),
    }
}

/// All files below a folder, hidden ones too, as paths relative to it.
pub(crate) fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                waiting.push(path);
            } else {
                found.insert(path.to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// Checks that there is no backup and no data of one, finished or pending; logs may stay.
pub(crate) fn assert_nothing_left(root: &Path, about: &str) {
    let left: Vec<String> = files(root).into_iter().filter(|file| !file.ends_with("/log.jsonl.zst")).collect();
    assert!(left.is_empty(), "{about}: left behind: {left:?}");
}

/// What an archive must hold, as path and content, if every kind is at the revision that the manifest states.
fn expected(world: &World, manifest: &Manifest, scope: Scope) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (number, def) in KINDS.iter().enumerate() {
        let unpinned = manifest.consistency.unpinned.iter().find(|unpinned| unpinned.kind == def.key());
        let revision = match unpinned {
            Some(unpinned) => unpinned.revision.parse().unwrap_or(u64::MAX),
            None => manifest.consistency.revision.as_ref().unwrap().parse().unwrap(),
        };
        for (place, text, _) in world.at(number, revision) {
            if is_saved(number, place) && (scope == Scope::Cluster || belongs_to_shop(number, place)) {
                all.insert(path_of(number, place), World::whole(number, text));
            }
        }
    }
    all
}

fn path_of(kind: usize, place: &str) -> String {
    let key = KINDS[kind].key();
    let file = |name: &str| {
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            format!("{name}-{}.json", &hex(name.as_bytes())[..8])
        } else {
            format!("{name}.json")
        }
    };
    match place.split_once('/') {
        Some((namespace, name)) => format!("resources/{key}/namespaces/{namespace}/{}", file(name)),
        None => format!("resources/{key}/cluster/{}", file(place)),
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file that a manifest names, without the engine.
fn stored(root: &Path, file: &serde_json::Value) -> Vec<u8> {
    let bytes = std::fs::read(root.join(file["key"].as_str().unwrap())).unwrap();
    assert_eq!(bytes.len() as u64, file["size"], "{file}");
    assert_eq!(hex(&bytes), file["sha256"], "{file}");
    bytes
}

/// The archive's entries as stock tools see them.
fn entries(tar: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let (path, mut text) = (entry.path().unwrap().to_str().unwrap().to_owned(), String::new());
        entry.read_to_string(&mut text).unwrap();
        assert!(found.insert(path.clone(), text).is_none(), "{path} is there twice");
    }
    found
}

/// A backup as it was read back.
pub(crate) struct Backup {
    pub(crate) manifest: Manifest,
    pub(crate) report: Report,
    /// The archive's entries.
    pub(crate) objects: BTreeMap<String, String>,
}

/// Reads the only backup there is, by the engine and without it, and checks that both find the same, that every byte
/// verifies, that what it holds is what the API server had, and that what it lacks is told.
pub(crate) async fn read_back(api: &Api, bucket: &Bucket, scope: Scope, about: &str) -> Backup {
    let backup = read_archive(bucket, about).await;
    let state = api.state();
    let expected = expected(&state.world, &backup.manifest, scope);
    for (path, text) in &backup.objects {
        assert_eq!(Some(text), expected.get(path), "{about}: {path} is not what the API server had");
    }
    let missing: Vec<&String> = expected.keys().filter(|path| !backup.objects.contains_key(*path)).collect();
    let problems: Vec<&str> = backup.report.problems.iter().map(|problem| problem.subject.as_str()).collect();
    if backup.manifest.outcome == Outcome::Complete {
        assert!(missing.is_empty(), "{about}: complete, but without {missing:?}");
        assert!(problems.is_empty(), "{about}: complete, with {problems:?}");
    } else {
        assert!(!problems.is_empty(), "{about}: partial without a problem");
        for path in missing {
            let segments: Vec<&str> = path.split('/').collect();
            let told = |problem: &&str| {
                let (kind, rest) = problem.split_once(' ').unwrap_or((problem, ""));
                let elsewhere = rest.strip_prefix("in namespace ").is_some_and(|namespace| namespace != segments[3]);
                // what a backup of namespaces needs of the cluster is found through what could not be read
                (kind == segments[1] && !elsewhere) || (scope == Scope::Shop && segments[2] == "cluster")
            };
            assert!(problems.iter().any(told), "{about}: {path} is missing, and only {problems:?} are told");
        }
    }
    backup
}

/// Reads the only backup there is, by the engine and without it.
pub(crate) async fn read_archive(bucket: &Bucket, about: &str) -> Backup {
    let root = bucket.root();
    let listed: Vec<String> = files(&root.join("backups")).into_iter().collect();
    assert_eq!(listed, [format!("{ID}.json")], "{about}");
    let text = std::fs::read(root.join("backups").join(&listed[0])).unwrap();
    let raw: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let tar = zstd::decode_all(&*stored(root, &raw["files"]["objects"])).unwrap();
    let objects = entries(&tar);
    let report = stored(root, &raw["files"]["report"]);
    clean::check("the report", &String::from_utf8_lossy(&report));
    let report: Report = serde_json::from_slice(&report).unwrap();
    let log = zstd::decode_all(&*stored(root, &raw["files"]["log"])).unwrap();
    clean::check("the log", &String::from_utf8_lossy(&log));
    stored(root, &raw["files"]["index"]);

    let read = fetch::open(bucket, &BackupId::parse(ID).unwrap()).await.unwrap();
    let mut by_engine = BTreeMap::new();
    let all = (0..read.index.frames().len()).collect();
    fetch::frames(bucket, &read, &all, |frame, tar| {
        for entry in read.index.entries().iter().filter(|entry| entry.frame() == frame) {
            let (kind, name) = (&read.index.frame(entry).kind, read.index.object_name(entry));
            let json = String::from_utf8(read.index.object(entry, &tar).unwrap().to_vec()).unwrap();
            let place = crate::world::place(name.namespace.as_deref(), &name.name);
            by_engine.insert(path_of(number_of(kind), &place), json);
        }
        std::future::ready(Ok(()))
    })
    .await
    .unwrap();
    assert_eq!(by_engine, objects, "{about}: the engine and stock tools read different things");
    assert_eq!(read.manifest.counts.objects, objects.len() as u64, "{about}");
    assert_eq!(read.manifest.counts.problems, report.problems.len() as u64, "{about}");
    Backup { manifest: read.manifest, report, objects }
}

fn number_of(kind: &Kind) -> usize {
    KINDS.iter().position(|def| kind.is(&def.key())).unwrap()
}
