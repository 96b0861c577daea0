//! A small S3 in memory with faults: enough to see what an upload leaves behind. What it models: `PutObject` with
//! `If-None-Match`, multipart uploads (parts are checked for their CRC-32), `GetObject`, `HeadObject`, and that a
//! completed upload can't be completed again.

use super::server::{Answer, Request, Server};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What S3 holds.
#[derive(Default)]
pub(super) struct Held {
    pub(super) objects: BTreeMap<String, Bytes>,
    pub(super) uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    begun: u32,
}

/// What is done to a request.
pub(super) enum Fault {
    /// It is answered.
    None,
    /// It has no effect, and gets this.
    Before(Answer),
    /// It has its effect, but gets this.
    After(Answer),
}

/// The server and what it holds.
pub(super) struct Fake {
    pub(super) server: Server,
    pub(super) held: Arc<Mutex<Held>>,
}

impl Fake {
    /// Starts it. The function is told the S3 action and how often it was asked for, this time included.
    pub(super) async fn start(mut fault: impl FnMut(&'static str, u32) -> Fault + Send + 'static) -> Self {
        let held = Arc::new(Mutex::new(Held::default()));
        let answering = Arc::clone(&held);
        let mut asked = BTreeMap::<&'static str, u32>::new();
        let server = Server::start(move |request| {
            let action = action(request);
            let times = asked.entry(action).or_default();
            *times += 1;
            match fault(action, *times) {
                Fault::None => answering.lock().unwrap().answer(action, request),
                Fault::Before(answer) => answer,
                Fault::After(answer) => {
                    answering.lock().unwrap().answer(action, request);
                    answer
                }
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
                self.uploads.insert(self.begun.to_string(), BTreeMap::new());
                let id = format!("<UploadId>{}</UploadId>", self.begun);
                Answer::new(200, format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"))
            }
            "UploadPart" => {
                let Some(crc) = request.header("x-amz-checksum-crc32") else {
                    return Answer::error(400, "InvalidRequest", "no checksum");
                };
                let Some(parts) = self.uploads.get_mut(query(request, "uploadId")) else { return gone() };
                parts.insert(query(request, "partNumber").parse().unwrap(), request.body.clone());
                Answer::new(200, "").with("etag", "\"x\"").with("x-amz-checksum-crc32", crc)
            }
            "CompleteMultipartUpload" => {
                let Some(parts) = self.uploads.remove(query(request, "uploadId")) else { return gone() };
                let told = String::from_utf8_lossy(&request.body).matches("<ChecksumCRC32>").count();
                assert_eq!(told, parts.len(), "all parts are named with their checksums");
                self.objects.insert(request.path.clone(), parts.into_values().flatten().collect());
                Answer::new(200, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
            }
            "AbortMultipartUpload" => match self.uploads.remove(query(request, "uploadId")) {
                Some(_) => Answer::new(204, ""),
                None => gone(),
            },
            _ => match self.objects.get(&request.path) {
                Some(body) => Answer::new(200, body.clone()),
                None => Answer::error(404, "NoSuchKey", "The specified key does not exist."),
            },
        }
    }
}
