//! etcd by its HTTP API, for what no API server does when it is asked: compact, now.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// One etcd.
#[derive(Clone)]
pub(crate) struct Etcd {
    address: String,
}

impl Etcd {
    pub(crate) fn at(endpoint: &str) -> Self {
        Self { address: endpoint.strip_prefix("http://").expect("an HTTP endpoint").to_owned() }
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let stream = TcpStream::connect(&self.address).await.expect("etcd listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("etcd speaks HTTP");
        let connection = tokio::spawn(connection);
        let request = http::Request::post(path)
            .header("host", &self.address)
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer of etcd");
        let status = response.status();
        let bytes = response.into_body().collect().await.expect("an answer of etcd").to_bytes();
        connection.abort();
        assert!(status.is_success(), "etcd answered {status}: {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).expect("JSON of etcd")
    }

    fn revision_in(answer: &Value) -> u64 {
        answer["header"]["revision"].as_str().and_then(|text| text.parse().ok()).expect("etcd's revision")
    }

    /// The revision that it is at.
    pub(crate) async fn revision(&self) -> u64 {
        let key = BASE64_STANDARD.encode("kubectl-backup-test");
        Self::revision_in(&self.post("/v3/kv/range", &json!({"key": key})).await)
    }

    /// Writes something that is nobody's, and so goes one revision on.
    pub(crate) async fn go_on(&self) -> u64 {
        let key = BASE64_STANDARD.encode("kubectl-backup-test");
        Self::revision_in(&self.post("/v3/kv/put", &json!({"key": key, "value": key})).await)
    }

    /// Puts a value in the place of what an API server has stored.
    pub(crate) async fn put(&self, key: &str, value: &str) {
        let (key, value) = (BASE64_STANDARD.encode(key), BASE64_STANDARD.encode(value));
        self.post("/v3/kv/put", &json!({"key": key, "value": value})).await;
    }

    /// Forgets all revisions up to now.
    pub(crate) async fn compact(&self) {
        let now = self.go_on().await;
        self.post("/v3/kv/compaction", &json!({"revision": now, "physical": true})).await;
    }
}
