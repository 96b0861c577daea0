//! A store that is only read: what writes or removes is refused before it reaches the store.

use super::{Error, Listed, PendingUpload, Store, Upload};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// A store of a location that is configured as read-only.
pub(super) struct ReadOnly {
    store: Arc<dyn Store>,
}

impl ReadOnly {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    fn refuse<T>(&self) -> Result<T, Error> {
        Err(Error::ReadOnly { place: self.store.describe() })
    }
}

#[async_trait]
impl Store for ReadOnly {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn create(&self, _key: &str, _body: Bytes) -> Result<(), Error> {
        self.refuse()
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.store.get(key, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        self.store.get_range(key, range).await
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        self.store.size(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        self.store.list(prefix).await
    }

    async fn delete(&self, _key: &str) -> Result<(), Error> {
        self.refuse()
    }

    async fn upload(&self, _key: &str) -> Result<Box<dyn Upload>, Error> {
        self.refuse()
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, Error> {
        self.store.pending_uploads(prefix).await
    }

    async fn abort_upload(&self, _upload: &PendingUpload) -> Result<(), Error> {
        self.refuse()
    }
}
