//! One file of a backup on its way into the store: counted and hashed as it goes.

use super::Error;
use crate::archive;
use crate::archive::manifest::File;
use crate::id::DigestBuilder;
use crate::store::{Store, Upload};
use bytes::Bytes;

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
        if let Err(error) = self.upload.abort().await {
            tracing::warn!(key = self.key, %error, "an unfinished upload is left for a later run to sweep");
        }
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
