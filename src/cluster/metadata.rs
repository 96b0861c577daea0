//! Lists of metadata, of which only what a caller picks is kept: at the price of an object, whatever the cluster's size.

use super::call::{Call, TRIES, chunks, gathered, parse, retried};
use super::cut::{CutError, Cutter, Part};
use super::list::{ListMeta, METADATA, Page};
use super::{Cluster, Error};
use crate::resource::Kind;
use crate::runtime::Reading;
use futures::TryStreamExt;
use serde::de::IgnoredAny;
use std::pin::pin;

/// Objects in a page.
const PAGE: u32 = 2000;

/// What is listed.
struct Which<'a> {
    kind: &'a Kind,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    revision: Option<&'a str>,
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
        let which = Which { kind, namespace, name: None, revision: None };
        match self.picked(&which, &pick).await {
            Err(error) if error.is_expired() => self.picked(&which, &pick).await,
            other => other,
        }
    }

    /// The same of the state that a kind had at a revision; `name`: of the one object of that name.
    ///
    /// # Errors
    /// The API server's answer, or the connection's failure after all tries; 410 where the revision is no longer kept.
    pub async fn pick_at<T>(
        &self,
        kind: &Kind,
        name: Option<&str>,
        revision: &str,
        pick: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.picked(&Which { kind, namespace: None, name, revision: Some(revision) }, &pick).await
    }

    async fn picked<T>(&self, which: &Which<'_>, pick: &impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
        let _reading = Reading::new();
        let mut kept = Vec::new();
        let mut token = String::new();
        loop {
            let from = (!token.is_empty()).then_some(token.as_str());
            let page = Page {
                kind: which.kind,
                namespace: which.namespace,
                revision: which.revision,
                token: from,
                name: which.name,
                selector: None,
                limit: PAGE,
                tries: TRIES,
            };
            let call = Call { accept: METADATA, ..page.call() };
            let (picked, next) = retried(page.tries, || self.picked_of_page(&call, pick)).await?;
            kept.extend(picked);
            token = next;
            if token.is_empty() {
                return Ok(kept);
            }
        }
    }

    /// Goes through a page while it comes in, and says where the next begins.
    async fn picked_of_page<T>(
        &self,
        call: &Call,
        pick: &impl Fn(&str) -> Option<T>,
    ) -> Result<(Vec<T>, String), Error> {
        let nonsense = |message: String| Error::Answer { what: call.what.clone(), message };
        let not_a_list = |error: CutError| nonsense(error.to_string());
        let mut chunks = pin!(gathered(chunks(call.what.clone(), self.once(call).await?.into_body())));
        let (mut cutter, mut kept, mut metadata, mut unread) = (Cutter::default(), Vec::new(), Vec::new(), None);
        while let Some(chunk) = chunks.try_next().await? {
            let each = |part: Part<'_>| {
                match part {
                    Part::Item(json) => match std::str::from_utf8(json) {
                        Ok(text) => match pick(text) {
                            // what isn't picked must at least be JSON: no object may be passed over for a broken answer
                            None => unread = unread.take().or(parse::<IgnoredAny>(&call.what, json).err()),
                            picked => kept.extend(picked),
                        },
                        Err(_) => unread = Some(nonsense("an object is not UTF-8".to_owned())),
                    },
                    Part::Field { key: b"\"metadata\"", value } => metadata = value.to_vec(),
                    Part::Field { .. } => (),
                }
                Ok(())
            };
            cutter.push(&chunk, each).map_err(not_a_list)?;
            if let Some(error) = unread {
                return Err(error);
            }
        }
        cutter.finish().map_err(not_a_list)?;
        // every list states it: `{}` is no list, and must not be taken for an empty one
        Ok((kept, parse::<ListMeta>(&call.what, &metadata)?.token))
    }
}
