//! Reading a backup: its index, and frames by ranged GETs, every byte compared with its digest before it is used.

use super::{Error, catalog};
use crate::archive;
use crate::archive::frame::FrameEntry;
use crate::archive::index::Index;
use crate::archive::manifest::Manifest;
use crate::id::BackupId;
use crate::store::{self, Store};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of an index that are read at most; 100,000 objects take 4 MiB.
const INDEX_LIMIT: u64 = 512 * 1024 * 1024;
/// Bytes fetched at once, unless a single frame is larger, where they are used as quickly as they come. While they are gone
/// through, the next are on their way: twice as many are held.
const RANGE: u64 = 4 * 1024 * 1024;
/// The same where more is done with each object, above all a request made.
const NARROW_RANGE: u64 = 1024 * 1024;
/// Bytes between two frames that are fetched along rather than asked for separately.
const GAP: u64 = 256 * 1024;
/// Frames opened at once, each in a thread of its own, while one is being read.
const OPENED: usize = 2;

/// A backup whose index has been read.
#[derive(Debug)]
pub struct Backup {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its index, for other threads too.
    pub index: Arc<Index>,
}

/// Reads manifest and index.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Archive`] where anything is damaged.
pub async fn open(store: &dyn Store, id: &BackupId) -> Result<Backup, Error> {
    with_index(store, catalog::manifest(store, id).await?).await
}

/// Reads the index of a manifest.
///
/// # Errors
/// [`Error::Archive`] where it is damaged or missing.
pub async fn with_index(store: &dyn Store, manifest: Manifest) -> Result<Backup, Error> {
    let file = &manifest.files.index;
    let bytes = intact(store.get(&file.key, INDEX_LIMIT.min(file.size)).await, "the index")?;
    let index = Index::read(&bytes, file.sha256, manifest.counts.objects)?;
    Ok(Backup { manifest, index: Arc::new(index) })
}

/// Data that a manifest names and the bucket hasn't, or not whole, is damage, not absence.
fn intact(result: Result<Bytes, store::Error>, what: &str) -> Result<Bytes, Error> {
    result.map_err(|error| match error {
        store::Error::Integrity { place, why } => archive::Error::damaged(format!("`{place}`"), why).into(),
        store::Error::NotFound { .. } => archive::Error::damaged(what, "it is not there").into(),
        other => other.into(),
    })
}

/// Fetches frames, verifies and opens them, and gives each to a function, in order and one at a time.
///
/// # Errors
/// [`Error::Archive`] at the first frame that is damaged; and whatever the function returns.
pub async fn frames<F>(
    store: &dyn Store,
    backup: &Backup,
    wanted: &BTreeSet<usize>,
    each: impl FnMut(usize, Vec<u8>) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    fetched(store, backup, wanted, NARROW_RANGE, |_, tar| Ok(tar), each).await
}

/// The same; before a frame is given on it is looked through in the thread that opened it, as many at once as are opened.
///
/// # Errors
/// As [`frames`], and whatever the look finds.
pub async fn looked_through<T, F>(
    store: &dyn Store,
    backup: &Backup,
    wanted: &BTreeSet<usize>,
    look: impl Fn(usize, Vec<u8>) -> Result<T, Error> + Send + Sync + 'static,
    each: impl FnMut(usize, T) -> F,
) -> Result<(), Error>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Error>>,
{
    fetched(store, backup, wanted, RANGE, look, each).await
}

async fn fetched<T, F>(
    store: &dyn Store,
    backup: &Backup,
    wanted: &BTreeSet<usize>,
    range: u64,
    look: impl Fn(usize, Vec<u8>) -> Result<T, Error> + Send + Sync + 'static,
    mut each: impl FnMut(usize, T) -> F,
) -> Result<(), Error>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Error>>,
{
    let (frames, key) = (backup.index.frames(), &backup.manifest.files.objects.key);
    let (sender, receiver) = mpsc::channel(1);
    let fetch = async {
        for numbers in ranges(frames, wanted, range) {
            let start = frames[numbers[0]].offset;
            let end = numbers.last().map_or(start, |last| frames[*last].offset + frames[*last].size);
            let bytes = intact(store.get_range(key, start..end).await, "the file of objects")?;
            for number in numbers {
                let bytes = part(&frames[number], start, &bytes);
                sender.send((number, bytes)).await.map_err(|_| Error::Thread("nobody goes on".to_owned()))?;
            }
        }
        drop(sender);
        Ok::<_, Error>(())
    };
    let look = Arc::new(look);
    let open = |(number, bytes): (usize, Bytes)| {
        let (entry, look) = (frames[number].clone(), look.clone());
        let opened = tokio::task::spawn_blocking(move || look(number, entry.open(&bytes)?));
        async move { Ok::<_, Error>((number, opened.await.map_err(|error| Error::Thread(error.to_string()))??)) }
    };
    let work = async {
        let received = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
        let mut opened = pin!(received.map(open).buffered(OPENED));
        while let Some((number, found)) = opened.try_next().await? {
            each(number, found).await?;
        }
        Ok(())
    };
    tokio::try_join!(fetch, work)?;
    Ok(())
}

/// The bytes of a frame among those that were fetched from `start` on; none where they don't hold it.
fn part(frame: &FrameEntry, start: u64, bytes: &Bytes) -> Bytes {
    let from = usize::try_from(frame.offset - start).unwrap_or(usize::MAX);
    let to = from.saturating_add(usize::try_from(frame.size).unwrap_or(usize::MAX));
    if to <= bytes.len() { bytes.slice(from..to) } else { Bytes::new() }
}

/// Which frames to fetch with one GET each: neighbours together, up to so many bytes.
fn ranges(frames: &[FrameEntry], wanted: &BTreeSet<usize>, limit: u64) -> Vec<Vec<usize>> {
    let mut ranges: Vec<Vec<usize>> = Vec::new();
    for &number in wanted.iter().filter(|number| **number < frames.len()) {
        let end = frames[number].offset + frames[number].size;
        let joins = ranges.last().is_some_and(|range: &Vec<usize>| {
            let (first, last) = (&frames[range[0]], &frames[range[range.len() - 1]]);
            end - first.offset <= limit && frames[number].offset - (last.offset + last.size) <= GAP
        });
        match ranges.last_mut() {
            Some(range) if joins => range.push(number),
            _ => ranges.push(vec![number]),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;
    use crate::resource::Kind;

    #[test]
    fn neighbours_are_fetched_together_and_far_ones_apart() {
        let kind = Kind {
            group: String::new(),
            version: "v1".into(),
            kind: "X".into(),
            resource: "x".into(),
            namespaced: true,
        };
        let mut offset = 0;
        let frames: Vec<FrameEntry> = [100, 2_500_000, 1_000_000, 1_000_000, 10_000_000, 10]
            .into_iter()
            .map(|size| {
                let entry =
                    FrameEntry { kind: kind.clone(), offset, size, tar_size: 1, sha256: Digest::of(b""), objects: 1 };
                offset += size;
                entry
            })
            .collect();
        let all: BTreeSet<usize> = (0..9).collect();
        assert_eq!(ranges(&frames, &all, RANGE), [vec![0, 1, 2], vec![3], vec![4], vec![5]]);
        assert_eq!(
            ranges(&frames, &[0, 2].into(), RANGE),
            [vec![0], vec![2]],
            "two MiB in between are not fetched along"
        );
        assert!(ranges(&frames, &BTreeSet::new(), RANGE).is_empty());
    }
}
