//! The other source of a save: objects that are known by name, each by a GET. A restore saves so what it is about to change.

use super::{Files, KindReport};
use crate::archive::encoders::Encoders;
use crate::archive::frame::{FrameBuilder, Object};
use crate::archive::manifest::File;
use crate::cluster::Cluster;
use crate::id::{Attempt, BackupId};
use crate::pipeline::{Error, until_cancelled, until_settled};
use crate::report::Counts;
use crate::resource::{Kind, ObjectName};
use crate::store::Store;
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;

/// Objects read at once: at their largest, 1.5 MiB, 12 MiB.
const AT_ONCE: usize = 8;

/// Objects by kind.
pub type Names = BTreeMap<Kind, Vec<ObjectName>>;

/// What was saved.
#[derive(Debug)]
pub struct SavedNames {
    /// `objects.tar.zst`.
    pub objects: File,
    /// `index.jsonl.zst`.
    pub index: File,
    /// Every kind that holds objects.
    pub kinds: Vec<KindReport>,
    /// The sums.
    pub counts: Counts,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

/// Saves these objects as they are now; one that is gone is passed over. On any error nothing remains.
///
/// # Errors
/// When any of them can't be read, or the bucket fails.
pub async fn objects(
    cluster: &Cluster,
    store: &dyn Store,
    id: &BackupId,
    attempt: &Attempt,
    names: &Names,
    cancel: &CancellationToken,
) -> Result<SavedNames, Error> {
    let mut files = Files::begin(store, id, attempt).await?;
    let (kinds, counts) = match until_cancelled(cancel, fill(cluster, names, &mut files)).await {
        Ok(filled) => filled,
        Err(error) => {
            files.abort().await;
            return Err(error);
        }
    };
    let (objects, index) = until_settled(cancel, files.finish()).await?;
    let counts = Counts { bytes_stored: objects.size + index.size, ..counts };
    Ok(SavedNames { objects, index, kinds, counts })
}

async fn fill(cluster: &Cluster, names: &Names, files: &mut Files) -> Result<(Vec<KindReport>, Counts), Error> {
    let (mut kinds, mut counts, encoders) = (Vec::new(), Counts::default(), Encoders::default());
    for (kind, names) in names {
        let (mut frame, mut objects, mut bytes) = (FrameBuilder::new(kind, &encoders), 0, 0);
        let mut found = stream::iter(names.iter().cloned())
            .map(|name| async move { (cluster.get(kind, &name).await, name) })
            .buffered(AT_ONCE);
        while let Some((json, name)) = found.next().await {
            let Some(json) = json? else { continue };
            push(&mut frame, kind, &name, &json)?;
            objects += 1;
            bytes += json.len() as u64;
            if frame.is_full() {
                files.frame(&mut frame).await?;
            }
        }
        files.frame(&mut frame).await?;
        if objects > 0 {
            let (key, api_version) = (kind.key(), kind.api_version());
            kinds.push(KindReport { kind: key, api_version, objects, bytes, revision: String::new() });
        }
        counts.objects += objects;
        counts.bytes += bytes;
    }
    Ok((kinds, counts))
}

fn push(frame: &mut FrameBuilder, kind: &Kind, name: &ObjectName, json: &Bytes) -> Result<(), Error> {
    // what is no object must not stand in a backup as one; its text is never told, it may be a Secret's
    let head: Head<'_> = serde_json::from_slice(json).map_err(|error| crate::cluster::Error::Answer {
        what: format!("reading `{kind}` `{name}`"),
        message: format!("it is not an object, at line {} column {}", error.line(), error.column()),
    })?;
    let object = Object {
        namespace: name.namespace.as_deref(),
        name: &name.name,
        uid: &head.metadata.uid,
        resource_version: &head.metadata.resource_version,
        json,
        lacks_type: false,
    };
    Ok(frame.push(&object)?)
}

impl Files {
    /// Compresses what is in a frame and hands it to the store.
    async fn frame(&mut self, frame: &mut FrameBuilder) -> Result<(), Error> {
        let Some(filled) = frame.take()? else { return Ok(()) };
        let frame = tokio::task::spawn_blocking(move || filled.compress()).await;
        let frame = frame.map_err(|error| Error::Thread(error.to_string()))??;
        let lines = self.writer.frame(&frame)?;
        self.objects.write(frame.bytes).await?;
        self.index.write(lines).await
    }
}
