//! A small aggregated API: two kinds, neither of which knows anything of `resourceVersionMatch`, `limit` or etcd.
//!
//! - `gauges` count in revisions of their own, as APIs with a database do
//! - `mirrors` state the main etcd's newest revision whatever was asked for, as APIs do that list from a cache

use crate::api::{Api, eventually};
use crate::etcd::Etcd;
use crate::plane::ControlPlane;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) const GROUP: &str = "wells.example";
/// Objects of each kind.
pub(crate) const OBJECTS: usize = 5;
/// The revision of the gauges.
pub(crate) const OWN: &str = "7";

pub(crate) struct Aggregated {
    server: JoinHandle<()>,
}

impl Aggregated {
    /// Starts it on loopback and registers it, with a Service that is a name: nothing routes to pods here.
    pub(crate) async fn start(plane: &ControlPlane, api: &Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(serve(listener, acceptor(Path::new(plane.get("CA_FILE"))), plane.etcd()));
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "wells"},
            "spec": {"type": "ExternalName", "externalName": "127.0.0.1"}});
        api.post("/api/v1/namespaces/default/services", &service).await;
        let registration = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("v1.{GROUP}")},
            "spec": {"group": GROUP, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
                "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "wells", "port": port}}});
        api.post("/apis/apiregistration.k8s.io/v1/apiservices", &registration).await;
        api.wait_discovered(&format!("gauges.{GROUP}"), true).await;
        eventually("the aggregated API to be routed to", || async {
            api.call(http::Method::GET, &format!("/apis/{GROUP}/v1/gauges"), None).await.ok()
        })
        .await;
        Self { server }
    }
}

impl Drop for Aggregated {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The API server's own certificate will do: it isn't verified.
fn acceptor(ca: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(ca.with_file_name("apiserver.crt")).expect("a certificate");
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(ca.with_file_name("apiserver.key")).expect("a key");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a key of this certificate");
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, etcd: Etcd) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, etcd) = (acceptor.clone(), etcd.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| answer(request, etcd.clone()));
            // a client that goes away in the middle is no failure of the test
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(request: Request<Incoming>, etcd: Etcd) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let plural = path.rsplit('/').next().unwrap_or_default();
    let body = match plural {
        "v1" => Some(resources()),
        "gauges" => Some(list("Gauge", OWN)),
        "mirrors" => {
            // others write all the time, and this list shows it
            let exact = query.contains("resourceVersionMatch");
            let revision = if exact { etcd.go_on().await } else { etcd.revision().await };
            Some(list("Mirror", &revision.to_string()))
        }
        _ => None,
    };
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let bytes = Bytes::from(body.unwrap_or_default().to_string());
    let response = Response::builder().status(status).header("content-type", "application/json").body(Full::new(bytes));
    Ok(response.expect("a response"))
}

fn resources() -> Value {
    let resource = |plural: &str, kind: &str| json!({"name": plural, "singularName": kind.to_lowercase(), "kind": kind, "namespaced": true, "verbs": ["get", "list"]});
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1"),
        "resources": [resource("gauges", "Gauge"), resource("mirrors", "Mirror")]})
}

fn list(kind: &str, revision: &str) -> Value {
    let item = |number: usize| {
        let metadata = json!({"namespace": "default", "name": format!("{}-{number}", kind.to_lowercase())});
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata, "level": number})
    };
    json!({"kind": format!("{kind}List"), "apiVersion": format!("{GROUP}/v1"),
        "metadata": {"resourceVersion": revision}, "items": (0..OBJECTS).map(item).collect::<Vec<_>>()})
}
