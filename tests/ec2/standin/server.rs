//! The ways in: as the SDK's HTTP client, in memory; or over HTTP, for pods.

use super::Standin;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;

/// The access key and the region that a request was signed with: `Credential=KEY/DATE/REGION/ec2/aws4_request`.
fn signed(authorization: Option<&str>) -> Option<(String, String)> {
    let mut parts = authorization?.split_once("Credential=")?.1.split('/');
    Some((parts.next()?.to_owned(), parts.nth(1)?.to_owned()))
}

impl std::fmt::Debug for Standin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Standin")
    }
}

impl HttpClient for Standin {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Standin {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let signed = signed(request.headers().get("authorization"));
        let body = request.body().bytes().expect("a body in memory");
        let answer =
            signed.map_or_else(unsigned, |(key, region)| self.answer_to(&self.account_of(&key), &region, body));
        HttpConnectorFuture::ready(match answer {
            Some((status, body)) => Ok(HttpResponse::new(status.try_into().expect("a status"), body.into())),
            None => Err(ConnectorError::io("the connection was reset".into())),
        })
    }
}

fn unsigned() -> super::Answer {
    Some((401, "<Response><Errors><Error><Code>AuthFailure</Code><Message>AWS was not able to validate the provided access credentials</Message></Error></Errors></Response>".to_owned()))
}

impl Standin {
    /// Serves at an address until the process ends; answers with the address it has.
    pub(crate) fn serve(&self, address: SocketAddr) -> SocketAddr {
        let listener = std::net::TcpListener::bind(address).expect("an address to listen at");
        listener.set_nonblocking(true).expect("a listener");
        let bound = listener.local_addr().expect("an address");
        let standin = self.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let standin = standin.clone();
                    tokio::spawn(async move { standin.converse(stream).await });
                }
            });
        });
        bound
    }

    async fn converse(self, stream: tokio::net::TcpStream) {
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let standin = self.clone();
            async move {
                let authorization = request.headers().get("authorization").and_then(|value| value.to_str().ok());
                let signed = signed(authorization);
                let request_body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
                let answer = signed.map_or_else(unsigned, |(key, region)| {
                    standin.answer_to(&standin.account_of(&key), &region, &request_body)
                });
                // an answer that gets lost ends the connection: hyper does that when the service fails
                tokio::time::sleep(standin.on_its_way(&request_body)).await;
                let (status, body) = answer.ok_or_else(|| std::io::Error::other("the answer gets lost"))?;
                let response = hyper::Response::builder().status(status).header("content-type", "text/xml");
                response.body(Full::new(bytes::Bytes::from(body))).map_err(std::io::Error::other)
            }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
    }
}
