//! A small S3 in memory with faults: enough to see what an upload leaves behind. What it models: `PutObject` with
//! `If-None-Match`, multipart uploads (each part comes with a CRC-32) and their list, `GetObject` with ranges, `HeadObject`,
//! `DeleteObject`, `ListObjectsV2`, and that a completed upload can't be completed again. Lists are one page, and say
//! that all was written just now. `tests/faults` has it too.

use super::server::{Answer, Request, Server};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use url::form_urlencoded;

/// What S3 holds.
#[derive(Default)]
pub(super) struct Held {
    pub(super) objects: BTreeMap<String, Bytes>,
    pub(super) uploads: BTreeMap<String, Begun>,
    begun: u32,
}

/// A multipart upload that has not ended.
pub(super) struct Begun {
    path: String,
    parts: BTreeMap<u32, Bytes>,
}

/// What is done to a request.
pub(super) enum Fault {
    /// It is answered.
    None,
    /// It has no effect, and gets this.
    Before(Answer),
    /// It has its effect, but gets this.
    After(Answer),
    /// It has its effect, and half of the answer comes: then the connection is closed, or nothing more happens.
    #[allow(dead_code, reason = "`tests/faults` makes it")]
    Half { stalled: bool },
}

/// The server and what it holds.
pub(super) struct Fake {
    pub(super) server: Server,
    pub(super) held: Arc<Mutex<Held>>,
}

impl Fake {
    /// Starts it. The function is told the S3 action and how often it was asked for, this time included.
    pub(super) async fn start(mut fault: impl FnMut(&'static str, u32) -> Fault + Send + 'static) -> Self {
        let mut asked = BTreeMap::<&'static str, u32>::new();
        let counted = move |action, _: &Request| {
            let times = asked.entry(action).or_default();
            *times += 1;
            fault(action, *times)
        };
        Self::start_on(Arc::default(), counted).await
    }

    /// Another server for what one holds. The function is told the S3 action, and all of the request.
    pub(super) async fn start_on(
        held: Arc<Mutex<Held>>,
        mut fault: impl FnMut(&'static str, &Request) -> Fault + Send + 'static,
    ) -> Self {
        let answering = Arc::clone(&held);
        let server = Server::start(move |request| {
            let action = action(request);
            let fault = fault(action, request);
            if let Fault::Before(answer) = fault {
                return answer;
            }
            let answer = answering.lock().unwrap().answer(action, request);
            match (fault, answer) {
                (Fault::After(other), _) => other,
                (Fault::Half { stalled }, Answer::Whole { body, .. }) if body.is_empty() || action == "HeadObject" => {
                    if stalled {
                        Answer::Silence
                    } else {
                        Answer::Closed
                    }
                }
                (Fault::Half { stalled }, answer @ Answer::Whole { .. }) => answer.half(stalled),
                (_, answer) => answer,
            }
        })
        .await;
        Self { server, held }
    }

    /// How often an action was asked for.
    pub(super) fn asked(&self, name: &str) -> usize {
        self.server.seen().iter().filter(|request| action(request) == name).count()
    }

    pub(super) fn object(&self, key: &str) -> Option<Bytes> {
        self.held.lock().unwrap().objects.get(&format!("/bucket/pre/{key}")).cloned()
    }

    pub(super) fn pending(&self) -> usize {
        self.held.lock().unwrap().uploads.len()
    }
}

/// The S3 action that a request asks for.
pub(super) fn action(request: &Request) -> &'static str {
    let (uploads, id) = (request.query.contains("uploads"), request.query.contains("uploadId="));
    match (request.method.as_str(), uploads, id) {
        ("POST", true, _) => "CreateMultipartUpload",
        ("POST", _, true) => "CompleteMultipartUpload",
        ("PUT", _, true) => "UploadPart",
        ("PUT", ..) => "PutObject",
        ("DELETE", _, true) => "AbortMultipartUpload",
        ("DELETE", ..) => "DeleteObject",
        ("HEAD", ..) => "HeadObject",
        ("GET", true, _) => "ListMultipartUploads",
        ("GET", ..) if request.query.contains("list-type=2") => "ListObjectsV2",
        _ => "GetObject",
    }
}

fn query<'a>(request: &'a Request, key: &str) -> &'a str {
    let pairs = request.query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(name, _)| *name == key).map(|(_, value)| value).unwrap()
}

impl Held {
    fn answer(&mut self, action: &str, request: &Request) -> Answer {
        let gone = || Answer::error(404, "NoSuchUpload", "The specified upload does not exist.");
        match action {
            "PutObject" if self.objects.contains_key(&request.path) => Answer::error(
                412,
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
            ),
            "PutObject" => {
                self.objects.insert(request.path.clone(), request.body.clone());
                Answer::new(200, "").with("etag", "\"x\"")
            }
            "CreateMultipartUpload" => {
                self.begun += 1;
                let begun = Begun { path: request.path.clone(), parts: BTreeMap::new() };
                self.uploads.insert(self.begun.to_string(), begun);
                let id = format!("<UploadId>{}</UploadId>", self.begun);
                Answer::new(200, format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"))
            }
            "UploadPart" => {
                let Some(crc) = request.header("x-amz-checksum-crc32") else {
                    return Answer::error(400, "InvalidRequest", "no checksum");
                };
                let Some(begun) = self.uploads.get_mut(query(request, "uploadId")) else { return gone() };
                begun.parts.insert(query(request, "partNumber").parse().unwrap(), request.body.clone());
                Answer::new(200, "").with("etag", "\"x\"").with("x-amz-checksum-crc32", crc)
            }
            "CompleteMultipartUpload" => {
                let Some(Begun { parts, .. }) = self.uploads.remove(query(request, "uploadId")) else { return gone() };
                let told = String::from_utf8_lossy(&request.body).matches("<ChecksumCRC32>").count();
                assert_eq!(told, parts.len(), "all parts are named with their checksums");
                let parts: Vec<Bytes> = parts.into_values().collect();
                self.objects.insert(request.path.clone(), parts.concat().into());
                Answer::new(200, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
            }
            "AbortMultipartUpload" => match self.uploads.remove(query(request, "uploadId")) {
                Some(_) => Answer::new(204, ""),
                None => gone(),
            },
            "DeleteObject" => {
                self.objects.remove(&request.path);
                Answer::new(204, "")
            }
            "ListObjectsV2" => {
                let below = self.objects.iter().filter_map(|(path, body)| Some((wanted(request, path)?, body)));
                let entry = |(key, body): (&str, &Bytes)| {
                    let (size, now) = (body.len(), Timestamp::now());
                    format!(
                        "<Contents><Key>{key}</Key><Size>{size}</Size><LastModified>{now}</LastModified></Contents>"
                    )
                };
                let entries: String = below.map(entry).collect();
                Answer::new(
                    200,
                    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"),
                )
            }
            "ListMultipartUploads" => {
                let below = self.uploads.iter().filter_map(|(id, begun)| Some((id, wanted(request, &begun.path)?)));
                let entry = |(id, key): (&String, &str)| {
                    let now = Timestamp::now();
                    format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{now}</Initiated></Upload>")
                };
                let entries: String = below.map(entry).collect();
                Answer::new(200, format!("<ListMultipartUploadsResult>{entries}</ListMultipartUploadsResult>"))
            }
            _ => match self.objects.get(&request.path) {
                Some(body) => got(request, body),
                None => Answer::error(404, "NoSuchKey", "The specified key does not exist."),
            },
        }
    }
}

/// The key that a path means, where a list asks for it.
fn wanted<'a>(request: &Request, path: &'a str) -> Option<&'a str> {
    let key = path.strip_prefix(request.path.trim_end_matches('/'))?.strip_prefix('/')?;
    let prefix = form_urlencoded::parse(request.query.as_bytes()).find(|(name, _)| name == "prefix");
    prefix.is_none_or(|(_, prefix)| key.starts_with(prefix.as_ref())).then_some(key)
}

/// A body, or the range of it that was asked for.
fn got(request: &Request, body: &Bytes) -> Answer {
    let Some(range) = request.header("range") else { return Answer::new(200, body.clone()) };
    let (from, to) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap();
    let (from, to) = (from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap() + 1);
    let told = format!("bytes {from}-{}/{}", to - 1, body.len());
    Answer::new(206, body.slice(from..to)).with("content-range", told)
}
