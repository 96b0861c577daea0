//! One call to S3, and the one retry policy there is: the SDK's own retries are off, because they don't cover a body
//! that breaks off while it is read.
//!
//! A call is tried [`Patience::attempts`] times. What makes another attempt sensible is in `fault`; between two there
//! is a pause of random length below a limit that doubles ("full jitter"), so that workers which were slowed down
//! together don't come back together.

use super::fault::Fault;
use crate::store::Error;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// What S3 is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    AbortMultipartUpload,
    CompleteMultipartUpload,
    CreateMultipartUpload,
    DeleteObject,
    GetObject,
    HeadBucket,
    HeadObject,
    ListMultipartUploads,
    ListObjects,
    PutObject,
    UploadPart,
}

impl Action {
    /// The name in S3's API reference.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AbortMultipartUpload => "AbortMultipartUpload",
            Self::CompleteMultipartUpload => "CompleteMultipartUpload",
            Self::CreateMultipartUpload => "CreateMultipartUpload",
            Self::DeleteObject => "DeleteObject",
            Self::GetObject => "GetObject",
            Self::HeadBucket => "HeadBucket",
            Self::HeadObject => "HeadObject",
            Self::ListMultipartUploads => "ListMultipartUploads",
            Self::ListObjects => "ListObjectsV2",
            Self::PutObject => "PutObject",
            Self::UploadPart => "UploadPart",
        }
    }

    /// The IAM action that allows it ("Required permissions for Amazon S3 API operations" of the S3 user guide).
    pub(super) fn permission(self) -> &'static str {
        match self {
            Self::AbortMultipartUpload => "s3:AbortMultipartUpload",
            Self::DeleteObject => "s3:DeleteObject",
            Self::GetObject | Self::HeadObject => "s3:GetObject",
            Self::HeadBucket | Self::ListObjects => "s3:ListBucket",
            Self::ListMultipartUploads => "s3:ListBucketMultipartUploads",
            Self::CompleteMultipartUpload | Self::CreateMultipartUpload | Self::PutObject | Self::UploadPart => {
                "s3:PutObject"
            }
        }
    }
}

/// One call, as messages name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deed<'a> {
    pub(super) action: Action,
    /// The key below the location's prefix; `None` where the call is about the bucket.
    pub(super) key: Option<&'a str>,
    /// Bytes that go or come.
    pub(super) bytes: u64,
}

impl<'a> Deed<'a> {
    pub(super) fn new(action: Action, key: &'a str) -> Self {
        Self { action, key: Some(key), bytes: 0 }
    }

    pub(super) fn of_bucket(action: Action) -> Self {
        Self { action, key: None, bytes: 0 }
    }

    pub(super) fn moving(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }
}

/// How long S3 is given.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// How often a call is tried in all.
    pub(super) attempts: u32,
    /// The longest first pause; each further one may be twice as long.
    pub(super) first_pause: Duration,
    /// The longest pause there is.
    pub(super) longest_pause: Duration,
    /// Time for one attempt that moves no bytes to speak of.
    pub(super) answer: Duration,
    /// The slowest rate, in bytes a second, at which bytes may move; their time is added to `answer`.
    pub(super) slowest: u64,
    /// Time for `CompleteMultipartUpload`: S3 may assemble for minutes, and keeps the connection open meanwhile.
    pub(super) completion: Duration,
    /// No attempt begins after this time.
    pub(super) total: Duration,
}

impl Patience {
    /// What the store uses: the pauses sum up to 55 s at most and half of that on average, which outlasts a restart of
    /// a server and the `SlowDown` while S3 splits a prefix; a part of 5 MiB has 30 s + 80 s.
    pub(super) const DEFAULT: Self = Self {
        attempts: 10,
        first_pause: Duration::from_millis(200),
        longest_pause: Duration::from_secs(15),
        answer: Duration::from_secs(30),
        slowest: 64 << 10,
        completion: Duration::from_secs(300),
        total: Duration::from_secs(600),
    };

    /// The time for one attempt; `None` for reads, which keep time by themselves: they learn the length on the way.
    fn for_attempt(&self, deed: Deed<'_>) -> Option<Duration> {
        match deed.action {
            Action::CompleteMultipartUpload => Some(self.completion),
            Action::GetObject => None,
            _ => Some(self.for_bytes(deed.bytes)),
        }
    }

    /// The time for an answer with bytes on their way.
    pub(super) fn for_bytes(&self, bytes: u64) -> Duration {
        self.answer.saturating_add(Duration::from_secs(bytes / self.slowest.max(1)))
    }

    fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1)));
        doubled.min(self.longest_pause).mul_f64(fastrand::f64())
    }
}

/// How a call ended.
pub(super) struct Tried<T> {
    pub(super) result: Result<T, Error>,
    /// Whether an attempt before the last may have taken effect although its answer didn't arrive.
    pub(super) unsure: bool,
}

/// Waits for something as long as it may take.
pub(super) async fn within<T>(limit: Duration, answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = || Fault::passing(format!("no answer within {} s", limit.as_secs_f32()));
    timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
}

/// Tries a call until it succeeds, fails for good, or patience ends.
pub(super) async fn call<T, Answer>(
    patience: &Patience,
    deed: Deed<'_>,
    place: &str,
    mut attempt: impl FnMut() -> Answer,
) -> Tried<T>
where
    Answer: Future<Output = Result<T, Fault>>,
{
    let (begun, limit) = (Instant::now(), patience.for_attempt(deed));
    let (mut attempts, mut unsure) = (0, false);
    loop {
        attempts += 1;
        tracing::debug!(action = deed.action.name(), place, attempts, "asking S3");
        let result = match limit {
            Some(limit) => within(limit, attempt()).await,
            None => attempt().await,
        };
        let fault = match result {
            Ok(value) => return Tried { result: Ok(value), unsure },
            Err(fault) => fault,
        };
        let why = match fault {
            Fault::Final(error) => return Tried { result: Err(error), unsure },
            Fault::Passing { why, error, may_have_worked } => {
                let over = attempts >= patience.attempts || begun.elapsed() >= patience.total;
                if over {
                    let (action, place) = (deed.action.name(), place.to_owned());
                    let unavailable = || Error::Unavailable { action, place, attempts, why };
                    return Tried { result: Err(error.map_or_else(unavailable, |error| *error)), unsure };
                }
                unsure |= may_have_worked;
                why
            }
        };
        let pause = patience.pause(attempts);
        tracing::debug!(action = deed.action.name(), place, attempts, ?pause, why, "S3 is tried again");
        sleep(pause).await;
    }
}
