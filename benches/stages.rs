//! The CPU time of each stage of a backup, one after the other on one core, over bytes that are in memory already. What
//! runs at the same time on other cores, and what waits, doesn't blur it; a thread's own CPU time is counted.

use crate::backup::mb;
use crate::client::What;
use crate::{client, process};
use bytes::Bytes;
use kubectl_backup::archive::encoders::Encoders;
use kubectl_backup::archive::frame::{FilledFrame, FrameBuilder, Object};
use kubectl_backup::archive::index::IndexWriter;
use kubectl_backup::cluster::cut::{CutError, Cutter, Part};
use kubectl_backup::resource::Kind;
use kubectl_backup::rules::Labels;
use serde::Deserialize;
use std::borrow::Cow;

/// What the engine reads of an item.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    metadata: Meta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    labels: Labels<'a>,
}

/// A page as it came.
struct Page {
    kind: Kind,
    chunks: Vec<Bytes>,
}

/// Measures.
pub(crate) async fn run() -> anyhow::Result<()> {
    let client = client::fresh().await?;
    let mut pages = Vec::new();
    for kind in client::kinds().await? {
        let mut chunks = Vec::new();
        client::list(&client, What::Objects, &kind, 2000, |chunk| match chunk {
            Some(chunk) => chunks.push(chunk),
            None => pages.push(Page { kind: kind.clone(), chunks: std::mem::take(&mut chunks) }),
        })
        .await?;
    }
    let bytes: usize = pages.iter().flat_map(|page| &page.chunks).map(Bytes::len).sum();
    let chunks: usize = pages.iter().map(|page| page.chunks.len()).sum();
    println!(
        "{:.1} MB in {} pages and {chunks} chunks; the best of three, on one core:",
        mb(bytes as u64),
        pages.len()
    );

    let told = |what: &str, seconds: f64| println!("  {what:<34} {:>5.0} ms", seconds * 1000.0);
    told("cut", timed(|| each_item(&pages, |_, _| Ok(())))?);
    let read = |_: &Kind, item: &[u8]| {
        let text = std::str::from_utf8(item).map_err(|_| CutError::Syntax("UTF-8", 0))?;
        let item: Item<'_> = serde_json::from_str(text).map_err(|_| CutError::Syntax("JSON", 0))?;
        std::hint::black_box((&item.metadata.labels, &item.api_version));
        Ok(())
    };
    told("cut, metadata", timed(|| each_item(&pages, read))?);
    told("cut, metadata, frame", timed(|| frames(&pages).map(drop))?);
    let mut compressed = Vec::new();
    let seconds = timed(|| {
        let filled = frames(&pages)?;
        let started = process::thread_cpu_seconds()?;
        compressed = filled.into_iter().map(FilledFrame::compress).collect::<Result<Vec<_>, _>>()?;
        told("   of one round: zstd, SHA-256", process::thread_cpu_seconds()? - started);
        Ok(())
    })?;
    told("cut, metadata, frame, zstd, SHA-256", seconds);
    let seconds = timed(|| {
        let mut index = IndexWriter::new()?;
        for frame in &compressed {
            index.frame(frame)?;
        }
        Ok(())
    })?;
    told("index", seconds);
    Ok(())
}

fn timed(mut work: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = process::thread_cpu_seconds()?;
        work()?;
        best = best.min(process::thread_cpu_seconds()? - started);
    }
    Ok(best)
}

fn each_item(pages: &[Page], mut each: impl FnMut(&Kind, &[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
    for page in pages {
        let mut cutter = Cutter::default();
        for chunk in &page.chunks {
            cutter.push(chunk, |part| match part {
                Part::Item(item) => each(&page.kind, item),
                Part::Field { .. } => Ok(()),
            })?;
        }
        cutter.finish()?;
    }
    Ok(())
}

fn frames(pages: &[Page]) -> anyhow::Result<Vec<FilledFrame>> {
    let (mut frames, encoders) = (Vec::new(), Encoders::default());
    let mut open: Option<(Kind, FrameBuilder)> = None;
    each_item(pages, |kind, json| {
        let item: Item<'_> = serde_json::from_str(std::str::from_utf8(json)?)?;
        if open.as_ref().is_none_or(|(of, _)| of != kind)
            && let Some((_, mut last)) = open.replace((kind.clone(), FrameBuilder::new(kind, &encoders)))
        {
            frames.extend(last.take()?);
        }
        let Some((_, frame)) = &mut open else { return Ok(()) };
        frame.push(&Object {
            namespace: kind.namespaced.then_some(&*item.metadata.namespace),
            name: &item.metadata.name,
            uid: &item.metadata.uid,
            resource_version: &item.metadata.resource_version,
            json,
            lacks_type: item.api_version.is_empty(),
        })?;
        if frame.is_full() {
            frames.extend(frame.take()?);
        }
        Ok(())
    })?;
    if let Some((_, mut last)) = open {
        frames.extend(last.take()?);
    }
    Ok(frames)
}
