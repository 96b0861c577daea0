//! Goes through objects of a backup, many at once: fetched by frame, joined by a bounded channel to what is done with each.

use super::Error;
use super::fetch::{self, Backup};
use crate::store::Store;
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Objects on their way at once; an API server on two cores takes 2,000 writes/s then, and no more with more.
const AT_ONCE: usize = 32;
/// KiB of objects on their way at once: what is large waits, so that memory follows this and not [`AT_ONCE`] times the
/// largest object. An object takes about three times its size on its way: its tree, its text, and the connection's.
const KIB_IN_FLIGHT: u32 = 8 * 1024;

/// How much an object takes on its way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Itself.
    Alone,
    /// Itself and what the target has in its place.
    WithLive,
}

/// An object of a backup on its way.
pub(super) struct Saved {
    /// Its number in the index.
    pub(super) number: usize,
    /// Its JSON.
    pub(super) json: Vec<u8>,
    /// Its share of [`KIB_IN_FLIGHT`].
    _room: OwnedSemaphorePermit,
}

/// Does something with each of these entries of a backup, and tells `done` what came of it.
///
/// # Errors
/// When the backup can't be read any more.
pub(super) async fn each<T, F: Future<Output = T>>(
    store: &dyn Store,
    backup: &Backup,
    numbers: &BTreeSet<usize>,
    load: Load,
    deed: impl Fn(Saved) -> F,
    done: impl FnMut(T),
) -> Result<(), Error> {
    let (sender, mut receiver) = mpsc::channel::<Saved>(AT_ONCE);
    let saved = stream::poll_fn(move |context| receiver.poll_recv(context));
    let work = async {
        let mut done = done;
        let mut results = pin!(saved.map(deed).buffer_unordered(AT_ONCE));
        while let Some(result) = results.next().await {
            done(result);
        }
        Ok(())
    };
    tokio::try_join!(read(store, backup, numbers, load, sender), work)?;
    Ok(())
}

async fn read(
    store: &dyn Store,
    backup: &Backup,
    numbers: &BTreeSet<usize>,
    load: Load,
    sender: mpsc::Sender<Saved>,
) -> Result<(), Error> {
    let entries = backup.index.entries();
    let room = Arc::new(Semaphore::new(KIB_IN_FLIGHT as usize));
    fetch::frames(store, backup, &backup.index.frames_of(numbers), |frame, tar| {
        let (sender, room) = (&sender, &room);
        async move {
            for &number in numbers.range(backup.index.of_frame(frame)) {
                let times = if matches!(load, Load::Alone) { 1 } else { 2 };
                let size = times * (entries[number].size() / 1024 + 1);
                let share = u32::try_from(size).unwrap_or(KIB_IN_FLIGHT).min(KIB_IN_FLIGHT);
                let nobody = || Error::Thread("nobody goes on".to_owned());
                let room = room.clone().acquire_many_owned(share).await.map_err(|_| nobody())?;
                let json = backup.index.object(&entries[number], &tar)?.to_vec();
                sender.send(Saved { number, json, _room: room }).await.map_err(|_| nobody())?;
            }
            Ok(())
        }
    })
    .await
}
