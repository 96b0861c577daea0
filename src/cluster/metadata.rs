//! Lists of metadata, of which only what a caller picks is kept: at the price of an object, whatever the cluster's size.

use super::call::{Call, parse};
use super::items::items;
use super::list::{ListMeta, METADATA, Page};
use super::{Cluster, Error};
use crate::resource::Kind;
use crate::runtime::Reading;
use serde::de::IgnoredAny;

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
            let Which { kind, namespace, name, revision } = *which;
            let page = Page { token: &token, name, revision, ..Page::first(kind, namespace, PAGE) };
            let call = Call { accept: METADATA, ..page.call() };
            let (picked, meta) = self.retried(page.tries, || self.picked_of_page(&call, pick)).await?;
            kept.extend(picked);
            token = meta.token;
            if token.is_empty() {
                return Ok(kept);
            }
        }
    }

    /// Goes through a page while it comes in; what it says of itself comes with what was picked.
    pub(super) async fn picked_of_page<T>(
        &self,
        call: &Call,
        pick: &impl Fn(&str) -> Option<T>,
    ) -> Result<(Vec<T>, ListMeta), Error> {
        let mut items = items(call.what.clone(), self.once(call).await?.into_body());
        let mut kept = Vec::new();
        let mut each = |json: &str| {
            match pick(json) {
                // what isn't picked must at least be JSON: no object may be passed over for a broken answer
                None => _ = parse::<IgnoredAny>(&call.what, json.as_bytes())?,
                picked => kept.extend(picked),
            }
            Ok::<_, Error>(())
        };
        while items.next(&mut each).await? {}
        Ok((kept, items.meta()?))
    }
}
