//! One file of a backup on its way into the store: counted and hashed as it goes.

use super::Error;
use crate::archive;
use crate::archive::manifest::File;
use crate::id::DigestBuilder;
use crate::store::{Store, Upload};
use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

/// How long an abort may take: a run that is told to stop has 40 s, most of them for what its post hooks put right.
const ABORT: Duration = Duration::from_secs(10);

/// A file that is being written.
pub(super) struct FileUpload {
    key: String,
    upload: Box<dyn Upload>,
    digest: DigestBuilder,
    size: u64,
}

impl FileUpload {
    /// Begins a file.
    pub(super) async fn begin(store: &dyn Store, key: String) -> Result<Self, Error> {
        let upload = store.upload(&key).await?;
        Ok(Self { key, upload, digest: DigestBuilder::default(), size: 0 })
    }

    /// Appends bytes.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.digest.update(&bytes);
        self.size += bytes.len() as u64;
        Ok(self.upload.write(bytes).await?)
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Ends the file. The store has compared the stored length with what was written.
    pub(super) async fn finish(self) -> Result<File, Error> {
        self.upload.finish().await?;
        Ok(File { key: self.key, size: self.size, sha256: self.digest.finish() })
    }

    /// Gives up; nothing remains. A failure to clean up is left to a later run's sweep.
    pub(super) async fn abort(self) {
        let why = match timeout(ABORT, self.upload.abort()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the store has not answered within {} s", ABORT.as_secs()),
        };
        tracing::warn!(key = self.key, why, "an unfinished upload is left for a later run to sweep");
    }
}

/// Stores a file that is there already, in pieces.
pub(super) async fn put(
    store: &dyn Store,
    key: String,
    pieces: impl IntoIterator<Item = Result<Bytes, archive::Error>>,
) -> Result<File, Error> {
    let mut file = FileUpload::begin(store, key).await?;
    let writing = async {
        for piece in pieces {
            file.write(piece?).await?;
        }
        Ok(())
    };
    match writing.await {
        Ok(()) => file.finish().await,
        Err(error) => {
            file.abort().await;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    /// A store that doesn't answer any more.
    struct Silent;

    #[async_trait::async_trait]
    impl Upload for Silent {
        async fn write(&mut self, _: Bytes) -> Result<(), store::Error> {
            std::future::pending().await
        }
        async fn finish(self: Box<Self>) -> Result<u64, store::Error> {
            std::future::pending().await
        }
        async fn abort(self: Box<Self>) -> Result<(), store::Error> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_abort_leaves_time_for_post_hooks() {
        let (upload, begun) = (Box::new(Silent), tokio::time::Instant::now());
        FileUpload { key: "a".to_owned(), upload, digest: DigestBuilder::default(), size: 0 }.abort().await;
        // 40 s are left after a signal, and post hooks may take 25 of them
        assert!(begun.elapsed() <= Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}
