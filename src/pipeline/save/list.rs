//! Lists one kind, page by page, cuts its items out of the stream, and fills frames with those that are selected.

use super::frames::{Filling, Frames};
use super::page_size::PageSize;
use crate::archive::frame::Object;
use crate::cluster::items::Items;
use crate::cluster::list::{ListMeta, Page};
use crate::cluster::{Cluster, Error as ClusterError};
use crate::pipeline::Error;
use crate::resource::{Kind, ObjectName};
use crate::rules::Labels;
use crate::runtime::Reading;
use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

/// How often a page is opened that breaks off in the middle and doesn't get further than before: the API server breaks off
/// what takes us 60 s, as it may where the bucket is slow, and what was looked at already takes no time.
const PAGE_TRIES: u32 = 5;

/// What of an item the backup itself needs to know.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) metadata: ItemMeta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ItemMeta<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_empty")]
    pub(super) namespace: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_empty")]
    uid: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "or_empty")]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) labels: Labels<'a>,
}

/// A text, or `null` as some aggregated APIs write what they have not.
fn or_empty<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, str>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(Option::<Text<'a>>::deserialize(from)?.map_or(Cow::Borrowed(""), |text| text.0))
}

/// What to do with an item.
pub(super) enum Choice {
    /// Save it.
    Take,
    /// Leave it out, by this rule.
    Omit(&'static str),
    /// It is in a place that was asked for, and the flags leave it out.
    Other,
    /// It was not asked for.
    Pass,
}

/// Looks at each item of a list, before it is saved.
pub(super) trait Chooser: FnMut(&Item<'_>, &str) -> Choice + Send {}
impl<F: FnMut(&Item<'_>, &str) -> Choice + Send> Chooser for F {}

/// One list to make.
#[derive(Clone, Debug)]
pub(super) struct ListTask {
    pub(super) kind: Kind,
    /// One namespace, or all.
    pub(super) namespace: Option<String>,
    /// Only the object of this name.
    pub(super) name: Option<String>,
    /// Only objects whose labels match, as far as the API server looks at them.
    pub(super) selector: Option<String>,
    /// How often each page is asked for.
    pub(super) tries: u32,
    /// Whether the API server looks for what the flags ask for, so that the other objects are not read.
    pub(super) leaves_others: bool,
}

/// What a list gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// The revision it was read at, as its first page says.
    pub(super) revision: String,
    /// The last item that was looked at, as etcd orders them: namespace, `/`, name.
    pub(super) last: String,
    /// Whether an item came out of that order, so that nobody can tell what a list would still have given that broke
    /// off. The API servers of aggregated APIs may do that.
    pub(super) unordered: bool,
    /// Items that came and their bytes, whatever became of them; those of a page that was read again, again.
    pub(super) came: (u64, u64),
    /// What was left out, by rule.
    pub(super) omitted: BTreeMap<&'static str, u64>,
    /// Objects that the flags leave out.
    pub(super) others: u64,
}

/// A page that is being read.
struct OpenPage<'a, 'f, C> {
    kind: &'a Kind,
    frame: &'a mut Filling<'f>,
    chooser: &'a mut C,
    listed: &'a mut Listed,
    seen: &'a mut Seen,
    passed_over: &'a str,
    /// Items of this page so far, in this reading of it.
    position: u64,
}

/// What of a page was used before it broke off, so that nothing is taken twice when it is read again.
#[derive(Default)]
struct Seen {
    /// Whether the page will be the same when it is read again.
    pinned: bool,
    items: u64,
    names: HashSet<String>,
}

/// Makes a list and sends its frames. `revision` is the one to read at. `listed` is what an earlier try gave: what it
/// looked at already, in etcd's order, is passed over.
///
/// # Errors
/// When a page can't be had after all tries, or the frames' receiver is gone. What was read before is sent, and noted
/// in `listed`.
pub(super) async fn list(
    cluster: &Cluster,
    task: &ListTask,
    revision: Option<&str>,
    frames: &Frames,
    listed: &mut Listed,
    mut chooser: impl Chooser,
) -> Result<(), Error> {
    let mut frame = Filling::new(&task.kind, frames);
    let pages = all_pages(cluster, task, revision, &mut frame, listed, &mut chooser).await;
    frame.finish().await?;
    pages
}

/// Reads the one object that a list by name would give, as it is now, where it is there.
///
/// # Errors
/// When it can't be had, or the frames' receiver is gone.
pub(super) async fn one(
    cluster: &Cluster,
    task: &ListTask,
    frames: &Frames,
    listed: &mut Listed,
    mut chooser: impl Chooser,
) -> Result<(), Error> {
    let name = ObjectName::new(task.namespace.as_deref(), task.name.as_deref().unwrap_or_default());
    let Some(bytes) = cluster.get(&task.kind, &name).await? else { return Ok(()) };
    let mut frame = Filling::new(&task.kind, frames);
    let mut seen = Seen::default();
    let mut open = OpenPage {
        kind: &task.kind,
        frame: &mut frame,
        chooser: &mut chooser,
        listed,
        seen: &mut seen,
        passed_over: "",
        position: 0,
    };
    let json = std::str::from_utf8(&bytes).map_err(|_| open.invalid())?;
    open.item(json)?;
    frame.finish().await
}

async fn all_pages<C: Chooser>(
    cluster: &Cluster,
    task: &ListTask,
    revision: Option<&str>,
    frame: &mut Filling<'_>,
    listed: &mut Listed,
    chooser: &mut C,
) -> Result<(), Error> {
    let passed_over = listed.last.clone();
    let mut token = String::new();
    let mut size = PageSize::new(revision.is_some());
    loop {
        let (objects, bytes) = listed.came;
        let page = Page {
            kind: &task.kind,
            namespace: task.namespace.as_deref(),
            revision,
            token: &token,
            name: task.name.as_deref(),
            selector: task.selector.as_deref(),
            limit: size.next(),
            tries: task.tries,
        };
        let meta = whole_page(cluster, &page, frame, listed, chooser, &passed_over).await?;
        size.note(listed.came.0 - objects, listed.came.1 - bytes);
        if token.is_empty() {
            listed.revision = meta.resource_version;
        }
        token = meta.token;
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// Reads a page to its end, again from where it broke off.
async fn whole_page<C: Chooser>(
    cluster: &Cluster,
    page: &Page<'_>,
    frame: &mut Filling<'_>,
    listed: &mut Listed,
    chooser: &mut C,
    passed_over: &str,
) -> Result<ListMeta, Error> {
    let mut seen = Seen { pinned: page.revision.is_some() || !page.token.is_empty(), ..Seen::default() };
    let mut tried = 0;
    loop {
        tried += 1;
        let before = seen.len();
        let mut open = OpenPage { kind: page.kind, frame, chooser, listed, seen: &mut seen, passed_over, position: 0 };
        // what fails before the first byte was tried often enough by then
        let items = cluster.open_page(page).await?;
        let read = read_page(items, &mut open).await;
        if seen.len() > before {
            tried = 1;
        }
        match read {
            Ok(meta) => return Ok(meta),
            Err(error) if tried == PAGE_TRIES => return Err(error),
            // it broke off, or a proxy's words stand in it
            Err(Error::Cluster(error)) if error.is_transient() || error.is_nonsense() => {
                tracing::debug!(%error, tried, "reading the page again");
                cluster.rest(tried, &error).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn read_page<C: Chooser>(
    mut items: Items<impl Stream<Item = Result<Bytes, ClusterError>> + Unpin>,
    open: &mut OpenPage<'_, '_, C>,
) -> Result<ListMeta, Error> {
    let _reading = Reading::new();
    while items.next(|json| open.item(json)).await? {
        open.frame.pass_on().await?;
    }
    Ok(items.meta()?)
}

impl<C: Chooser> OpenPage<'_, '_, C> {
    fn item(&mut self, json: &str) -> Result<(), Error> {
        self.position += 1;
        self.listed.came.0 += 1;
        self.listed.came.1 += json.len() as u64;
        let item: Item<'_> = serde_json::from_str(json).map_err(|_| self.invalid())?;
        if !self.seen.is_new(self.position, &item.metadata) {
            return Ok(());
        }
        let place = place_of(&item.metadata);
        if !self.passed_over.is_empty() && *place <= *self.passed_over {
            return Ok(());
        }
        self.listed.unordered |= *place < *self.listed.last;
        self.listed.last = place;
        match (self.chooser)(&item, json) {
            Choice::Pass => return Ok(()),
            Choice::Other => {
                self.listed.others += 1;
                return Ok(());
            }
            Choice::Omit(rule) => {
                *self.listed.omitted.entry(rule).or_default() += 1;
                return Ok(());
            }
            Choice::Take => (),
        }
        self.frame.push(&Object {
            namespace: self.kind.namespaced.then_some(&*item.metadata.namespace),
            name: &item.metadata.name,
            uid: &item.metadata.uid,
            resource_version: &item.metadata.resource_version,
            json: json.as_bytes(),
            lacks_type: item.api_version.is_empty(),
        })?;
        self.listed.objects += 1;
        self.listed.bytes += json.len() as u64;
        Ok(())
    }

    /// What the parser says of it might hold a Secret value.
    fn invalid(&self) -> ClusterError {
        let (what, number) = (format!("listing `{}`", self.kind), self.position);
        ClusterError::Answer { what, message: format!("item {number} is not valid JSON") }
    }
}

/// Where an item stands in etcd's order.
fn place_of(meta: &ItemMeta<'_>) -> String {
    if meta.namespace.is_empty() { meta.name.to_string() } else { format!("{}/{}", meta.namespace, meta.name) }
}

impl Seen {
    /// Items that were used.
    fn len(&self) -> u64 {
        if self.pinned { self.items } else { self.names.len() as u64 }
    }

    /// Whether an item was not used yet; notes it.
    fn is_new(&mut self, position: u64, meta: &ItemMeta<'_>) -> bool {
        if self.pinned {
            let new = position > self.items;
            self.items = self.items.max(position);
            new
        } else {
            self.names.insert(format!("{}/{}", meta.namespace, meta.name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_item_has_not_may_be_null() {
        for (namespace, expected) in [("", ""), (r#","namespace":null"#, ""), (r#","namespace":"shop""#, "shop")] {
            let json = format!(r#"{{"metadata":{{"name":"a\u0062","uid":null,"resourceVersion":"7"{namespace}}}}}"#);
            let item: Item<'_> = serde_json::from_str(&json).unwrap();
            assert_eq!((&*item.metadata.name, &*item.metadata.namespace, &*item.metadata.uid), ("ab", expected, ""));
            assert!(matches!(item.metadata.resource_version, Cow::Borrowed("7")), "nothing is copied");
        }
        assert!(serde_json::from_str::<Item<'_>>(r#"{"metadata":{"name":null}}"#).is_err());
    }
}
