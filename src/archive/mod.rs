//! The format of a backup, as `docs/format.md` states it: frames of objects, the index that finds them, the manifest
//! that makes a backup of them. Bytes in, bytes out: knows nothing of clusters, stores and tasks.
//!
//! Words: a [`frame`] is one zstd frame of whole tar entries of one kind; the [`index`] says where each object is; the
//! [`manifest`] is small, written last, and its presence is the backup. Of restores there are a [`record`] and what they did
//! [`besides`]. Everything read here comes from a bucket and is
//! not trusted: sizes are bounded, digests are checked before what they cover is used.

pub mod besides;
pub mod encoders;
pub mod frame;
pub mod index;
pub mod lines;
pub mod manifest;
pub mod packed;
pub mod path;
pub mod record;

/// Why an archive can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are not what their digest or length says.
    #[error("{what} is damaged: {why}\nhint: nothing was applied; restore from another backup: `kubectl backup list`")]
    Damaged {
        /// The file, frame or line.
        what: String,
        /// What doesn't agree.
        why: String,
    },
    /// A manifest of another format.
    #[error("the manifest says format `{0}`, this version reads `{format}`\nhint: use a newer kubectl-backup", format = manifest::FORMAT)]
    UnknownFormat(String),
    /// A manifest that needs a reader who can do more.
    #[error("the backup requires `{0}`, which this version does not know\nhint: use a newer kubectl-backup")]
    UnknownRequirement(String),
    /// The tar or zstd library failed while writing.
    #[error("compressing a frame failed")]
    Compress(#[source] std::io::Error),
}

impl Error {
    pub(crate) fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), why: why.into() }
    }
}
