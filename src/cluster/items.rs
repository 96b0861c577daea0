//! The items of a list's page, cut out of it while it comes in. What the page says of itself may stand before or after them.

use super::Error;
use super::call::{chunks, gathered, parse};
use super::cut::{CutError, Cutter, Part};
use super::list::ListMeta;
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use kube::client::Body;

/// A page on its way.
pub struct Items<S> {
    what: String,
    chunks: S,
    cutter: Cutter,
    metadata: Vec<u8>,
}

/// Why a chunk isn't gone through to its end.
enum Stop<E> {
    Cut(CutError),
    Item(E),
}

impl<E> From<CutError> for Stop<E> {
    fn from(error: CutError) -> Self {
        Self::Cut(error)
    }
}

/// The items in the body of an answer; what was asked for, for error texts.
pub(super) fn items(what: String, body: Body) -> Items<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin> {
    let chunks = Box::pin(gathered(chunks(what.clone(), body)));
    Items { what, chunks, cutter: Cutter::default(), metadata: Vec::new() }
}

impl<S: Stream<Item = Result<Bytes, Error>> + Unpin> Items<S> {
    /// Waits for more of the page and gives each item that ends in it to `each`, as JSON. False where there is no more.
    ///
    /// # Errors
    /// The connection's failure, [`Error::Answer`] where it is no list, and whatever `each` returns.
    pub async fn next<E: From<Error>>(&mut self, mut each: impl FnMut(&str) -> Result<(), E>) -> Result<bool, E> {
        let Some(chunk) = self.chunks.try_next().await? else { return Ok(false) };
        let Self { what, cutter, metadata, .. } = self;
        let part = |part: Part<'_>| {
            match part {
                Part::Item(json) => {
                    let text = std::str::from_utf8(json).map_err(|_| CutError::Syntax("an object is not UTF-8", 0))?;
                    each(text).map_err(Stop::Item)?;
                }
                Part::Field { key: b"\"metadata\"", value } => *metadata = value.to_vec(),
                Part::Field { .. } => (),
            }
            Ok(())
        };
        cutter.push(&chunk, part).map_err(|stop| match stop {
            Stop::Cut(error) => not_a_list(what, &error).into(),
            Stop::Item(error) => error,
        })?;
        Ok(true)
    }

    /// What the page says of itself, after its end.
    ///
    /// # Errors
    /// [`Error::Transport`] where it broke off before, [`Error::Answer`] where it says nothing: every list does, and `{}`
    /// must not be taken for an empty one.
    pub fn meta(self) -> Result<ListMeta, Error> {
        self.cutter.finish().map_err(|error| not_a_list(&self.what, &error))?;
        parse(&self.what, &self.metadata)
    }
}

fn not_a_list(what: &str, error: &CutError) -> Error {
    let (what, message) = (what.to_owned(), error.to_string());
    match error {
        CutError::Truncated(_) => Error::Transport { what, message },
        CutError::Syntax(..) | CutError::TooLarge => Error::Answer { what, message },
    }
}
