//! Where many objects of a kind and namespace are to be compared, they are read by full pages of a list: one request for
//! hundreds instead of one for each. List and backup are both in the API server's order, so they are gone through side by
//! side, and no more is held than a frame and what of a page has arrived. Whatever this doesn't find, for want of order,
//! of the right to list, or of a connection that holds, is left to be read one by one: nothing depends on it.

use super::super::cut::{Cutter, Part};
use super::super::{Error, fetch, walk};
use super::compare::{self, Found};
use super::{Existing, Plan};
use crate::cluster::list::{ListMeta, Page};
use crate::cluster::{Cluster, Error as ClusterError};
use crate::pipeline::fetch::Backup;
use crate::resource::{Kind, ObjectName};
use crate::rules::head::Head;
use crate::store::Store;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use tokio::sync::mpsc;

/// Objects of a kind and namespace from which on they are listed.
const MANY: usize = 32;
/// A list is given up that has brought so many times as many objects as are wanted of it.
const IN_VAIN: usize = 8;
/// Objects in a page.
const PAGE: u32 = 500;
/// Opened frames on their way: one is compared while the next is opened.
const FRAMES: usize = 1;

/// The entries of a kind that go to one namespace (or to none).
type Groups<'a> = BTreeMap<Option<&'a str>, BTreeSet<usize>>;

/// What comparing works with.
pub(super) struct Comparing<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) store: &'a dyn Store,
    pub(super) backup: &'a Backup,
    pub(super) plan: &'a Plan,
    pub(super) existing: Existing,
}

impl<'a> Comparing<'a> {
    /// Compares those of the entries that lists bring, and tells what came of each. Returns the others.
    pub(super) async fn by_pages(
        &self,
        numbers: &BTreeSet<usize>,
        mut tell: impl FnMut(Result<Found, Error>),
    ) -> Result<BTreeSet<usize>, Error> {
        let mut left = numbers.clone();
        for (kind, groups) in self.groups(numbers) {
            let wanted: BTreeSet<usize> = groups.values().flatten().copied().collect();
            let (sender, mut receiver) = mpsc::channel(FRAMES);
            let read = self.read(&wanted, sender);
            let work = async {
                let mut lists = HashMap::new();
                while let Some((frame, tar)) = receiver.recv().await {
                    for (namespace, group) in &groups {
                        let here = group.iter().copied().filter(|n| self.backup.index.entries()[*n].frame() == frame);
                        let wanted = here.map(|number| (self.name(number), number)).collect();
                        let list = lists.entry(*namespace).or_insert_with(|| List::new(kind.clone(), *namespace));
                        list.enough = group.len() * IN_VAIN;
                        self.side_by_side(list, wanted, &tar, |number, found| {
                            left.remove(&number);
                            tell(found);
                        })
                        .await;
                    }
                }
                Ok(())
            };
            tokio::try_join!(read, work)?;
        }
        Ok(left)
    }

    /// The entries that are worth a list.
    fn groups(&self, numbers: &BTreeSet<usize>) -> BTreeMap<Kind, Groups<'a>> {
        let index = &self.backup.index;
        let mut kinds = BTreeMap::<Kind, Groups<'a>>::new();
        for &number in numbers {
            let entry = &index.entries()[number];
            let kind = self.plan.adaptation.written_as(&index.frame(entry).kind);
            let namespace = index.namespace(entry).map(|namespace| self.plan.adaptation.mapping().target(namespace));
            kinds.entry(kind).or_default().entry(namespace).or_default().insert(number);
        }
        kinds.values_mut().for_each(|groups| groups.retain(|_, group| group.len() >= MANY));
        kinds.retain(|_, groups| !groups.is_empty());
        kinds
    }

    async fn read(&self, numbers: &BTreeSet<usize>, sender: mpsc::Sender<(usize, Vec<u8>)>) -> Result<(), Error> {
        let frames = walk::by_frame(self.backup, numbers).into_keys().collect();
        let sender = &sender;
        fetch::frames(self.store, self.backup, &frames, |frame, tar| async move {
            sender.send((frame, tar)).await.map_err(|_| Error::Thread("nobody goes on".to_owned()))
        })
        .await
    }

    /// The name that an entry has in the target.
    fn name(&self, number: usize) -> String {
        let entry = &self.backup.index.entries()[number];
        let kind = &self.backup.index.frame(entry).kind;
        self.plan.adaptation.target(kind, &self.backup.index.object_name(entry)).name
    }

    /// Goes on with a list as far as it may hold what is wanted of this frame.
    async fn side_by_side(
        &self,
        list: &mut List,
        mut wanted: BTreeMap<String, usize>,
        tar: &[u8],
        mut tell: impl FnMut(usize, Result<Found, Error>),
    ) {
        while let Some(last) = wanted.keys().next_back() {
            let Some(item) = list.peek(self.cluster).await else { return };
            if item.name > *last {
                return; // of a later frame
            }
            let number = wanted.remove(&item.name);
            let Some(item) = list.take() else { return };
            if let Some(number) = number {
                tell(number, self.compare(list, number, item, tar));
            }
        }
    }

    fn compare(&self, list: &List, number: usize, item: Item, tar: &[u8]) -> Result<Found, Error> {
        let json = self.backup.index.object(&self.backup.index.entries()[number], tar)?;
        let name = ObjectName::new(list.namespace.as_deref(), &item.name);
        let mut live = super::super::adapt::live(&list.kind, &name, &item.json)?;
        drop(item);
        // items of a list lack their type
        if live.get("kind").is_none() {
            live["kind"] = Value::from(list.kind.kind.as_str());
            live["apiVersion"] = Value::from(list.kind.api_version());
        }
        compare::judged(self.backup, self.plan, self.existing, number, json, &live)
    }
}

/// An object of the target as a list has it.
struct Item {
    name: String,
    json: Vec<u8>,
}

/// A list under way.
struct List {
    kind: Kind,
    namespace: Option<String>,
    /// Objects after which it is given up.
    enough: usize,
    seen: usize,
    items: VecDeque<Item>,
    page: Option<(BoxStream<'static, Result<Bytes, ClusterError>>, Cutter)>,
    token: String,
    ended: bool,
}

impl List {
    fn new(kind: Kind, namespace: Option<&str>) -> Self {
        Self {
            kind,
            namespace: namespace.map(str::to_owned),
            enough: usize::MAX,
            seen: 0,
            items: VecDeque::new(),
            page: None,
            token: String::new(),
            ended: false,
        }
    }

    fn take(&mut self) -> Option<Item> {
        self.seen += 1;
        self.items.pop_front()
    }

    /// The next object; `None` where there is none, or the list isn't worth it any more.
    async fn peek(&mut self, cluster: &Cluster) -> Option<&Item> {
        while self.items.is_empty() && !self.ended {
            self.ended = self.seen > self.enough + PAGE as usize;
            if let Err(error) = self.go_on(cluster).await {
                tracing::debug!(%error, "{} are read one by one", self.kind);
                self.ended = true;
            }
            if self.ended {
                self.page = None;
            }
        }
        self.items.front()
    }

    /// Opens a page, or reads a chunk of the one that is open.
    async fn go_on(&mut self, cluster: &Cluster) -> Result<(), Error> {
        let Some((chunks, cutter)) = &mut self.page else {
            let page = Page {
                kind: &self.kind,
                namespace: self.namespace.as_deref(),
                revision: None,
                token: (!self.token.is_empty()).then_some(self.token.as_str()),
                name: None,
                selector: None,
                limit: PAGE,
                tries: crate::cluster::call::TRIES,
            };
            self.page = Some((Box::pin(cluster.open_page(&page).await?), Cutter::default()));
            self.token.clear();
            return Ok(());
        };
        let what = || format!("a list of {}", self.kind);
        let cut = |source| Error::Cut { what: what(), source };
        let Some(chunk) = chunks.try_next().await? else {
            cutter.finish().map_err(cut)?;
            (self.page, self.ended) = (None, self.token.is_empty());
            return Ok(());
        };
        let (items, token) = (&mut self.items, &mut self.token);
        let each = |part: Part<'_>| {
            match part {
                Part::Item(json) => {
                    let head = std::str::from_utf8(json).ok().and_then(|text| Head::of(text).ok());
                    let name = head.map(|head| head.name().to_owned()).unwrap_or_default();
                    items.push_back(Item { name, json: json.to_vec() });
                }
                Part::Field { key: b"\"metadata\"", value } => {
                    *token = serde_json::from_slice::<ListMeta>(value).unwrap_or_default().token;
                }
                Part::Field { .. } => (),
            }
            Ok::<_, super::super::cut::CutError>(())
        };
        cutter.push(&chunk, each).map_err(cut)
    }
}
