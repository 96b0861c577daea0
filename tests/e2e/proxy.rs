//! A proxy between the pods and MinIO that can hold a request back, so that a test can act at a chosen moment of a run, and
//! let uploads look old.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Which requests to hold, and how many are held.
#[derive(Default)]
struct Gate {
    rule: Option<(String, String)>,
    /// Requests that the rule may still hold.
    left: usize,
    held: usize,
    /// Grows when held requests may go.
    released: u64,
    /// Whether uploads look as if they were begun years ago.
    aging: bool,
}

pub(crate) struct Proxy {
    gate: Arc<(Mutex<Gate>, Condvar)>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// A proxy on an address that pods reach.
    pub(crate) fn start() -> Self {
        let endpoint = crate::harness::world().s3("S3_ENDPOINT").trim_start_matches("http://").to_owned();
        let host = endpoint.split(':').next().expect("a host").to_owned();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((host, 0))).expect("a port");
        let address = listener.local_addr().expect("an address");
        let gate = Arc::new((Mutex::new(Gate::default()), Condvar::new()));
        runtime.spawn(accept(listener, endpoint, gate.clone()));
        Self { gate, address, runtime: Some(runtime) }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on holds the next `count` requests of this method whose path contains `path`.
    pub(crate) fn hold(&self, method: &str, path: &str, count: usize) {
        let mut gate = self.gate.0.lock().expect("the gate");
        gate.rule = Some((method.to_owned(), path.to_owned()));
        gate.left = count;
        gate.held = 0;
    }

    /// Waits until so many requests are held.
    #[track_caller]
    pub(crate) fn wait_held(&self, count: usize) {
        let gate = self.gate.0.lock().expect("the gate");
        let (gate, _) =
            self.gate.1.wait_timeout_while(gate, Duration::from_secs(90), |gate| gate.held < count).expect("the gate");
        assert!(gate.held >= count, "waited 90 s for a held request, in vain; {} are held", gate.held);
    }

    /// From now on multipart uploads are listed as if they were begun years ago.
    pub(crate) fn age_uploads(&self) {
        self.gate.0.lock().expect("the gate").aging = true;
    }

    /// Lets all held requests go, and holds the next one.
    pub(crate) fn next(&self) {
        let mut gate = self.gate.0.lock().expect("the gate");
        (gate.left, gate.held) = (1, 0);
        gate.released += 1;
        self.gate.1.notify_all();
    }

    /// Lets all held requests go, and holds no more.
    pub(crate) fn release(&self) {
        let mut gate = self.gate.0.lock().expect("the gate");
        gate.rule = None;
        gate.released += 1;
        self.gate.1.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.release();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, upstream: String, gate: Arc<(Mutex<Gate>, Condvar)>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (upstream, gate) = (upstream.clone(), gate.clone());
        let service = service_fn(move |request| forward(request, upstream.clone(), gate.clone()));
        tokio::spawn(async move {
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
    }
}

/// Forwards one request as it is; the host it was signed for stays.
async fn forward(
    request: Request<Incoming>,
    upstream: String,
    gate: Arc<(Mutex<Gate>, Condvar)>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let lists_uploads = method == "GET" && request.uri().query().is_some_and(|query| query.contains("uploads"));
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let waiting = {
        let mut inner = gate.0.lock().expect("the gate");
        let hit = inner.left > 0 && inner.rule.as_ref().is_some_and(|(m, p)| *m == method && path.contains(p.as_str()));
        if hit {
            inner.left -= 1;
            inner.held += 1;
            gate.1.notify_all();
        }
        hit.then_some(inner.released)
    };
    if let Some(before) = waiting {
        let gate = gate.clone();
        tokio::task::spawn_blocking(move || {
            let inner = gate.0.lock().expect("the gate");
            drop(gate.1.wait_while(inner, |inner| inner.released == before));
        })
        .await?;
    }
    let stream = TcpStream::connect(&upstream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
    let (parts, body) = response.into_parts();
    let mut body = body.collect().await?.to_bytes();
    if lists_uploads && gate.0.lock().expect("the gate").aging {
        // a year has four digits, so that the length stays
        body = String::from_utf8_lossy(&body).replace("<Initiated>20", "<Initiated>19").into();
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}
