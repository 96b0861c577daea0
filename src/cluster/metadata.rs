//! Lists of metadata, of which only what a caller picks is kept: at the price of a page, whatever the cluster's size.

use super::call::Call;
use super::list::ListMeta;
use super::{Cluster, Error, about};
use crate::resource::Kind;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Asks for metadata only; a server that can't do that answers with the whole.
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// Objects in a page.
const PAGE: u32 = 500;

#[derive(Deserialize)]
struct Page {
    // every list states it: `{}` is no list, and must not be taken for an empty one
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Box<RawValue>>>,
}

impl Cluster {
    /// Lists the newest state of a kind and keeps what `pick` makes of each object's JSON, which has its metadata for
    /// certain and the rest perhaps. Starts once more when the list's revision is compacted on the way.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn pick<T>(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        match self.picked(kind, namespace, &pick).await {
            Err(error) if error.is_expired() => self.picked(kind, namespace, &pick).await,
            other => other,
        }
    }

    async fn picked<T>(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        pick: &impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut kept = Vec::new();
        let mut token = String::new();
        loop {
            let mut uri = format!("{}?limit={PAGE}", kind.list_path(namespace));
            if !token.is_empty() {
                uri += &format!("&continue={}", utf8_percent_encode(&token, NON_ALPHANUMERIC));
            }
            let what = about("listing", kind, namespace);
            let call = Call { accept: METADATA, secret: kind.is("secrets"), ..Call::get(what, uri) };
            let page: Page = self.json(&call).await?;
            kept.extend(page.items.unwrap_or_default().iter().filter_map(|item| pick(item.get())));
            token = page.metadata.token;
            if token.is_empty() {
                return Ok(kept);
            }
        }
    }
}
