//! Bytes under keys: a bucket, a prefix in one, or a folder. Defines the [`Store`], its [`Upload`] for bodies of unknown
//! length, and what both may run into ([`Error`]). Every key is written once: [`Store::create`] never replaces, and so
//! two writers can't disturb each other.
//!
//! `s3` talks to S3 with one retry policy of its own, `folder` keeps files. Knows nothing of what the bytes mean, nor of
//! Kubernetes; the environment is read where a client is made, as users of AWS tools expect, and nowhere else.

mod error;
mod folder;
mod key;
mod read_only;
mod s3;

pub use error::Error;

use crate::aws::Access;
use crate::config::{Location, Place};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of one part of an [`Upload`], which is what it holds at most. S3 takes no smaller ones (but for the last), and 10,000
/// of them: 48 GiB.
pub const PART_SIZE: usize = 5 << 20;

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key, without the location's prefix.
    pub key: String,
    /// Bytes of the body.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// An upload that was begun and neither finished nor aborted: its worker is still at it, or was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingUpload {
    /// The key it would have got, without the location's prefix.
    pub key: String,
    /// When it was begun, by the store's clock.
    pub initiated: Timestamp,
    /// How the store knows it.
    id: String,
}

/// Bytes under keys. Keys are relative to the location, segments between `/` that are neither empty nor begin with a
/// dot, of printable ASCII; anything else is [`Error::Key`]. No key is another's folder (`a` and `a/b`): S3 would take
/// that, folders and several S3 servers don't.
#[async_trait]
pub trait Store: Send + Sync {
    /// The location, for messages: `s3://bucket/prefix`, `file:///folder`.
    fn describe(&self) -> String;

    /// Writes a body under a key that nothing has; [`Error::Exists`] when something has it.
    ///
    /// Where the connection broke while the answer was under way, the retry may meet what this very call wrote: that is
    /// [`Error::Exists`] too, and the caller, who knows what it wrote, reads it back and decides.
    async fn create(&self, key: &str, body: Bytes) -> Result<(), Error>;

    /// Reads a whole body; [`Error::TooLarge`] when it has more than `limit` bytes.
    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error>;

    /// Reads exactly these bytes; [`Error::Integrity`] when the body ends before them.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error>;

    /// Bytes of the body.
    async fn size(&self, key: &str) -> Result<u64, Error>;

    /// Everything whose key begins with `prefix`, sorted by key. The prefix is compared as text: `backups/a` finds
    /// `backups/ab.json`.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error>;

    /// Removes a body. It is fine when there is none.
    async fn delete(&self, key: &str) -> Result<(), Error>;

    /// Begins a body of unknown length, which appears under its key when it is finished.
    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, Error>;

    /// Uploads below a prefix that were begun and not ended.
    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, Error>;

    /// Ends a pending upload and frees what it holds. It is fine when it has ended.
    async fn abort_upload(&self, upload: &PendingUpload) -> Result<(), Error>;
}

/// A body being written. Dropped without an end, it is aborted as well as can be.
#[async_trait]
pub trait Upload: Send {
    /// Adds bytes, any number. Waits while a part is sent. After an error the upload is aborted already.
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error>;

    /// Completes the body under its key and answers with its length, which the store confirmed. [`Error::Exists`] when
    /// something has the key, as far as the store can tell: for bodies beyond [`PART_SIZE`] S3 can't everywhere. After
    /// an error nothing is pending; a body that was completed and then not confirmed may be there, for a later sweep.
    async fn finish(self: Box<Self>) -> Result<u64, Error>;

    /// Ends without a body; nothing remains.
    async fn abort(self: Box<Self>) -> Result<(), Error>;
}

/// Opens a location. Credentials are found as AWS tools find them and not asked for before the first call, except that
/// a bucket whose region nobody told is asked for it.
pub async fn open(location: &Location) -> Result<Arc<dyn Store>, Error> {
    open_with(location, &Access::Environment).await
}

/// The same for a second location of one run, with the credentials that the Job has for it, if it has any of its own.
pub async fn open_other(location: &Location) -> Result<Arc<dyn Store>, Error> {
    open_with(location, &Access::other(location)).await
}

async fn open_with(location: &Location, access: &Access) -> Result<Arc<dyn Store>, Error> {
    let store: Arc<dyn Store> = match &location.place {
        Place::S3(place) => Arc::new(s3::S3Store::open(place, location.to_string(), access).await?),
        Place::Folder(path) => Arc::new(folder::Folder::new(path)),
    };
    Ok(if location.read_only { Arc::new(read_only::ReadOnly::new(store)) } else { store })
}
