//! A store in which things go wrong: the real folder store, and faults in front of its calls by name.

use async_trait::async_trait;
use bytes::Bytes;
use kubectl_backup::config::Location;
use kubectl_backup::store::{self, Error, Listed, PendingUpload, Store, Upload};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Refused for good; nothing happened.
    Refused,
    /// Tried as often as makes sense; nothing happened.
    Unavailable,
    /// Tried as often as makes sense; it happened, and the answer was lost.
    Lost,
    /// It happened, the answer was lost, and the retry found what was there.
    LostExists,
    /// Another worker was faster with its own manifest.
    Theirs,
    /// It takes ten minutes.
    Slow,
    /// The process is killed before it happens.
    Kill,
    /// The process is killed after it happened.
    KillAfter,
}

type Hook = Box<dyn Fn(&str, usize) + Send>;

#[derive(Default)]
struct State {
    seen: Vec<(String, usize)>,
    counts: BTreeMap<String, usize>,
    rules: Vec<(String, usize, Fault)>,
    hook: Option<Hook>,
}

#[derive(Clone)]
pub(crate) struct Bucket {
    inner: Arc<dyn Store>,
    root: PathBuf,
    state: Arc<Mutex<State>>,
    killed: CancellationToken,
}

impl Bucket {
    pub(crate) async fn new(root: &Path) -> Self {
        let location = Location::parse_url(&format!("file://{}", root.display())).unwrap();
        let inner = store::open(&location).await.unwrap();
        Self { inner, root: root.to_owned(), state: Arc::default(), killed: CancellationToken::new() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Puts a fault in front of the call of that number among those of its name.
    pub(crate) fn fault(&self, name: &str, number: usize, fault: Fault) -> &Self {
        self.state.lock().unwrap().rules.push((name.to_owned(), number, fault));
        self
    }

    /// Calls this at each call with its name and number, before anything happens.
    pub(crate) fn at_each(&self, hook: impl Fn(&str, usize) + Send + 'static) {
        self.state.lock().unwrap().hook = Some(Box::new(hook));
    }

    /// Every call so far: its name, and how many of that name came before.
    pub(crate) fn seen(&self) -> Vec<(String, usize)> {
        self.state.lock().unwrap().seen.clone()
    }

    /// Answers when the process would have been killed.
    pub(crate) async fn killed(&self) {
        self.killed.cancelled().await;
    }

    async fn call<T>(&self, deed: &str, key: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let fault = self.note(deed, key);
        let place = key.to_owned();
        let unavailable = || Error::Unavailable {
            action: "Injected",
            place: place.clone(),
            attempts: 8,
            why: "503 SlowDown".to_owned(),
        };
        match fault {
            None => work.await,
            Some(Fault::Refused) => Err(Error::Refused { action: "Injected", place, why: "no".to_owned() }),
            Some(Fault::Unavailable) => Err(unavailable()),
            Some(Fault::Lost) => work.await.and_then(|_| Err(unavailable())),
            Some(Fault::LostExists) => work.await.and_then(|_| Err(Error::Exists { place: place.clone() })),
            Some(Fault::Theirs) => {
                self.write_theirs(key).await;
                work.await
            }
            Some(Fault::Slow) => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                work.await
            }
            Some(Fault::Kill) => self.die().await,
            Some(Fault::KillAfter) => {
                let _ = work.await;
                self.die().await
            }
        }
    }

    fn note(&self, deed: &str, key: &str) -> Option<Fault> {
        let name = format!("{deed} {key}");
        let mut state = self.state.lock().unwrap();
        let count = state.counts.entry(name.clone()).or_default();
        let number = *count;
        *count += 1;
        state.seen.push((name.clone(), number));
        if let Some(hook) = &state.hook {
            hook(&name, number);
        }
        state.rules.iter().find(|(of, at, _)| *of == name && *at == number).map(|(.., fault)| *fault)
    }

    async fn die<T>(&self) -> T {
        self.killed.cancel();
        std::future::pending().await
    }

    /// The manifest of an attempt `theirs`, with the data of the one that is about to write its own.
    async fn write_theirs(&self, key: &str) {
        let id = key.strip_prefix("backups/").unwrap().strip_suffix(".json").unwrap();
        let file = |name: &str| {
            let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            serde_json::json!({"key": format!("data/{id}/theirs/{name}"), "size": 0, "sha256": empty})
        };
        let manifest = serde_json::json!({
            "format": "kubectl-backup/1", "id": id, "attempt": "theirs", "cluster": {"uid": "u", "version": "v1.36.3"},
            "scope": "cluster", "startedAt": "2026-11-20T10:00:00Z", "endedAt": "2026-11-20T10:00:02Z",
            "outcome": "Complete", "consistency": {"skewSeconds": 0.0},
            "counts": {"objects": 0, "bytes": 0, "problems": 0, "omissions": 0},
            "files": {"objects": file("objects.tar.zst"), "index": file("index.jsonl.zst"), "report": file("report.json"), "log": file("log.jsonl.zst")},
            "tool": "another"
        });
        self.inner.create(key, Bytes::from(manifest.to_string())).await.unwrap();
    }
}

#[async_trait]
impl Store for Bucket {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.call("create", key, self.inner.create(key, body)).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.call("get", key, self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        self.call("range", key, self.inner.get_range(key, range)).await
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        self.call("size", key, self.inner.size(key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        self.call("list", prefix, self.inner.list(prefix)).await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.call("delete", key, self.inner.delete(key)).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        let begun = async {
            let inner = self.inner.upload(key).await?;
            Ok(ShakyUpload { key: key.to_owned(), inner: Some(inner), bucket: self.clone(), begun: false })
        };
        let mut upload = self.call("upload", key, begun).await?;
        upload.begun = true;
        Ok(Box::new(upload))
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, Error> {
        self.call("pending", prefix, self.inner.pending_uploads(prefix)).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<(), Error> {
        self.call("abort pending", &upload.key, self.inner.abort_upload(upload)).await
    }
}

/// An upload as the trait promises it: after an error of `write` or `finish` nothing is pending.
struct ShakyUpload {
    key: String,
    inner: Option<Box<dyn Upload>>,
    bucket: Bucket,
    /// Whether the caller knows of it.
    begun: bool,
}

impl ShakyUpload {
    async fn give_up<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err()
            && let Some(inner) = self.inner.take()
        {
            inner.abort().await?;
        }
        result
    }
}

#[async_trait]
impl Upload for ShakyUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let bucket = self.bucket.clone();
        let key = self.key.clone();
        let result = bucket.call("write", &key, self.inner.as_mut().unwrap().write(bytes)).await;
        self.give_up(result).await
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, Error> {
        let (bucket, key) = (self.bucket.clone(), self.key.clone());
        let finish = async { self.inner.take().unwrap().finish().await };
        let result = bucket.call("finish", &key, finish).await;
        self.give_up(result).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        let Some(inner) = self.inner.take() else { return Ok(()) };
        let bucket = self.bucket.clone();
        bucket.call("abort", &self.key.clone(), inner.abort()).await
    }
}

impl Drop for ShakyUpload {
    fn drop(&mut self) {
        // a killed process aborts nothing, and nobody can abort what it was never told of
        if self.bucket.killed.is_cancelled() || !self.begun {
            std::mem::forget(self.inner.take());
        }
    }
}
