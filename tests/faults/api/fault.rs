//! What may go wrong with a request, and what that makes of an answer's body.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use std::time::Duration;

/// Bytes of a chunk of an answer: few, so that chunks end anywhere; more where an answer would have thousands.
const CHUNK: usize = 61;
const CHUNKS: usize = 500;

/// A body on its way.
pub(super) type Answered = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

/// What goes wrong with a request. Numbers are per cent of the body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// An answer with this code.
    Status(u16),
    /// An answer with this code that says when to come again.
    RetryAfter(u16),
    /// An answer with this code whose text never ends.
    StatusStalls(u16),
    /// The connection breaks before anything happens.
    Reset,
    /// It happens, and the connection breaks before the answer.
    ResetAfter,
    /// Nothing happens, and no answer comes.
    Silent,
    /// It happens, and no answer comes.
    SilentAfter,
    /// The body breaks off with an error.
    BreaksOff(usize),
    /// The body ends early, as if that were all.
    Ends(usize),
    /// The body comes to here and no further.
    Stalls(usize),
    /// From here on the body is not what was sent.
    Rots(usize),
    /// A proxy's page instead of an answer.
    Page,
    /// `{}`.
    Nothing,
    /// Every chunk takes 40 seconds.
    Slow,
    /// An answer with this code, text and cause.
    Says(u16, &'static str, &'static str),
    /// Somebody else writes the object just before: its `data`.
    Edited,
    /// The same, but only its status.
    Touched,
    /// The revisions so far are compacted before the request is looked at.
    Compact,
    /// Orders are served as `v2` only from then on.
    Moved,
}

/// A body in small chunks, with what the fault makes of it.
pub(super) fn stream(mut bytes: Vec<u8>, fault: Option<Fault>) -> Answered {
    let share = |percent: usize| (bytes.len() * percent / 100).min(bytes.len().saturating_sub(1));
    let (keep, tail): (usize, Option<Fault>) = match fault {
        Some(Fault::BreaksOff(percent) | Fault::Ends(percent) | Fault::Stalls(percent)) => (share(percent), fault),
        Some(Fault::StatusStalls(_)) => (share(50), fault),
        Some(Fault::Rots(percent)) => {
            let from = share(percent);
            bytes[from..].fill(b'#');
            (bytes.len(), None)
        }
        _ => (bytes.len(), None),
    };
    bytes.truncate(keep);
    let chunks: Vec<Bytes> = bytes.chunks(CHUNK.max(bytes.len() / CHUNKS)).map(Bytes::copy_from_slice).collect();
    let slow = fault == Some(Fault::Slow);
    let body = futures::stream::iter(chunks).then(move |chunk| async move {
        if slow {
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
        Ok::<_, std::io::Error>(Frame::data(chunk))
    });
    let broken = || Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset in the middle"));
    StreamBody::new(match tail {
        Some(Fault::BreaksOff(_)) => body.chain(futures::stream::once(std::future::ready(broken()))).boxed(),
        Some(Fault::Stalls(_) | Fault::StatusStalls(_)) => body.chain(futures::stream::pending()).boxed(),
        _ => body.boxed(),
    })
}
