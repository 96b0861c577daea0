//! Asks the API server what we may do, before doing it.

use super::call::Call;
use super::{Cluster, Error};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Review {
    status: Answer,
}

#[derive(Deserialize)]
struct Answer {
    allowed: bool,
}

impl Cluster {
    /// Whether we may do this to a subresource of the core group in a namespace, or in all of them. Every account may
    /// ask that (Kubernetes' own role `system:basic-user`).
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn may(
        &self,
        verb: &str,
        resource: &str,
        subresource: &str,
        namespace: Option<&str>,
    ) -> Result<bool, Error> {
        let attributes = json!({
            "namespace": namespace.unwrap_or_default(), "verb": verb, "group": "", "resource": resource,
            "subresource": subresource,
        });
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let what = format!("asking whether `{verb}` on `{resource}/{subresource}` is allowed");
        // it is asked, nothing is stored: as harmless to repeat as a read
        let call = Call {
            method: Method::POST,
            body: Bytes::from(body.to_string()),
            ..Call::get(what, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        };
        Ok(self.json::<Review>(&call).await?.status.allowed)
    }
}
