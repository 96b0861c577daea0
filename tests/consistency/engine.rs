//! Makes backups: in this process with a client that tests look through and act from, or with the program as people run
//! it; and reads what was stored with stock tools' libraries only.

use crate::plane::ControlPlane;
use futures::future::BoxFuture;
use http::Request;
use jiff::Timestamp;
use kube::client::Body;
use kubectl_backup::archive::manifest::{Manifest, manifest_key};
use kubectl_backup::cluster::Cluster;
use kubectl_backup::config::Location;
use kubectl_backup::id::{Attempt, BackupId};
use kubectl_backup::operations::backup::{BackupTask, Report};
use kubectl_backup::operations::{self, Context, Task, Verb};
use kubectl_backup::report::{Event, Events};
use kubectl_backup::store;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Acts before a request is sent, which it sees as path and query.
pub(crate) type Before = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the engine asked an API server for.
pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// A client that asks for pages of `page` objects where the engine asks for its own size, and does `before` first.
pub(crate) fn looking_glass(client: kube::Client, page: u32, seen: Seen, before: Before) -> kube::Client {
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let (client, seen, before) = (client.clone(), seen.clone(), before.clone());
        async move {
            let uri = with_limit(&request, page);
            *request.uri_mut() = uri.parse().expect("a URI");
            seen.lock().expect("the list").push(uri.clone());
            before(uri).await;
            client.send(request).await
        }
    });
    kube::Client::new(service, "default")
}

/// The request's path and query, with this limit where it is for whole objects.
fn with_limit(request: &Request<Body>, page: u32) -> String {
    let uri = request.uri().to_string();
    let accept = request.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or_default();
    match uri.split_once("?limit=") {
        Some((path, rest)) if !accept.contains("PartialObjectMetadata") => {
            format!("{path}?limit={page}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => uri,
    }
}

/// A folder with backups in it.
pub(crate) struct Backups {
    folder: TempDir,
}

/// A backup that was read back.
pub(crate) struct Backup {
    pub(crate) manifest: Manifest,
    pub(crate) report: Report,
    /// What its makers told on the way.
    pub(crate) notes: Vec<String>,
    /// The objects, by path in the archive.
    objects: BTreeMap<String, Value>,
}

impl Backups {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn location(&self) -> Location {
        Location::parse_url(&format!("file://{}", self.folder.path().display())).expect("a location")
    }

    /// The folder, as it is named on the command line.
    pub(crate) fn url(&self) -> String {
        self.location().url()
    }

    /// Makes a backup in this process.
    pub(crate) async fn make(&self, id: &str, client: kube::Client, task: BackupTask) -> Backup {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let told = notes.clone();
        let context = Context {
            now: Arc::new(Timestamp::now),
            events: Events::new(move |event| {
                if let Event::Note { message } = event {
                    told.lock().expect("the notes").push(message);
                }
            }),
            cancel: CancellationToken::new(),
            attempt: Attempt::parse("attempt-1").expect("an attempt"),
            install_namespace: "kubectl-backup".to_owned(),
        };
        let id = BackupId::parse(id).expect("an id");
        let task = Task { id: id.clone(), location: self.location(), verb: Verb::Backup(task) };
        let store = store::open(&task.location).await.expect("a store");
        let cluster = Cluster::new(client.clone(), client);
        operations::run(&task, &cluster, store.as_ref(), &context).await.expect("a backup");
        let notes = notes.lock().expect("the notes").clone();
        self.read(&id, notes)
    }

    /// Makes a backup as people do, with `--local`; it ends with this code.
    pub(crate) fn run(&self, plane: &ControlPlane, code: i32, arguments: &[&str]) -> Backup {
        let ran = Command::new(env!("CARGO_BIN_EXE_kubectl-backup"))
            .args(arguments)
            .args(["--local", "-o", "name", "--location", &self.location().url(), "--kubeconfig"])
            .arg(plane.kubeconfig())
            .env("HOME", self.folder.path().join("home"))
            .output()
            .expect("the program can be started");
        let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}:\n{stdout}{stderr}");
        let id = BackupId::parse(stdout.trim()).expect("the id on stdout");
        self.read(&id, Vec::new())
    }

    fn read(&self, id: &BackupId, notes: Vec<String>) -> Backup {
        let file = |key: &str| {
            let path = self.folder.path().join(key);
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let manifest = Manifest::read(id, &file(&manifest_key(id))).expect("a manifest");
        let report = serde_json::from_slice(&file(&manifest.files.report.key)).expect("a report");
        let tar = zstd::decode_all(&*file(&manifest.files.objects.key)).expect("zstd frames");
        let mut objects = BTreeMap::new();
        for entry in tar::Archive::new(&*tar).entries().expect("a tar file") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("an object");
            let object = serde_json::from_str(&text).expect("JSON");
            assert!(objects.insert(path.clone(), object).is_none(), "{path} is there twice");
        }
        assert_eq!(objects.len() as u64, manifest.counts.objects);
        Backup { manifest, report, notes, objects }
    }
}

impl Backup {
    /// The objects of a kind, by name.
    pub(crate) fn of(&self, key: &str) -> BTreeMap<&str, &Value> {
        let folder = Path::new("resources").join(key);
        let of_kind = self.objects.iter().filter(|(path, _)| Path::new(path).starts_with(&folder));
        of_kind.map(|(_, object)| (object["metadata"]["name"].as_str().expect("a name"), object)).collect()
    }

    /// The revision that it states.
    pub(crate) fn revision(&self) -> u64 {
        let revision = self.manifest.consistency.revision.as_deref();
        revision.and_then(|text| text.parse().ok()).expect("a pinned revision")
    }

    /// The kinds that it names as unpinned, with the reasons.
    pub(crate) fn unpinned(&self) -> BTreeMap<&str, &str> {
        self.manifest.consistency.unpinned.iter().map(|one| (one.kind.as_str(), one.reason.as_str())).collect()
    }

    /// The kinds whose lists stated another revision than the backup's.
    pub(crate) fn elsewhere(&self) -> Vec<&str> {
        let revision = self.revision().to_string();
        self.report.kinds.iter().filter(|kind| kind.revision != revision).map(|kind| kind.kind.as_str()).collect()
    }
}

/// Runs the program with `--local`; its exit code, stdout and stderr.
pub(crate) fn run(plane: &ControlPlane, backups: &Backups, arguments: &[&str]) -> (i32, String, String) {
    let ran = Command::new(env!("CARGO_BIN_EXE_kubectl-backup"))
        .args(arguments)
        .args(["--local", "--location", &backups.url(), "--kubeconfig"])
        .arg(plane.kubeconfig())
        .output()
        .expect("the program can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (ran.status.code().unwrap_or(-1), text(&ran.stdout), text(&ran.stderr))
}

/// The verdict of the first object of a kind, and the reason.
pub(crate) fn verdict(result: &Value, kind: &str) -> (String, String) {
    let items = result["items"].as_array().expect("items");
    let item = items.iter().find(|item| item["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {result}"));
    let text = |field: &str| item[field].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("reason"))
}
