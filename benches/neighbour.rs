//! What other clients' requests wait while a backup of the cluster runs, against what they wait before and after it.

use crate::client;
use crate::figures::{Book, Figure};
use crate::worker;
use anyhow::Context as _;
use futures::FutureExt as _;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::backup::BackupTask;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the other client asks.
const EVERY: Duration = Duration::from_millis(10);
/// How long it asks while nothing else runs.
const ALONE: Duration = Duration::from_secs(5);
/// Where it reads and writes.
const PATH: &str = "/api/v1/namespaces/default/configmaps";

/// What each request waited, in milliseconds.
#[derive(Default)]
struct Waits {
    reads: Vec<f64>,
    writes: Vec<f64>,
}

/// Measures. There is no target: an API server on two cores that are shared with everything else makes everybody wait.
pub(crate) async fn run(location: &str, figures: &Book) -> anyhow::Result<()> {
    let (location, store) = worker::open(location).await?;
    let alone = waits(tokio::time::sleep(ALONE).map(Ok)).await?.0;
    let cluster = client::cluster().await?;
    let verb = Verb::Backup(BackupTask::default());
    let (during, run) = waits(worker::carry_out(verb, location, &cluster, &*store)).await?;
    let manifest = run.manifest()?;
    worker::remove(&*store, &manifest.id).await?;
    for (what, alone, during) in [("read", &alone.reads, &during.reads), ("write", &alone.writes, &during.writes)] {
        figures.add(&Figure {
            what: format!(
                "another client's {what} during a backup of {} objects, 99th percentile",
                manifest.counts.objects
            ),
            objects: manifest.counts.objects,
            measured: percentile(during, 0.99),
            unit: " ms".to_owned(),
            target: None,
            detail: format!("{}; alone {}; the backup took {:.1} s", told(during), told(alone), run.seconds),
        })?;
    }
    Ok(())
}

/// Reads and writes in turn while some work goes on; in a thread of its own, since the work keeps this one busy.
async fn waits<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(Waits, T)> {
    let stop = CancellationToken::new();
    let until = stop.clone();
    let asking = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask(&until))
    });
    let done = work.await;
    stop.cancel();
    let waits = asking.join().map_err(|_| anyhow::anyhow!("the other client panicked"))??;
    Ok((waits, done?))
}

async fn ask(until: &CancellationToken) -> anyhow::Result<Waits> {
    let client = client::fresh().await?;
    request(&client, "warm", Method::POST).await?;
    let mut waits = Waits::default();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !until.is_cancelled() {
        ticks.tick().await;
        waits.reads.push(request(&client, "read", Method::GET).await?);
        waits.writes.push(request(&client, "write", Method::POST).await?);
    }
    Ok(waits)
}

/// One request; a write is a dry run, which goes through all of the API server but etcd's disk.
async fn request(client: &kube::Client, name: &str, method: Method) -> anyhow::Result<f64> {
    let (path, body) = if method == Method::GET {
        (format!("{PATH}/kube-root-ca.crt"), Body::empty())
    } else {
        let config = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        (format!("{PATH}?dryRun=All"), Body::from(config.to_string().into_bytes()))
    };
    let request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json").body(body)?;
    let started = Instant::now();
    let response = client.send(request).await.context("another client's request")?;
    anyhow::ensure!(response.status().is_success(), "another client's request: {}", response.status());
    response.into_body().collect().await?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}

fn told(waits: &[f64]) -> String {
    format!(
        "median {:.1}, 99 % {:.1}, worst {:.1} ms of {}",
        percentile(waits, 0.5),
        percentile(waits, 0.99),
        percentile(waits, 1.0),
        waits.len()
    )
}

fn percentile(waits: &[f64], share: f64) -> f64 {
    let mut sorted = waits.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}
