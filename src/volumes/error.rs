//! What EC2 may answer, in words for the person who has to mend it.

/// Why EC2 didn't do what it was asked. No text holds a credential.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There are no credentials, or they aren't accepted.
    #[error("{text}\nhint: {hint}")]
    Credentials {
        /// What happened.
        text: String,
        /// The way out.
        hint: String,
    },
    /// A permission is missing.
    #[error(
        "`{action}` in region `{region}` is forbidden: {said}\nhint: `ec2:{action}` is needed, see docs/volumes.md for the whole policy"
    )]
    Forbidden {
        /// The EC2 action.
        action: &'static str,
        /// The region.
        region: String,
        /// What EC2 said, without its encoded part.
        said: String,
    },
    /// EC2 says no, and would again.
    #[error("`{action}`: {code}: {said}")]
    Refused {
        /// The EC2 action.
        action: &'static str,
        /// EC2's code.
        code: String,
        /// What EC2 said.
        said: String,
    },
    /// No answer that helps within the time there is.
    #[error("`{action}` in region `{region}`: {why}")]
    Unavailable {
        /// The EC2 action.
        action: &'static str,
        /// The region.
        region: String,
        /// The last that happened.
        why: String,
        /// Whether EC2 may have done it all the same.
        unsure: bool,
    },
    /// The API server.
    #[error(transparent)]
    Cluster(std::sync::Arc<crate::cluster::Error>),
    /// Somebody has ended the run.
    #[error("it was cancelled")]
    Cancelled,
    /// A setting that can't be used, or one that is missing.
    #[error("{0}")]
    Setting(String),
}

impl Error {
    /// EC2's code, where it gave one that would come again.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it would be the same for every volume: who we are, what we may do, how to get there.
    pub fn concerns_all(&self) -> bool {
        matches!(self, Self::Credentials { .. } | Self::Setting(_))
    }
}

impl From<crate::cluster::Error> for Error {
    fn from(error: crate::cluster::Error) -> Self {
        Self::Cluster(std::sync::Arc::new(error))
    }
}
