//! What a store may run into, in words for the person who has to mend it.

use crate::report::ExitCode;
use std::path::PathBuf;

/// Why a store didn't do what it was asked. No text holds a credential.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing has this key.
    #[error("`{place}` does not exist")]
    NotFound {
        /// The whole key: `s3://bucket/prefix/key`, or a path.
        place: String,
    },
    /// Something has this key already.
    #[error("`{place}` exists already")]
    Exists {
        /// The whole key.
        place: String,
    },
    /// The body has more bytes than the reader takes.
    #[error("`{place}` has more than {limit} bytes")]
    TooLarge {
        /// The whole key.
        place: String,
        /// Bytes that the reader takes.
        limit: u64,
    },
    /// The bytes are not what they were or must be.
    #[error("`{place}` is damaged: {why}")]
    Integrity {
        /// The whole key.
        place: String,
        /// What doesn't fit.
        why: String,
    },
    /// A string that can't be a key or a prefix of keys.
    #[error("`{key}` is not a key: {why}")]
    Key {
        /// The string.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The location is configured as read-only.
    #[error("`{place}` is read-only\nhint: `readOnly` of the location in `kubectl-backup-config` says so")]
    ReadOnly {
        /// The location.
        place: String,
    },
    /// S3 refused for lack of a permission.
    #[error("`{action}` of `{place}` is forbidden{whom}: {said}\nhint: {hint}")]
    Forbidden {
        /// The S3 action, such as `PutObject`.
        action: &'static str,
        /// The whole key, or the bucket.
        place: String,
        /// ` for role …`, or empty where it isn't known who we are.
        whom: String,
        /// What S3 said.
        said: String,
        /// The way out.
        hint: String,
    },
    /// There are no credentials, or they aren't accepted.
    #[error("{text}\nhint: {hint}")]
    Credentials {
        /// What happened.
        text: String,
        /// The way out.
        hint: String,
        /// Whether it may go well later: STS couldn't be reached, or was overloaded.
        transient: bool,
    },
    /// The bucket doesn't exist.
    #[error("bucket `{bucket}` does not exist{whereabouts}\nhint: {hint}")]
    NoBucket {
        /// The bucket's name.
        bucket: String,
        /// ` at https://…`, or empty for AWS.
        whereabouts: String,
        /// The way out.
        hint: String,
    },
    /// The bucket is in another region, or its region can't be told.
    #[error("{text}\nhint: {hint}")]
    Region {
        /// What happened.
        text: String,
        /// The way out.
        hint: String,
    },
    /// S3 refused, and would refuse again.
    #[error("`{action}` of `{place}` failed: {why}")]
    Refused {
        /// The S3 action.
        action: &'static str,
        /// The whole key, or the bucket.
        place: String,
        /// What was said, and perhaps a hint.
        why: String,
    },
    /// S3 couldn't be reached, was overloaded or broke off, as often as we tried.
    #[error("`{action}` of `{place}` failed {attempts} times, the last time with: {why}")]
    Unavailable {
        /// The S3 action.
        action: &'static str,
        /// The whole key, or the bucket.
        place: String,
        /// How often it was tried.
        attempts: u32,
        /// What happened the last time.
        why: String,
    },
    /// The environment holds a setting that can't be used.
    #[error("{0}")]
    Setting(String),
    /// A file or folder couldn't be worked with.
    #[error("can't {deed} `{}`: {source}", path.display())]
    File {
        /// What was to be done: `read`, `create`.
        deed: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same call may go well later. The store itself has tried several times by then.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Credentials { transient: true, .. })
    }

    /// How a program ends that can't go on because of this.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NotFound { .. } => ExitCode::NotFound,
            Self::Forbidden { .. } | Self::Credentials { .. } => ExitCode::Forbidden,
            Self::Integrity { .. } => ExitCode::Integrity,
            Self::ReadOnly { .. } | Self::Setting(_) => ExitCode::Usage,
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => ExitCode::Forbidden,
            _ => ExitCode::Failed,
        }
    }
}
