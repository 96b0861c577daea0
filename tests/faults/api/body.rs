//! Bodies of answers, in small chunks, and what goes wrong on their way.

use super::Fault;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use std::time::Duration;

/// Bytes of a chunk of an answer: few, so that chunks end anywhere.
const CHUNK: usize = 61;

/// A body on its way.
pub(super) type Answered = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

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
    let chunks: Vec<Bytes> = bytes.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
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
