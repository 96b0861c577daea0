//! What S3's answers mean: whether another attempt makes sense, and what to tell the person who has to mend it.
//!
//! The codes are those of "Error responses" in the S3 API reference. Other servers answer alike, but not always with a
//! code, so that the status counts where there is none.

use super::Bucket;
use super::call::{Action, Deed};
use crate::aws::identity::Refusal;
use crate::aws::{causes, find};
use crate::store::Error;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error as StdError;

/// Why an attempt failed.
pub(super) enum Fault {
    /// It would fail again.
    Final(Error),
    /// It may succeed later.
    Passing {
        /// What happened.
        why: String,
        /// The error to end with when patience ends, where it is another than [`Error::Unavailable`].
        error: Option<Box<Error>>,
        /// Whether S3 may have done what was asked.
        may_have_worked: bool,
    },
}

impl Fault {
    /// The connection broke, or the answer didn't come: nobody knows what S3 did.
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self::Passing { why: why.into(), error: None, may_have_worked: true }
    }

    /// S3 said that it did nothing, for now.
    fn declined(why: impl Into<String>) -> Self {
        Self::Passing { why: why.into(), error: None, may_have_worked: false }
    }
}

impl From<Refusal> for Error {
    fn from(Refusal { text, hint, transient }: Refusal) -> Self {
        Self::Credentials { text, hint, transient }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        if !refusal.transient {
            return Self::Final(refusal.into());
        }
        Self::Passing { why: refusal.text.clone(), error: Some(Box::new(refusal.into())), may_have_worked: false }
    }
}

/// Codes that stand for "later": overload, a broken connection, another writer at the same key, a clock that the SDK
/// has just corrected.
const PASSING: [&str; 12] = [
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ConditionalRequestConflict",
    "OperationAborted",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "XMinioServerNotInitialized",
];

impl Bucket {
    /// Judges what the SDK says about an attempt.
    pub(super) fn judge<E>(&self, deed: Deed<'_>, error: SdkError<E, HttpResponse>) -> Fault
    where
        E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
    {
        if let Some(credentials) = find::<CredentialsError>(&error) {
            return self.environment.explain(credentials).into();
        }
        match &error {
            SdkError::ServiceError(service) => self.judge_answer(deed, service.raw(), service.err()),
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => Fault::passing(causes(&error)),
            SdkError::DispatchFailure(failure) if !failure.is_user() => self.judge_connection(deed, causes(&error)),
            _ => Fault::Final(self.refused(deed, causes(&error))),
        }
    }

    fn judge_connection(&self, deed: Deed<'_>, why: String) -> Fault {
        let holds = |words: &[&str]| words.iter().any(|word| why.contains(word));
        let hint = if holds(&["invalid peer certificate"]) {
            "give the authority's certificate in SSL_CERT_FILE or AWS_CA_BUNDLE (in a Job: `job.env`)"
        } else if holds(&["InvalidContentType"]) {
            "the server doesn't speak TLS there: is its `endpoint` an http:// URL?"
        } else if holds(&["(Connect)"]) {
            let hint = "check the `endpoint` of the location, name resolution, network policies and proxies";
            return Fault::Passing { why: format!("{why}\nhint: {hint}"), error: None, may_have_worked: false };
        } else {
            return Fault::passing(why);
        };
        Fault::Final(self.refused(deed, format!("{why}\nhint: {hint}")))
    }

    fn judge_answer(&self, deed: Deed<'_>, answer: &HttpResponse, error: &dyn ProvideErrorMetadata) -> Fault {
        let status = answer.status().as_u16();
        let code = error.code().unwrap_or_default();
        let said = said(status, code, error.message());
        let place = || self.place(deed.key);
        if PASSING.contains(&code) || matches!(status, 408 | 429 | 500 | 502 | 503 | 504) {
            // A 5xx may come from something in front of S3 that lost the answer.
            return if status >= 500 { Fault::passing(said) } else { Fault::declined(said) };
        }
        let right_region = answer.headers().get("x-amz-bucket-region").or_else(|| expected_region(error.message()?));
        Fault::Final(match (code, status) {
            ("NoSuchBucket", _) => self.no_bucket(),
            ("NotFound", _) | ("", 404) if deed.action == Action::HeadBucket => self.no_bucket(),
            ("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed", _) | (_, 301 | 307) => {
                self.wrong_region(right_region, said)
            }
            ("IllegalLocationConstraintException", _) => self.wrong_region(right_region, said),
            ("NoSuchKey" | "NotFound" | "NoSuchUpload", _) | ("", 404) => Error::NotFound { place: place() },
            ("PreconditionFailed", _) | ("", 412) => Error::Exists { place: place() },
            ("InvalidRange", _) | ("", 416) => {
                Error::Integrity { place: place(), why: "it ends before the bytes that were asked for".to_owned() }
            }
            (
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired",
                _,
            ) => self.environment.refused_credentials(code, &said).into(),
            ("InvalidObjectState", _) => self.refused(
                deed,
                format!("{said}\nhint: it is in an archive class: aws s3api restore-object brings it back"),
            ),
            (_, 401 | 403) => self.forbidden(deed, said),
            _ => self.refused(deed, said),
        })
    }

    /// A refusal that would come again.
    pub(super) fn refused(&self, deed: Deed<'_>, why: String) -> Error {
        Error::Refused { action: deed.action.name(), place: self.place(deed.key), why }
    }

    fn no_bucket(&self) -> Error {
        let (whereabouts, hint) = match &self.endpoint {
            Some(endpoint) => (format!(" at {endpoint}"), "create it, or check name and `endpoint` of the location"),
            None => {
                (String::new(), "create it, or check the name; in other partitions than `aws`, check the region too")
            }
        };
        Error::NoBucket { bucket: self.name.clone(), whereabouts, hint: hint.to_owned() }
    }

    fn wrong_region(&self, right: Option<&str>, said: String) -> Error {
        let (bucket, wrong) = (&self.name, &self.region);
        match right {
            Some(right) if right != wrong => Error::Region {
                text: format!("bucket `{bucket}` is in region `{right}`, not in `{wrong}`"),
                hint: format!("give its region in the location's URL: {}", self.url_in(right)),
            },
            _ => Error::Region {
                text: format!("bucket `{bucket}` is not in region `{wrong}`: {said}"),
                hint: "give its region in the location's URL: `?region=REGION`".to_owned(),
            },
        }
    }

    fn forbidden(&self, deed: Deed<'_>, said: String) -> Error {
        let whom = match self.environment.identity() {
            Some(identity) if !said.contains("User: ") => format!(" for {identity}"),
            _ => String::new(),
        };
        let hint = if said.contains("kms:") {
            "the bucket's KMS key must allow it too: `kms:GenerateDataKey` to write, `kms:Decrypt` to read".to_owned()
        } else {
            let (permission, resource) = (deed.action.permission(), self.arn(deed.key.is_some()));
            let absent = match deed.action {
                Action::GetObject | Action::HeadObject => "; without `s3:ListBucket` a missing key looks the same",
                _ => "",
            };
            format!("`{permission}` on `{resource}` is needed, see docs/permissions.md for the whole policy{absent}")
        };
        Error::Forbidden { action: deed.action.name(), place: self.place(deed.key), whom, said, hint }
    }
}

/// S3's words: `SlowDown: Please reduce your request rate. (503)`.
fn said(status: u16, code: &str, message: Option<&str>) -> String {
    match (code, message.unwrap_or_default()) {
        ("", "") => format!("status {status}"),
        (code, "") => format!("{code} ({status})"),
        ("", message) => format!("{message} ({status})"),
        (code, message) => format!("{code}: {message} ({status})"),
    }
}

/// The region in "the region 'us-east-1' is wrong; expecting 'eu-central-1'".
fn expected_region(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("expecting '")?;
    rest.split_once('\'').map(|(region, _)| region)
}
