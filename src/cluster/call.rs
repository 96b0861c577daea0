//! One request to the API server with its retries, and the reading of what it answers.

use super::{Cluster, Error, READ_TIMEOUT, Status};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use serde::Deserialize;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often a read is tried that the API server fails to answer. Fewer where many reads are likely to fail in the same way.
pub const TRIES: u32 = 7;
/// After how long a read that is answered with a failure, or not answered, is tried once more only if it was tried only once: a
/// webhook that is dead takes 30 s each time, an API server that is silent 90 s.
const SLOW: Duration = Duration::from_secs(30);
/// How often a read is tried whose answer makes no sense: a proxy's error page goes away, another program stays.
const TRIES_OF_NONSENSE: u32 = 3;
/// For how long a read is tried again, if [`TRIES`] are wanted, while the API server is away (connections are refused or
/// break) or too busy (429, 503). A single one that is restarted or replaced is away for a minute or so.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same where somebody waits, or where nobody knows whether there is an API server at all.
const IMPATIENCE: Duration = Duration::from_secs(10);
/// The longest pause before the second try; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause where the server asks for none.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause that the server may ask for. Priority and fairness asks for 32 s at most (`maxRetryAfter` in apiserver's
/// `dropped_requests_tracker.go`), always in seconds.
const LONGEST_WISH: Duration = Duration::from_secs(60);
/// How long the first byte of an answer may take. The API server itself gives up after 60 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Bytes of an error's body that are read.
const STATUS_LIMIT: usize = 64 * 1024;
/// Bytes of a list that are handed over at once.
const GATHERED: usize = 32 * 1024;

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// What it is about, for error texts.
    pub(super) what: String,
    pub(super) method: http::Method,
    pub(super) uri: String,
    pub(super) accept: &'static str,
    /// What the body is.
    pub(super) content: &'static str,
    pub(super) body: Bytes,
    /// Whether the answer's texts may echo Secret values.
    pub(super) secret: bool,
}

pub(super) const JSON: &str = "application/json";

impl Call {
    pub(super) fn get(what: impl Into<String>, uri: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            method: http::Method::GET,
            uri: uri.into(),
            accept: JSON,
            content: JSON,
            body: Bytes::new(),
            secret: false,
        }
    }

    fn request(&self) -> Result<Request<Body>, Error> {
        Request::builder()
            .method(self.method.clone())
            .uri(&self.uri)
            .header(header::ACCEPT, self.accept)
            .header(header::CONTENT_TYPE, self.content)
            .body(Body::from(self.body.clone()))
            .map_err(|error| Error::Answer { what: self.what.clone(), message: error.to_string() })
    }
}

impl Cluster {
    /// Sends a request once; an answer outside of 2xx is an error.
    pub(super) async fn once(&self, call: &Call) -> Result<Response<Body>, Error> {
        tracing::debug!("{}", call.what);
        let sent = tokio::time::timeout(ANSWER_TIMEOUT, self.api.send(call.request()?)).await;
        let response = sent
            .map_err(|_| Error::Timeout { what: call.what.clone(), seconds: ANSWER_TIMEOUT.as_secs() })?
            .map_err(|error| transport(&call.what, &error))?;
        self.reached.store(true, Ordering::Relaxed);
        if response.status().is_success() { Ok(response) } else { Err(refusal(call, response).await) }
    }

    /// Sends a request until it is answered or was tried so often. Only for reads.
    pub(super) async fn answer(&self, call: &Call, tries: u32) -> Result<Response<Body>, Error> {
        self.retried(tries, || self.once(call)).await
    }

    /// Sends a read and collects its answer, which is JSON; again from the start when it breaks off.
    pub(super) async fn bytes(&self, call: &Call) -> Result<Bytes, Error> {
        self.retried(TRIES, || async {
            let bytes = self.collected(call).await?;
            parse::<serde::de::IgnoredAny>(&call.what, &bytes)?;
            Ok(bytes)
        })
        .await
    }

    /// Sends a read and parses its answer; again from the start when it breaks off.
    pub(super) async fn json<T: for<'de> Deserialize<'de>>(&self, call: &Call) -> Result<T, Error> {
        self.retried(TRIES, || async { parse(&call.what, &self.collected(call).await?) }).await
    }

    /// Sends a request once and collects its answer.
    pub(super) async fn collected(&self, call: &Call) -> Result<Bytes, Error> {
        Ok(self.collected_with_warnings(call).await?.0)
    }

    /// The same with the fields of the body that the API server says it doesn't know, and so drops.
    pub(super) async fn collected_with_warnings(&self, call: &Call) -> Result<(Bytes, Vec<String>), Error> {
        let response = self.once(call).await?;
        let unknown = unknown_fields(response.headers());
        let mut chunks = std::pin::pin!(chunks(call.what.clone(), response.into_body()));
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok((bytes.freeze(), unknown))
    }

    /// Tries something until it succeeds, fails for good, or was tried often or for long enough.
    pub(super) async fn retried<T, F>(&self, tries: u32, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let begun = Instant::now();
        let mut tried = 0;
        loop {
            tried += 1;
            match attempt().await {
                Err(error) if self.may_come_right(&error, tried, tries, begun.elapsed()) => {
                    tracing::debug!(%error, tried, "trying again");
                    tokio::time::sleep(pause(tried, &error)).await;
                }
                Err(error @ Error::Transport { .. }) if tries >= TRIES => {
                    // whoever asks next need not find out anew
                    self.reached.store(false, Ordering::Relaxed);
                    return Err(error);
                }
                other => return other,
            }
        }
    }

    /// Whether to try again what was tried so often, and for so long.
    fn may_come_right(&self, error: &Error, tried: u32, tries: u32, taken: Duration) -> bool {
        match error {
            Error::Answer { .. } => tried < tries.min(TRIES_OF_NONSENSE),
            _ if is_away(error) && tries >= TRIES => taken < self.patience(),
            _ => error.is_transient() && tried < tries && (tried < 2 || taken < SLOW),
        }
    }

    fn patience(&self) -> Duration {
        if self.patient && self.reached.load(Ordering::Relaxed) { PATIENCE } else { IMPATIENCE }
    }

    /// Rests before something is tried again that a request was only a part of, as between the tries of a request.
    pub async fn rest(&self, tried: u32, error: &Error) {
        tokio::time::sleep(pause(tried, error)).await;
    }
}

/// The fields that warnings name as unknown: `299 - "unknown field \"spec.a\""`, as `fieldValidation=Warn` has it, which is
/// the API server's default. A path names no value.
fn unknown_fields(headers: &http::HeaderMap) -> Vec<String> {
    let warnings = headers.get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok());
    let field = |warning: &str| {
        let (_, rest) = warning.split_once(r#""unknown field \""#)?;
        Some(rest.split_once(r#"\""#)?.0.to_owned())
    };
    warnings.filter_map(field).collect()
}

/// Whether nobody is there who could answer, or nobody has the time.
fn is_away(error: &Error) -> bool {
    matches!(error, Error::Transport { .. }) || matches!(error.code(), Some(429 | 503))
}

/// How long to wait before the next try: what the server asks for, else exponential with full jitter.
pub(super) fn pause(tried: u32, error: &Error) -> Duration {
    if let Some(seconds) = error.status().and_then(|status| status.retry_after) {
        return Duration::from_secs(seconds).min(LONGEST_WISH);
    }
    let longest = FIRST_PAUSE.saturating_mul(1 << tried.min(10)).min(LONGEST_PAUSE);
    longest.mul_f64(random_fraction())
}

/// A number between 0 and 1 from the hasher that std seeds at random: jitter needs no more.
fn random_fraction() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

/// The chunks of a body. A broken connection is an error, and so is one that is silent for [`READ_TIMEOUT`] while a
/// chunk is waited for.
pub(super) fn chunks(what: String, body: Body) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send {
    stream::try_unfold((what, body.into_data_stream()), |(what, mut body)| async move {
        let next = tokio::time::timeout(READ_TIMEOUT, body.next()).await;
        match next.map_err(|_| Error::Timeout { what: what.clone(), seconds: READ_TIMEOUT.as_secs() })? {
            Some(Ok(chunk)) => Ok(Some((chunk, (what, body)))),
            Some(Err(error)) => Err(transport(&what, &error)),
            None => Ok(None),
        }
    })
}

/// The same chunks, read by a task of its own that hands over [`GATHERED`] bytes at a time. A list comes in pieces of 3 KB:
/// where each of them wakes who cuts it, the runtime asks the system in between whether anything else has come, each time.
pub(super) fn gathered(
    chunks: impl futures::Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send {
    let (sender, receiver) = mpsc::channel(1);
    let mut reading = JoinSet::new(); // ends with the stream
    reading.spawn(gather(chunks, sender));
    stream::unfold((receiver, reading), |(mut receiver, reading)| async move {
        let some = receiver.recv().await?;
        Some((stream::iter(some), (receiver, reading)))
    })
    .flatten()
}

async fn gather(
    chunks: impl futures::Stream<Item = Result<Bytes, Error>>,
    sender: mpsc::Sender<Vec<Result<Bytes, Error>>>,
) {
    let mut chunks = std::pin::pin!(chunks);
    let (mut some, mut size) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        size += chunk.as_ref().map_or(GATHERED, Bytes::len);
        some.push(chunk);
        if size >= GATHERED {
            size = 0;
            if sender.send(std::mem::take(&mut some)).await.is_err() {
                return;
            }
        }
    }
    let _ = sender.send(some).await; // nobody waits for it any more where that fails
}

pub(super) fn transport(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::Transport { what: what.to_owned(), message: super::chain(error) }
}

/// Parses an answer. The error tells where, never what: an answer may hold Secret values.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Answer {
        what: what.to_owned(),
        message: format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()),
    })
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: Option<u64>,
    causes: Vec<Cause>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Cause {
    reason: String,
    field: String,
}

/// The error that an answer outside of 2xx means.
async fn refusal(call: &Call, response: Response<Body>) -> Error {
    let code = response.status().as_u16();
    let header = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = http_body_util::Limited::new(response.into_body(), STATUS_LIMIT).collect();
    // the code alone tells enough where the text breaks off or never comes
    let body = tokio::time::timeout(READ_TIMEOUT, body).await.ok().and_then(Result::ok);
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let wire: Wire = serde_json::from_slice(&body).unwrap_or_else(|_| Wire {
        message: String::from_utf8_lossy(&body[..body.len().min(300)]).trim().to_owned(),
        ..Wire::default()
    });
    let details = wire.details.unwrap_or_default();
    let fields: Vec<String> =
        details.causes.iter().map(|cause| cause.field.clone()).filter(|field| !field.is_empty()).collect();
    let status = Status {
        code,
        message: if call.secret && !matches!(code, 401 | 403 | 404 | 409) {
            if fields.is_empty() { wire.reason.clone() } else { format!("{} at {}", wire.reason, fields.join(", ")) }
        } else {
            wire.message
        },
        reason: wire.reason,
        retry_after: details.retry_after_seconds.or(header),
        fields,
        causes: details.causes.into_iter().map(|cause| cause.reason).collect(),
    };
    Error::Api { what: call.what.clone(), status: Box::new(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_is_handed_over_whole_and_in_order_until_it_breaks_off() {
        let pieces = 2 * GATHERED / 1000;
        let piece = |n: usize| Bytes::from(vec![u8::try_from(n % 251).unwrap(); 1000]);
        let broken = std::io::Error::other("reset");
        let chunks = (0..pieces).map(move |n| Ok(piece(n))).chain([Err(transport("listing `pods`", &broken))]);
        let got: Vec<_> = gathered(stream::iter(chunks)).collect().await;
        let (broken, whole) = got.split_last().unwrap();
        assert!(broken.as_ref().is_err_and(Error::is_transient), "{broken:?}");
        let whole: Vec<Bytes> = whole.iter().map(|chunk| chunk.as_ref().unwrap().clone()).collect();
        assert_eq!(whole, (0..pieces).map(piece).collect::<Vec<_>>());
    }

    /// A cluster that answers nothing any more after so many requests; how long it is waited for.
    async fn waited(cluster: impl Fn(Cluster) -> Cluster, answers: usize) -> u64 {
        let left = std::sync::atomic::AtomicUsize::new(answers);
        let service = tower::service_fn(move |_: Request<Body>| {
            let there = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let answer = || Response::new(Body::from(br#"{"gitVersion":"v1.36.3"}"#.to_vec()));
            std::future::ready(if there { Ok(answer()) } else { Err(std::io::Error::other("connection refused")) })
        });
        let client = kube::Client::new(service, "default");
        let cluster = cluster(Cluster::new(client.clone(), client));
        for _ in 0..answers {
            cluster.version().await.unwrap();
        }
        let begun = Instant::now();
        assert!(cluster.version().await.unwrap_err().is_transient());
        let first = begun.elapsed().as_secs();
        let begun = Instant::now();
        cluster.version().await.unwrap_err();
        assert!(begun.elapsed().as_secs() <= 20, "it is known to be away");
        first
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_waits_for_an_api_server_that_was_there_and_a_person_does_not() {
        for (answers, patient) in [(0, true), (1, true)] {
            let seconds = waited(|cluster| cluster, answers).await;
            assert_eq!((120..=130).contains(&seconds), patient, "{answers} {seconds}");
        }
        for (answers, patient) in [(0, false), (1, true)] {
            let seconds = waited(|cluster| cluster.impatient().patient_once_reached(), answers).await;
            assert_eq!((120..=130).contains(&seconds), patient, "{answers} {seconds}");
            assert_eq!((10..=20).contains(&seconds), !patient, "{answers} {seconds}");
        }
        let seconds = waited(Cluster::impatient, 1).await;
        assert!((10..=20).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_server_that_says_when_to_come_again_is_heeded() {
        for (asked, pauses) in [(1, 1), (32, 32), (3600, 60)] {
            let status = Box::new(Status { code: 429, retry_after: Some(asked), ..Status::default() });
            let error = Error::Api { what: String::new(), status };
            assert_eq!(pause(1, &error).as_secs(), pauses);
        }
    }

    #[test]
    fn warnings_name_the_fields_that_are_dropped() {
        let mut headers = http::HeaderMap::new();
        for warning in [
            r#"299 - "unknown field \"spec.template.spec.hostnameOverride\"""#,
            r#"299 - "policy/v1beta1 PodDisruptionBudget is deprecated in v1.21+""#,
            r#"299 - "duplicate field \"spec.a\"""#,
            r#"299 - "unknown field \"metadata.b[0].c\"""#,
            r#"299 - "unknown field \"cut"#,
        ] {
            headers.append(header::WARNING, warning.parse().unwrap());
        }
        assert_eq!(unknown_fields(&headers), ["spec.template.spec.hostnameOverride", "metadata.b[0].c"]);
        assert!(unknown_fields(&http::HeaderMap::new()).is_empty());
    }
}
