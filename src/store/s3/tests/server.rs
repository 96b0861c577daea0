//! An HTTP server on loopback that does to each request what a function says, broken connections included.

use bytes::Bytes;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    headers: Vec<(String, String)>,
    pub(super) body: Bytes,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// What a request gets.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// A whole answer.
    Whole { status: u16, headers: Vec<(&'static str, String)>, body: Bytes },
    /// An answer that claims more bytes than come, after which the connection is closed.
    Cut { status: u16, headers: Vec<(&'static str, String)>, body: Bytes, claimed: usize },
    /// The same, but nothing more happens.
    Stalled { status: u16, headers: Vec<(&'static str, String)>, body: Bytes, claimed: usize },
    /// The connection is reset.
    Reset,
    /// The connection is closed without a word.
    Closed,
    /// Nothing happens.
    Silence,
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Whole { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Whole { headers, .. } | Self::Cut { headers, .. } | Self::Stalled { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    /// An error as S3 tells it.
    pub(super) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
             <RequestId>4442587FB7D0A2F9</RequestId></Error>"
        );
        Self::new(status, body).with("content-type", "application/xml")
    }

    /// The first bytes of an answer, with the length of all.
    pub(super) fn cut(self, after: usize) -> Self {
        match self {
            Self::Whole { status, headers, body } => {
                Self::Cut { status, headers, claimed: body.len(), body: body.slice(..after) }
            }
            other => other,
        }
    }

    /// The first half of an answer that has a body.
    pub(super) fn half(self, stalled: bool) -> Self {
        let Self::Whole { body, .. } = &self else { return self };
        let after = body.len() / 2;
        if stalled { self.stalled(after) } else { self.cut(after) }
    }

    pub(super) fn stalled(self, after: usize) -> Self {
        match self.cut(after) {
            Self::Cut { status, headers, body, claimed } => Self::Stalled { status, headers, body, claimed },
            other => other,
        }
    }
}

/// The server. It ends when it is dropped.
pub(super) struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server whose answers a function chooses.
    pub(super) async fn start(answer: impl FnMut(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(Mutex::new(answer)));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                // else a body waits 40 ms for its head to be acknowledged
                socket.set_nodelay(true).unwrap();
                connections.spawn(async move {
                    let mut socket = socket;
                    let Some(request) = read(&mut socket).await else { return };
                    log.lock().unwrap().push(request.clone());
                    let answer = (answer.lock().unwrap())(&request);
                    reply(socket, &request, answer).await;
                });
            }
        });
        Self { port, seen, task }
    }

    /// Starts a server that gives these answers, one after the other, the last one for ever.
    pub(super) async fn script(answers: Vec<Answer>) -> Self {
        let mut answers = answers.into_iter().peekable();
        let mut last = None;
        Self::start(move |_| {
            last = answers.next().or(last.take());
            last.clone().unwrap()
        })
        .await
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests so far.
    pub(super) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(socket: &mut TcpStream) -> Option<Request> {
    let mut got = Vec::new();
    let head_end = loop {
        if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if socket.read_buf(&mut got).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(got[..head_end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if find("expect").is_some() {
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
    }
    let length = head_end + find("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while got.len() < length {
        if socket.read_buf(&mut got).await.ok()? == 0 {
            return None;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body = Bytes::copy_from_slice(&got[head_end..length]);
    Some(Request { method, path: path.to_owned(), query: query.to_owned(), headers, body })
}

async fn reply(mut socket: TcpStream, request: &Request, answer: Answer) {
    let (status, headers, body, claimed) = match &answer {
        Answer::Whole { status, headers, body } => (status, headers, body, body.len()),
        Answer::Cut { status, headers, body, claimed } | Answer::Stalled { status, headers, body, claimed } => {
            (status, headers, body, *claimed)
        }
        Answer::Closed => return,
        Answer::Reset => return socket.set_zero_linger().unwrap(),
        Answer::Silence => return std::future::pending().await,
    };
    let mut text = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| *name == "transfer-encoding") && *status != 204 {
        text.push_str(&format!("content-length: {claimed}\r\n"));
    }
    text.push_str("\r\n");
    let body: &[u8] = if request.method == "HEAD" { b"" } else { body };
    // Who asked may have gone: then there is nobody to tell.
    let _ = socket.write_all(text.as_bytes()).await;
    let _ = socket.write_all(body).await;
    let _ = socket.flush().await;
    match answer {
        Answer::Stalled { .. } => std::future::pending().await,
        _ => {
            let _ = socket.shutdown().await;
        }
    }
}
