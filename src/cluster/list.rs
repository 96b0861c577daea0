//! Lists: pages as raw streams, pinned to one etcd revision; and what pinning needs, the revisions themselves.

use super::call::{Call, TRIES, chunks, gathered};
use super::{Cluster, Error, about};
use crate::resource::{Kind, ObjectName};
use bytes::Bytes;
use futures::Stream;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// Asks for metadata only; servers of aggregated APIs that can't do that answer with the whole.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// The kind to list.
    pub kind: &'a Kind,
    /// One namespace, or all of them (and cluster-scoped kinds).
    pub namespace: Option<&'a str>,
    /// The revision to list at, exactly; `None`: the newest.
    pub revision: Option<&'a str>,
    /// Where the page before this ended; its revision goes on then.
    pub token: Option<&'a str>,
    /// Only the object of this name.
    pub name: Option<&'a str>,
    /// Only objects whose labels match.
    pub selector: Option<&'a str>,
    /// Objects at most.
    pub limit: u32,
    /// How often it is asked for while the API server gives no page: [`TRIES`], or fewer where many pages are likely to
    /// fail in the same way.
    pub tries: u32,
}

impl Page<'_> {
    pub(super) fn call(&self) -> Call {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut query = format!("?limit={}", self.limit);
        match (self.token, self.revision) {
            (Some(token), _) => query += &format!("&continue={}", encode(token)),
            (None, Some(revision)) => {
                query += &format!("&resourceVersion={}&resourceVersionMatch=Exact", encode(revision));
            }
            (None, None) => (),
        }
        if let Some(name) = self.name {
            query += &format!("&fieldSelector=metadata.name%3D{}", encode(name));
        }
        if let Some(selector) = self.selector {
            query += &format!("&labelSelector={}", encode(selector));
        }
        let uri = self.kind.list_path(self.namespace) + &query;
        Call { secret: self.kind.is("secrets"), ..Call::get(about("listing", self.kind, self.namespace), uri) }
    }
}

/// What a list says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    /// The revision it was read at.
    pub resource_version: String,
    /// Where the next page begins; empty on the last one.
    #[serde(rename = "continue")]
    pub token: String,
    /// How many objects come after this page, where the API server says so.
    #[serde(rename = "remainingItemCount")]
    pub remaining: Option<u64>,
}

impl ListMeta {
    /// How many objects there are, about, where this is said of a page of one; `None` where the API server doesn't count.
    pub fn objects(&self) -> Option<u64> {
        if self.token.is_empty() { Some(1) } else { self.remaining.map(|more| more + 1) }
    }
}

#[derive(Deserialize)]
struct MetaOnly {
    metadata: ListMeta,
}

#[derive(Deserialize)]
struct Counted {
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<serde::de::IgnoredAny>>,
}

/// What a metadata-only list tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// Its `metadata.uid`.
    pub uid: String,
}

#[derive(Deserialize)]
struct MetaList {
    // every list states it: `{}` is no list, and must not be taken for an empty one
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<MetaItem>>,
}

#[derive(Deserialize)]
struct MetaItem {
    metadata: MetaFields,
}

#[derive(Deserialize)]
struct MetaFields {
    name: String,
    namespace: Option<String>,
    #[serde(default)]
    uid: String,
}

/// Objects in a page of metadata.
const METADATA_PAGE: u32 = 1000;
/// How often a list of names is begun when its revision is compacted between two of its pages.
const NAME_LISTS: u32 = 3;

impl Cluster {
    /// Opens a page: the body's chunks as they come. What fails before the first byte was tried again already; what
    /// breaks off later is for the caller, who knows what was used of it.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn open_page(
        &self,
        page: &Page<'_>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        let call = page.call();
        let response = self.answer(&call, page.tries).await?;
        Ok(Box::pin(gathered(chunks(call.what, response.into_body()))))
    }

    /// What a kind's newest list says of itself, at the price of one object: its revision, and how many more there are. Of
    /// all namespaces or of one.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn newest(&self, kind: &Kind, namespace: Option<&str>) -> Result<ListMeta, Error> {
        let page =
            Page { kind, namespace, revision: None, token: None, name: None, selector: None, limit: 1, tries: TRIES };
        let call = Call { accept: METADATA, ..page.call() };
        Ok(self.json::<MetaOnly>(&call).await?.metadata)
    }

    /// How many objects a kind had at a revision, at the price of one: what etcd counts at it (a list without selectors
    /// states how many follow a page). `None` where the API server doesn't say, or says it of another revision.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries; 410 where the revision is no longer kept.
    pub async fn count_at(&self, kind: &Kind, namespace: Option<&str>, revision: &str) -> Result<Option<u64>, Error> {
        let revision = Some(revision);
        let page = Page { kind, namespace, revision, token: None, name: None, selector: None, limit: 1, tries: TRIES };
        let call = Call { accept: METADATA, ..page.call() };
        let Counted { metadata, items } = self.json(&call).await?;
        let first = items.map_or(0, |items| items.len() as u64);
        Ok(match metadata {
            ListMeta { resource_version, .. } if Some(resource_version.as_str()) != revision => None,
            ListMeta { token, .. } if token.is_empty() => Some(first),
            ListMeta { remaining, .. } => remaining.map(|remaining| first + remaining),
        })
    }

    /// Names and uids of all objects of a kind, page by page, without their content.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn list_names(&self, kind: &Kind, namespace: Option<&str>) -> Result<Vec<Listed>, Error> {
        let mut lists = 1;
        loop {
            match self.names(kind, namespace, None).await {
                Err(error) if error.is_expired() && lists < NAME_LISTS => lists += 1,
                other => return other,
            }
        }
    }

    /// Names and uids of all objects that a kind had at a revision; `None`: that it has now.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries; 410 where the revision is no longer kept.
    pub async fn list_names_at(&self, kind: &Kind, revision: Option<&str>) -> Result<Vec<Listed>, Error> {
        match revision {
            Some(_) => self.names(kind, None, revision).await,
            None => self.list_names(kind, None).await,
        }
    }

    async fn names(&self, kind: &Kind, namespace: Option<&str>, revision: Option<&str>) -> Result<Vec<Listed>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let page = Page {
                kind,
                namespace,
                revision,
                token: (!token.is_empty()).then_some(token.as_str()),
                name: None,
                selector: None,
                limit: METADATA_PAGE,
                tries: TRIES,
            };
            let call = Call { accept: METADATA, ..page.call() };
            let list: MetaList = self.json(&call).await?;
            all.extend(list.items.unwrap_or_default().into_iter().map(|item| Listed {
                name: ObjectName { namespace: item.metadata.namespace, name: item.metadata.name },
                uid: item.metadata.uid,
            }));
            token = list.metadata.token;
            if token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// The API server's version, as it says itself, such as `v1.36.3`.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn version(&self) -> Result<String, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let version: Version = self.json(&Call::get("asking for the API server's version", "/version")).await?;
        Ok(version.git_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_ask_for_one_revision_until_a_token_carries_it() {
        let kind = Kind {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
            namespaced: true,
        };
        let page = Page {
            kind: &kind,
            namespace: Some("shop"),
            revision: Some("42"),
            token: None,
            name: None,
            selector: None,
            limit: 7,
            tries: 1,
        };
        let path = "/apis/apps/v1/namespaces/shop/deployments?limit=7";
        assert_eq!(page.call().uri, format!("{path}&resourceVersion=42&resourceVersionMatch=Exact"));
        let next = Page { token: Some("a=/"), ..page.clone() };
        assert_eq!(next.call().uri, format!("{path}&continue=a%3D%2F"));
        let matching = Page { selector: Some("app in (a,b)"), ..next.clone() };
        assert!(matching.call().uri.ends_with("&labelSelector=app%20in%20%28a%2Cb%29"), "{}", matching.call().uri);
        let named = Page { name: Some("a:b"), revision: None, namespace: None, ..page };
        assert_eq!(named.call().uri, "/apis/apps/v1/deployments?limit=7&fieldSelector=metadata.name%3Da%3Ab");
    }
}
