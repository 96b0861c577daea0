//! Lists: pages as they come in, pinned to one etcd revision; and what pinning needs, the revisions themselves.

use super::call::{Call, TRIES};
use super::items::{Items, items};
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
    /// Where the page before this ended; its revision goes on then. Empty: the first page.
    pub token: &'a str,
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

impl<'a> Page<'a> {
    /// The first page of the newest list of all that a kind has, in one namespace or in all.
    pub fn first(kind: &'a Kind, namespace: Option<&'a str>, limit: u32) -> Self {
        Self { kind, namespace, revision: None, token: "", name: None, selector: None, limit, tries: TRIES }
    }

    pub(super) fn call(&self) -> Call {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut query = format!("?limit={}", self.limit);
        match (self.token, self.revision) {
            ("", Some(revision)) => {
                query += &format!("&resourceVersion={}&resourceVersionMatch=Exact", encode(revision));
            }
            ("", None) => (),
            (token, _) => query += &format!("&continue={}", encode(token)),
        }
        if let Some(name) = self.name {
            query += &format!("&fieldSelector=metadata.name%3D{}", encode(&escaped(name)));
        }
        if let Some(selector) = self.selector {
            query += &format!("&labelSelector={}", encode(selector));
        }
        let uri = self.kind.list_path(self.namespace) + &query;
        Call { secret: self.kind.is("secrets"), ..Call::get(about("listing", self.kind, self.namespace), uri) }
    }
}

/// A value in a field selector: names of RBAC objects may hold what separates its parts (`fields.EscapeValue` of
/// apimachinery).
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")
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
/// A namespace and a name that nobody gives.
const NOBODYS: &str = "kubectl-backup-asks-for-the-revision";
/// How often a list without objects is asked for: the list of all was asked for often enough before.
const TRIES_OF_NOTHING: u32 = 2;
/// How often a list of names is begun when its revision is compacted between two of its pages.
const NAME_LISTS: u32 = 3;

impl Cluster {
    /// Opens a page. What fails before the first byte was tried again already; what breaks off later is for the caller,
    /// who knows what was used of it.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn open_page(
        &self,
        page: &Page<'_>,
    ) -> Result<Items<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>>, Error> {
        let call = page.call();
        let answer = self.answer(&call, page.tries).await?;
        Ok(items(call.what, answer.into_body()))
    }

    /// What a kind's newest list says of itself, at the price of one object: its revision, and how many more there are. Of
    /// all namespaces or of one.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries.
    pub async fn newest(&self, kind: &Kind, namespace: Option<&str>) -> Result<ListMeta, Error> {
        Ok(self.said_by_page(&Page::first(kind, namespace, 1)).await?.0)
    }

    /// The same of a list that holds no object, so that none has to be read: of a name that nobody gives. `namespace` is where
    /// to ask, of kinds that are in one; any will do.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure.
    pub async fn newest_of_nothing(&self, kind: &Kind, namespace: Option<&str>) -> Result<ListMeta, Error> {
        let namespace = kind.namespaced.then_some(namespace.unwrap_or(NOBODYS));
        let (name, tries) = (Some(NOBODYS), TRIES_OF_NOTHING);
        let page = Page { name, tries, ..Page::first(kind, namespace, 1) };
        Ok(self.said_by_page(&page).await?.0)
    }

    /// What a page says of itself, and how many objects it holds: some aggregated APIs know no limit, so none of them is kept.
    async fn said_by_page(&self, page: &Page<'_>) -> Result<(ListMeta, u64), Error> {
        let call = Call { accept: METADATA, ..page.call() };
        let (objects, meta) = self.retried(page.tries, || self.picked_of_page(&call, &|_| Some(()))).await?;
        Ok((meta, objects.len() as u64))
    }

    /// How many objects a kind had at a revision, at the price of one: what etcd counts at it (a list without selectors
    /// states how many follow a page). `None` where the API server doesn't say, or says it of another revision.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries; 410 where the revision is no longer kept.
    pub async fn count_at(&self, kind: &Kind, namespace: Option<&str>, revision: &str) -> Result<Option<u64>, Error> {
        let revision = Some(revision);
        let page = Page { revision, ..Page::first(kind, namespace, 1) };
        let (said, first) = self.said_by_page(&page).await?;
        Ok(match said {
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
            let page = Page { revision, token: &token, ..Page::first(kind, namespace, METADATA_PAGE) };
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
        let page = Page { revision: Some("42"), ..Page::first(&kind, Some("shop"), 7) };
        let path = "/apis/apps/v1/namespaces/shop/deployments?limit=7";
        assert_eq!(page.call().uri, format!("{path}&resourceVersion=42&resourceVersionMatch=Exact"));
        let next = Page { token: "a=/", ..page.clone() };
        assert_eq!(next.call().uri, format!("{path}&continue=a%3D%2F"));
        let matching = Page { selector: Some("app in (a,b)"), ..next.clone() };
        assert!(matching.call().uri.ends_with("&labelSelector=app%20in%20%28a%2Cb%29"), "{}", matching.call().uri);
        let named = Page { name: Some("a:b"), revision: None, namespace: None, ..page };
        assert_eq!(named.call().uri, "/apis/apps/v1/deployments?limit=7&fieldSelector=metadata.name%3Da%3Ab");
        let odd = Page { name: Some(r"a=b,c\d"), ..named };
        assert!(
            odd.call().uri.ends_with("&fieldSelector=metadata.name%3Da%5C%3Db%5C%2Cc%5C%5Cd"),
            "{}",
            odd.call().uri
        );
    }
}
