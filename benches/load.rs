//! Fills the cluster.

use crate::client;
use crate::objects::{self, PER_NAMESPACE};
use std::time::{Duration, Instant};

/// Objects made at once.
const AT_ONCE: usize = 32;
/// Secrets of 1 MiB made at once.
const LARGE_AT_ONCE: usize = 4;
/// Secrets of 1 MiB in a namespace.
const LARGE_PER_NAMESPACE: usize = 100;

/// ConfigMaps in each of many namespaces, beside what the cluster itself puts there.
const SPREAD_PER_NAMESPACE: usize = 4;

/// Mixed objects, up to this number.
pub(crate) async fn mixed(count: usize) -> anyhow::Result<()> {
    let client = client::fresh().await?;
    namespaces(&client, count.div_ceil(PER_NAMESPACE)).await?;
    client::post_all(&client, objects::definitions(), AT_ONCE).await?;
    let started = Instant::now();
    let made = client::post_all(&client, (0..count).map(objects::mixed), AT_ONCE).await?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{made} mixed objects made in {seconds:.1} s: {:.0}/s", made as f64 / seconds);
    settled().await
}

/// Secrets of 1 MiB.
pub(crate) async fn secrets(count: usize) -> anyhow::Result<()> {
    let client = client::fresh().await?;
    namespaces(&client, count.div_ceil(LARGE_PER_NAMESPACE)).await?;
    let started = Instant::now();
    let made = client::post_all(&client, (0..count).map(objects::large_secret), LARGE_AT_ONCE).await?;
    println!("{made} Secrets of 1 MiB made in {:.1} s", started.elapsed().as_secs_f64());
    settled().await
}

/// Secrets of 4 KiB: one kind that is large as a whole.
pub(crate) async fn one_kind(count: usize) -> anyhow::Result<()> {
    let client = client::fresh().await?;
    namespaces(&client, count.div_ceil(PER_NAMESPACE)).await?;
    let made = client::post_all(&client, (0..count).map(objects::small_secret), AT_ONCE).await?;
    println!("{made} Secrets of 4 KiB made");
    settled().await
}

/// Many namespaces with a few objects each.
pub(crate) async fn many_namespaces(count: usize) -> anyhow::Result<()> {
    let client = client::fresh().await?;
    namespaces(&client, count).await?;
    let posts = (0..count * SPREAD_PER_NAMESPACE).map(|number| objects::spread(number, SPREAD_PER_NAMESPACE));
    let made = client::post_all(&client, posts, AT_ONCE).await?;
    println!("{made} objects made in {count} namespaces");
    settled().await
}

async fn namespaces(client: &kube::Client, count: usize) -> anyhow::Result<()> {
    let posts = (0..count).map(|number| objects::namespace_post(&objects::namespace(number)));
    client::post_all(client, posts, AT_ONCE).await?;
    Ok(())
}

/// Waits until the controllers have followed: no new ReplicaSet for two seconds, two minutes at most.
pub(crate) async fn settled() -> anyhow::Result<()> {
    let cluster = client::cluster().await?;
    let discovery = cluster.discover().await?;
    let Some(sets) = discovery.get("replicasets.apps") else { return Ok(()) };
    let (mut count, mut same) = (0, 0);
    for _ in 0..120 {
        let now = cluster.list_names(&sets.kind, None).await?.len();
        same = if now == count { same + 1 } else { 0 };
        count = now;
        if same == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
