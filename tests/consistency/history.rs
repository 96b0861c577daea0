//! What really happened: a watch of each kind from the start, from which the state at any revision can be told.

use crate::api::{Api, Kind, eventually};
use futures::{AsyncBufReadExt, StreamExt};
use http::Request;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// One change: the revision, and the object's name; `gone` where it was deleted.
struct Change {
    revision: u64,
    name: String,
    gone: bool,
}

/// Every change of one kind.
pub(crate) struct History {
    kind: Kind,
    changes: Arc<Mutex<Vec<Change>>>,
    watch: JoinHandle<()>,
}

fn revision_of(metadata: &Value) -> u64 {
    metadata["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a resourceVersion")
}

impl History {
    /// Begins to watch a kind, of which there is nothing yet.
    pub(crate) async fn begin(api: &Api, kind: Kind) -> Self {
        let list = api.get(&kind.path()).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(0), "history begins with nothing");
        let from = revision_of(&list["metadata"]);
        let uri = format!("{}?watch=1&resourceVersion={from}", kind.path());
        let request = Request::get(uri).body(Vec::new()).expect("a request");
        let stream = api.0.request_stream(request).await.expect("a watch");
        let changes = Arc::new(Mutex::new(Vec::new()));
        let noted = changes.clone();
        let watch = tokio::spawn(async move {
            let mut lines = Box::pin(stream.lines());
            while let Some(Ok(line)) = lines.next().await {
                let event: Value = serde_json::from_str(&line).expect("an event");
                let metadata = &event["object"]["metadata"];
                noted.lock().expect("the changes").push(Change {
                    revision: revision_of(metadata),
                    name: metadata["name"].as_str().expect("a name").to_owned(),
                    gone: event["type"] == "DELETED",
                });
            }
        });
        Self { kind, changes, watch }
    }

    /// Waits until the change with this revision was seen, and so all before it.
    pub(crate) async fn reaches(&self, revision: u64) {
        eventually(&format!("the watch of {:?} to reach revision {revision}", self.kind), || async {
            let changes = self.changes.lock().expect("the changes");
            changes.last().is_some_and(|change| change.revision >= revision).then_some(())
        })
        .await;
        assert!(!self.watch.is_finished(), "the watch of {:?} broke off", self.kind);
    }

    /// How many changes there were up to now.
    pub(crate) fn len(&self) -> usize {
        self.changes.lock().expect("the changes").len()
    }

    /// Names and resourceVersions of the objects that there were at a revision.
    pub(crate) fn at(&self, revision: u64) -> BTreeMap<String, u64> {
        let mut state = BTreeMap::new();
        for change in self.changes.lock().expect("the changes").iter().take_while(|change| change.revision <= revision)
        {
            if change.gone {
                state.remove(&change.name);
            } else {
                state.insert(change.name.clone(), change.revision);
            }
        }
        state
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
