//! The API server without the engine: a client made as the worker's is in its pod, plain lists and plain POSTs.

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kubectl_backup::cluster::{Cluster, connect};
use kubectl_backup::resource::Kind;
use kubectl_backup::rules::selection::never_backed_up;
use memchr::memmem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::time::Duration;

/// A client of the kubeconfig's cluster with no connection yet, and like the worker's in its pod: nothing compressed,
/// nothing tried again behind our back.
pub(crate) async fn fresh() -> anyhow::Result<kube::Client> {
    let mut config = config().await?;
    config.disable_compression = true;
    config.default_retry = false;
    config.read_timeout = Some(Duration::from_secs(120));
    Ok(kube::Client::try_from(config)?)
}

async fn config() -> anyhow::Result<kube::Config> {
    Ok(kube::Config::from_kubeconfig(&kube::config::KubeConfigOptions::default()).await?)
}

/// A fresh cluster, with the client that the engine has in its pod.
pub(crate) async fn cluster() -> anyhow::Result<Cluster> {
    Ok(connect::within(config().await?)?)
}

/// The kinds that a backup of the cluster lists.
pub(crate) async fn kinds() -> anyhow::Result<Vec<Kind>> {
    let served = cluster().await?.discover().await?.kinds;
    Ok(served.into_iter().filter(|served| never_backed_up(served).is_none()).map(|served| served.kind).collect())
}

/// What lists brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Read {
    pub(crate) bytes: u64,
    pub(crate) pages: u64,
}

/// What of its objects a list brings.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Objects,
    Metadata,
}

impl What {
    fn accept(self) -> &'static str {
        match self {
            Self::Objects => "application/json",
            Self::Metadata => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
        }
    }
}

/// Lists all objects of these kinds, page by page, several kinds at once, and does nothing with them.
pub(crate) async fn list_all(
    client: &kube::Client,
    what: What,
    kinds: &[Kind],
    limit: u32,
    at_once: usize,
) -> anyhow::Result<Read> {
    let lists = stream::iter(kinds).map(|kind| list(client, what, kind, limit, |_| ()));
    lists
        .buffer_unordered(at_once)
        .try_fold(Read::default(), |sum, read| async move {
            Ok(Read { bytes: sum.bytes + read.bytes, pages: sum.pages + read.pages })
        })
        .await
}

/// One list; `each` sees the body's chunks.
pub(crate) async fn list(
    client: &kube::Client,
    what: What,
    kind: &Kind,
    limit: u32,
    mut each: impl FnMut(Option<Bytes>),
) -> anyhow::Result<Read> {
    let mut read = Read::default();
    let mut token = String::new();
    loop {
        let from = if token.is_empty() { String::new() } else { format!("&continue={}", encoded(&token)) };
        let request = Request::get(format!("{}?limit={limit}{from}", kind.list_path(None)));
        let request = request.header(header::ACCEPT, what.accept()).body(Body::empty())?;
        let response = client.send(request).await.with_context(|| format!("listing {kind}"))?;
        if !response.status().is_success() {
            bail!("listing {kind}: {}", response.status());
        }
        let mut ends = Ends::default();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.context("reading a list")?.into_data() else { continue };
            read.bytes += chunk.len() as u64;
            ends.push(&chunk);
            each(Some(chunk));
        }
        each(None);
        read.pages += 1;
        token = ends.token()?;
        if token.is_empty() {
            return Ok(read);
        }
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The first and last bytes of a list: its metadata is in one or the other.
#[derive(Default)]
struct Ends {
    head: BytesMut,
    tail: BytesMut,
}

const END: usize = 4096;

impl Ends {
    fn push(&mut self, chunk: &[u8]) {
        let room = END - self.head.len();
        self.head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= END {
            self.tail.clear();
        }
        self.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(END)..]);
        if self.tail.len() > END {
            let _ = self.tail.split_to(self.tail.len() - END);
        }
    }

    /// Where the next page begins; empty where this was the last.
    fn token(&self) -> anyhow::Result<String> {
        let items = memmem::find(&self.head, b"\"items\":").unwrap_or(self.head.len());
        let metadata = match memmem::find(&self.head[..items], b"\"metadata\":") {
            Some(at) => &self.head[at..items],
            None => &self.tail[memmem::rfind(&self.tail, b"\"metadata\":").context("a list without metadata")?..],
        };
        let Some(at) = memmem::find(metadata, b"\"continue\":\"") else { return Ok(String::new()) };
        let token = &metadata[at + 12..];
        let end = memchr::memchr(b'"', token).context("a token without an end")?;
        Ok(std::str::from_utf8(&token[..end])?.to_owned())
    }
}

/// An object to be made.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) body: Bytes,
}

/// How often a POST is tried that fails because something isn't ready yet.
const TRIES: u32 = 50;

/// Makes objects, this many at a time; what exists already is fine. Returns how many were made.
pub(crate) async fn post_all(
    client: &kube::Client,
    posts: impl Iterator<Item = Post>,
    at_once: usize,
) -> anyhow::Result<u64> {
    let posted = stream::iter(posts).map(|one| post(client, one));
    posted.buffer_unordered(at_once).try_fold(0, |sum, made| async move { Ok(sum + u64::from(made)) }).await
}

async fn post(client: &kube::Client, post: Post) -> anyhow::Result<bool> {
    let mut tried = 0;
    loop {
        tried += 1;
        let request = Request::builder().method(Method::POST).uri(&post.path);
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(post.body.clone()))?;
        let response = client.send(request).await.with_context(|| format!("POST {}", post.path))?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match status.as_u16() {
            200..=299 => return Ok(true),
            409 => return Ok(false),
            403 | 404 | 429 | 500..=599 if tried < TRIES => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => bail!("POST {}: {status}: {}", post.path, String::from_utf8_lossy(&body[..body.len().min(300)])),
        }
    }
}
