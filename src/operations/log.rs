//! The log of a run: every event as a line, kept compressed until it is stored.

use super::Context;
use crate::archive::lines::LineWriter;
use crate::id::BackupId;
use crate::pipeline::save::commit;
use crate::report::{Event, Events};
use crate::store::Store;
use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// Collects events on their way to somebody else.
#[derive(Clone)]
pub(super) struct RunLog(Arc<Mutex<Option<LineWriter>>>);

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    #[serde(flatten)]
    event: &'a Event,
}

impl RunLog {
    /// A log, and the events that go through it to `next`.
    pub(super) fn tee(now: Arc<dyn Fn() -> Timestamp + Send + Sync>, next: &Events) -> anyhow::Result<(Self, Events)> {
        let log = Self(Arc::new(Mutex::new(Some(LineWriter::new()?))));
        let (writer, next) = (log.0.clone(), next.clone());
        let events = Events::new(move |event| {
            // counters move often; the report has their sum
            if !matches!(event, Event::Progress { .. })
                && let Some(lines) = writer.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
                && let Err(error) = lines.line(&Line { time: now(), event: &event })
            {
                tracing::warn!(%error, "a line of the log is lost");
            }
            next.send(event);
        });
        Ok((log, events))
    }

    /// Stores the log of a run that has failed, with the error as its last line. Best effort: that error matters more.
    pub(super) async fn keep(&self, error: &anyhow::Error, context: &Context, id: &BackupId, store: &dyn Store) {
        context.events.note(format!("failed: {error:#}"));
        let stored = async {
            let lines = self.take()?;
            if !lines.is_empty() {
                commit::put_file(store, id, &context.attempt, "log.jsonl.zst", lines).await?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = stored.await {
            tracing::warn!(%error, "the log of this attempt could not be stored");
        }
    }

    /// The log so far, as it is stored. Events after this are not in it.
    pub(super) fn take(&self) -> anyhow::Result<Bytes> {
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(match writer {
            Some(writer) => writer.finish()?,
            None => Bytes::new(),
        })
    }
}
