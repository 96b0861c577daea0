//! Where many objects of a kind and namespace are to be compared, they are read by full pages of a list: one request for
//! hundreds instead of one for each. List and backup are both in the API server's order, so they are gone through side by
//! side, and no more is held than a frame and what of a few pages has arrived. Whatever this doesn't find, for want of order,
//! of the right to list, or of a connection that holds, is left to be read one by one: nothing depends on it.

use super::super::{Error, adapt, fetch};
use super::compare::{self, Found};
use super::{Existing, Plan};
use crate::cluster::Cluster;
use crate::cluster::list::Page;
use crate::pipeline::fetch::Backup;
use crate::resource::{Kind, ObjectName};
use crate::store::Store;
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
/// Lists that are begun before it is their turn, so that nothing waits for their first page.
const AHEAD: usize = 3;

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
                        let wanted: BTreeMap<String, usize> = here.map(|number| (self.name(number), number)).collect();
                        if wanted.is_empty() {
                            continue;
                        }
                        self.begin(&kind, &groups, *namespace, &mut lists);
                        let Some(list) = lists.get_mut(namespace) else { continue };
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

    /// Begins the list of a namespace, and those of the next few.
    fn begin(
        &self,
        kind: &Kind,
        groups: &Groups<'a>,
        namespace: Option<&'a str>,
        lists: &mut HashMap<Option<&'a str>, List>,
    ) {
        // no more than these wait, also where the namespaces' order is another one here than in the backup
        let waiting = lists.values().filter(|list| list.seen == 0).count();
        for (namespace, group) in groups.range(namespace..).take(1 + AHEAD.saturating_sub(waiting)) {
            let new = || List::begin(self.cluster.clone(), kind.clone(), *namespace, group.len() * IN_VAIN);
            lists.entry(*namespace).or_insert_with(new);
        }
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
        let frames = self.backup.index.frames_of(numbers);
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
            let Some(item) = list.peek().await else { return };
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
        let mut live = item.object;
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
    object: Value,
}

impl Item {
    /// `None`: it is no object, and passed over.
    fn parse(kind: &Kind, json: &str) -> Option<Self> {
        let object = adapt::compared(kind, &ObjectName::new(None, "?"), json.as_bytes()).ok()?;
        let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
        Some(Self { name, object })
    }
}

/// A list under way. It is read in a task of its own, no further than a chunk ahead.
struct List {
    kind: Kind,
    /// Objects after which it is given up.
    enough: usize,
    seen: usize,
    /// The rest of it, by chunks; `None`: it has ended.
    chunks: Option<mpsc::Receiver<VecDeque<String>>>,
    /// What is left of the last chunk.
    items: VecDeque<String>,
    /// The first object, once it was looked at.
    next: Option<Item>,
}

impl List {
    fn begin(cluster: Cluster, kind: Kind, namespace: Option<&str>, enough: usize) -> Self {
        let (sender, receiver) = mpsc::channel(1);
        let (of_kind, within) = (kind.clone(), namespace.map(str::to_owned));
        tokio::spawn(async move {
            if let Err(error) = read(&cluster, &of_kind, within.as_deref(), &sender).await {
                tracing::debug!(%error, "{of_kind} are read one by one");
            }
        });
        let (chunks, items) = (Some(receiver), VecDeque::new());
        Self { kind, enough, seen: 0, chunks, items, next: None }
    }

    fn take(&mut self) -> Option<Item> {
        self.seen += 1;
        self.next.take()
    }

    /// The next object; `None` where there is none, or the list isn't worth it any more.
    async fn peek(&mut self) -> Option<&Item> {
        while self.next.is_none() {
            if let Some(json) = self.items.pop_front() {
                self.next = Item::parse(&self.kind, &json);
                continue;
            }
            if self.seen > self.enough + PAGE as usize {
                self.chunks = None;
            }
            match self.chunks.as_mut()?.recv().await {
                Some(items) => self.items = items,
                None => self.chunks = None,
            }
        }
        self.next.as_ref()
    }
}

/// Reads a list page by page, until nobody wants more of it.
async fn read(
    cluster: &Cluster,
    kind: &Kind,
    namespace: Option<&str>,
    sender: &mpsc::Sender<VecDeque<String>>,
) -> Result<(), Error> {
    let mut token = String::new();
    loop {
        let page = Page { token: &token, ..Page::first(kind, namespace, PAGE) };
        let mut open = cluster.open_page(&page).await?;
        let mut items = VecDeque::new();
        while open
            .next(|json| {
                items.push_back(json.to_owned());
                Ok::<_, Error>(())
            })
            .await?
        {
            if !items.is_empty() && sender.send(std::mem::take(&mut items)).await.is_err() {
                return Ok(());
            }
        }
        token = open.meta()?.token;
        if token.is_empty() {
            return Ok(());
        }
    }
}
