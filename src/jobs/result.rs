//! Hands a result from the worker to the person who waits, without it passing through any log or object: the worker
//! serves it on a socket in its pod, `worker result` (started there by exec) copies it to its stdout, and the plugin takes
//! it from there. The worker serves until the plugin has said that all of it arrived and matches.
//!
//! On the way it is framed, so that a cut or changed stream is noticed before a byte of it is passed on:
//!
//! ```text
//! "kbr1", total length (u64, big endian)
//! frames of at most 256 KiB: length (u32), bytes, SHA-256 of (the digest before, in hex, and the bytes) in hex
//! ```
//!
//! The chain of digests starts at that of the first 12 bytes.

use super::error::Error;
use super::{CONTAINER, RUN_FOLDER};
use crate::archive::packed::Packed;
use crate::cluster::exec::{self, Exec};
use crate::id::Digest;
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const MAGIC: &[u8; 4] = b"kbr1";
const FRAME: usize = 256 * 1024;
const DIGEST: usize = 64;
const RECEIVED: &[u8] = b"received\n";
const RECEIVERS: usize = 4;
/// For how long the command is waited for that sent what is already here.
const GRACE: Duration = Duration::from_secs(1);

/// The command that fetches a result, in the worker's container.
pub const COMMAND: &[&str] = &["/kubectl-backup", "worker", "result"];

/// Where a worker serves its result.
pub fn socket() -> PathBuf {
    Path::new(RUN_FOLDER).join("result.sock")
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Somebody has all of it.
    Fetched,
    /// Nobody came in time.
    Expired,
}

/// Serves a result until somebody confirms to have all of it, or the time is over. The socket is there when this
/// calls `ready`: then is the moment to publish that a result waits.
pub async fn serve(socket: &Path, result: Packed, deadline: Duration, ready: impl FnOnce()) -> IoResult<Served> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let listener = UnixListener::bind(socket)?;
    ready();
    let served = tokio::time::timeout(deadline, hand_out(&listener, Arc::new(result))).await;
    drop(listener);
    // the pod goes anyway
    std::fs::remove_file(socket).ok();
    served.map_or(Ok(Served::Expired), |result| result.map(|()| Served::Fetched))
}

async fn hand_out(listener: &UnixListener, result: Arc<Packed>) -> IoResult<()> {
    let mut receivers = JoinSet::new();
    loop {
        tokio::select! {
            connection = listener.accept(), if receivers.len() < RECEIVERS => {
                let (stream, result) = (connection?.0, result.clone());
                receivers.spawn(hand_to(stream, result));
            }
            Some(done) = receivers.join_next() => match done {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => tracing::debug!("the result wasn't fetched whole: {error}"),
                Err(error) => tracing::debug!("handing out the result failed: {error}"),
            },
        }
    }
}

async fn hand_to(mut stream: UnixStream, result: Arc<Packed>) -> IoResult<()> {
    write_framed(&result, &mut stream).await?;
    let mut answer = [0; RECEIVED.len()];
    stream.read_exact(&mut answer).await?;
    if answer == RECEIVED { Ok(()) } else { Err(IoError::new(ErrorKind::InvalidData, "an unknown answer")) }
}

/// `worker result`: copies the result that waits in this pod to `stdout`, and passes the confirmation on that comes
/// from `stdin`. An error where either is missing; the worker then serves on.
pub async fn client(
    socket: &Path,
    stdin: &mut (impl AsyncRead + Unpin),
    stdout: &mut (impl AsyncWrite + Unpin),
) -> IoResult<u64> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut header = [0; 12];
    stream.read_exact(&mut header).await?;
    let length = parse_header(header)?;
    stdout.write_all(&header).await?;
    let rest = framed_length(length);
    let copied = tokio::io::copy(&mut (&mut stream).take(rest), stdout).await?;
    if copied != rest {
        return Err(cut(format!("{copied} of {rest} bytes")));
    }
    stdout.flush().await?;
    let mut answer = [0; RECEIVED.len()];
    stdin.read_exact(&mut answer).await?;
    stream.write_all(&answer).await?;
    // the worker closes when it has understood
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(length)
}

/// Fetches the result that waits in a pod. Everything that reaches `out` was verified before; gives its length. On an
/// error the worker still has the result: where that is transient, fetch again from the start.
pub async fn fetch(
    client: &kube::Client,
    namespace: &str,
    pod: &str,
    out: &mut (impl AsyncWrite + Unpin + Send),
    timeout: Duration,
) -> Result<u64, Error> {
    let exec = Exec { namespace, pod, container: CONTAINER, command: COMMAND, timeout };
    let (mut printed, mut arriving) = tokio::io::duplex(FRAME);
    let (mut confirm, mut confirmed) = tokio::io::duplex(RECEIVED.len());
    let command = async {
        let exit = exec::converse(client, &exec, Some(&mut confirmed), &mut printed).await;
        drop(printed);
        exit
    };
    let receive = async {
        let received = read_framed(&mut arriving, out).await;
        if received.is_ok() {
            confirm.write_all(RECEIVED).await.ok();
        }
        // closes the pipe on an error, so that the command ends too
        drop(arriving);
        (received, confirm)
    };
    tokio::pin!(command, receive);
    // with the result in hand, a command that doesn't end is no matter
    let (exit, (received, _confirm)) = tokio::select! {
        exit = &mut command => (Some(exit), receive.await),
        received = &mut receive => (tokio::time::timeout(GRACE, &mut command).await.ok(), received),
    };
    let failed = |message: String, transient| Error::Result { message, transient };
    match (received, exit) {
        (Ok(length), exit) => {
            if !matches!(&exit, Some(Ok(exit)) if exit.code == 0) {
                tracing::debug!("the result is here; the command that sent it said {exit:?}");
            }
            Ok(length)
        }
        (Err(Broken::Out(error)), _) => Err(Error::Write(error)),
        (Err(Broken::Damaged(why)), _) => Err(failed(why, true)),
        (Err(Broken::Cut(_)), Some(Err(error))) => Err(error.into()),
        (Err(Broken::Cut(_)), Some(Ok(exit))) if exit.code != 0 => {
            let said = super::text::line(&exit.stderr_tail, 1000);
            Err(failed(format!("`worker result` ended with exit code {}: {said}", exit.code), false))
        }
        (Err(Broken::Cut(why)), _) => Err(failed(why, true)),
    }
}

/// Why a stream is no result.
#[derive(Debug)]
enum Broken {
    /// It ended too early.
    Cut(String),
    /// It isn't what was sent.
    Damaged(String),
    /// It can't be passed on.
    Out(IoError),
}

fn cut(what: String) -> IoError {
    IoError::new(ErrorKind::UnexpectedEof, format!("the result was cut: {what}"))
}

fn parse_header(header: [u8; 12]) -> IoResult<u64> {
    match header.split_first_chunk::<4>() {
        Some((MAGIC, length)) => Ok(length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
        _ => Err(IoError::new(ErrorKind::InvalidData, "this is no result of a worker")),
    }
}

/// Bytes that follow the header for a result of that length.
fn framed_length(length: u64) -> u64 {
    length.saturating_add(length.div_ceil(FRAME as u64) * (4 + DIGEST as u64))
}

/// The digest before in front of the bytes that follow it, so that a frame is one buffer to hash.
struct Chain(Vec<u8>);

impl Chain {
    fn new(header: &[u8]) -> Self {
        Self(Digest::of(header).to_string().into_bytes())
    }

    /// Room for the bytes of the next frame.
    fn room(&mut self, length: usize) -> &mut [u8] {
        self.0.resize(DIGEST + length, 0);
        &mut self.0[DIGEST..]
    }

    /// The digest of what was put into the room; the next frame follows it.
    fn close(&mut self) -> [u8; DIGEST] {
        let digest = Digest::of(&self.0).to_string();
        let mut bytes = [0; DIGEST];
        bytes.copy_from_slice(digest.as_bytes());
        self.0[..DIGEST].copy_from_slice(&bytes);
        bytes
    }
}

async fn write_framed(result: &Packed, to: &mut (impl AsyncWrite + Unpin)) -> IoResult<()> {
    let mut header = MAGIC.to_vec();
    header.extend((result.size() as u64).to_be_bytes());
    to.write_all(&header).await?;
    let mut chain = Chain::new(&header);
    for bytes in result.pieces(FRAME).map_err(IoError::other)? {
        let bytes = bytes.map_err(IoError::other)?;
        to.write_u32(bytes.len() as u32).await?;
        to.write_all(&bytes).await?;
        chain.room(bytes.len()).copy_from_slice(&bytes);
        to.write_all(&chain.close()).await?;
    }
    to.flush().await
}

async fn read_framed(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> Result<u64, Broken> {
    let mut header = [0; 12];
    let begun = from.read_exact(&mut header).await;
    begun.map_err(|_| Broken::Cut("it ended before it began".to_owned()))?;
    let length = parse_header(header).map_err(|error| Broken::Damaged(error.to_string()))?;
    let mut chain = Chain::new(&header);
    let mut count = 0;
    while count < length {
        let short = |_| Broken::Cut(format!("it ended after {count} of {length} bytes"));
        let frame = from.read_u32().await.map_err(short)? as usize;
        let expected = (length - count).min(FRAME as u64) as usize;
        if frame != expected {
            return Err(Broken::Damaged(format!("a frame after {count} bytes has the wrong length")));
        }
        from.read_exact(chain.room(frame)).await.map_err(short)?;
        let mut digest = [0; DIGEST];
        from.read_exact(&mut digest).await.map_err(short)?;
        if chain.close() != digest {
            return Err(Broken::Damaged(format!("a frame after {count} bytes doesn't match its SHA-256")));
        }
        to.write_all(&chain.0[DIGEST..]).await.map_err(Broken::Out)?;
        count += frame as u64;
    }
    to.flush().await.map_err(Broken::Out)?;
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::exec::server::{Step, exec_server, refusing_server, success};

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 7 + n / 256) as u8).collect()
    }

    async fn framed(result: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        write_framed(&Packed::of_bytes(result).unwrap(), &mut stream).await.unwrap();
        stream
    }

    async fn read(stream: &[u8]) -> (Result<u64, Broken>, Vec<u8>) {
        let mut out = Vec::new();
        (read_framed(&mut &stream[..], &mut out).await, out)
    }

    #[tokio::test]
    async fn results_of_all_sizes_arrive() {
        for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 5] {
            let (result, stream) = (sample(length), framed(&sample(length)).await);
            assert_eq!(stream.len() as u64, 12 + framed_length(length as u64));
            let (count, out) = read(&stream).await;
            assert_eq!((count.unwrap(), out == result), (length as u64, true));
        }
    }

    #[tokio::test]
    async fn a_cut_anywhere_is_noticed() {
        let stream = framed(&sample(FRAME + 10)).await;
        for end in [0, 3, 11, 12, 15, 16, 100, 12 + 4 + FRAME, 12 + 4 + FRAME + DIGEST, stream.len() - 1] {
            let (count, out) = read(&stream[..end]).await;
            assert!(matches!(count, Err(Broken::Cut(_))), "{end}");
            assert!(out.is_empty() || out == sample(FRAME + 10)[..FRAME], "only whole frames pass");
        }
    }

    #[tokio::test]
    async fn a_change_anywhere_is_noticed() {
        let stream = framed(&sample(FRAME + 10)).await;
        let marks = [0, 4, 11, 12, 15, 16, 5000, 12 + 4 + FRAME, 12 + 4 + FRAME + DIGEST + 3, stream.len() - 1];
        for at in marks {
            let mut stream = stream.clone();
            stream[at] ^= 1;
            assert!(read(&stream).await.0.is_err(), "{at}");
        }
        let mut swapped = framed(&sample(2 * FRAME)).await;
        let (first, second) = swapped[12..].split_at_mut(4 + FRAME + DIGEST);
        first.swap_with_slice(second);
        assert!(matches!(read(&swapped).await.0, Err(Broken::Damaged(_))));
    }

    #[tokio::test]
    async fn a_result_is_served_until_it_was_received() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.sock");
        std::fs::write(&path, "left by an earlier attempt").unwrap();
        let result = sample(FRAME + 100);
        let packed = Packed::of_bytes(&result).unwrap();
        let (sender, ready) = tokio::sync::oneshot::channel();
        let served = serve(&path, packed, Duration::from_secs(60), || sender.send(()).unwrap());
        let fetched = async {
            ready.await.unwrap();
            // one that goes away half way, one that never confirms
            let mut rude = UnixStream::connect(&path).await.unwrap();
            rude.read_exact(&mut [0; 50]).await.unwrap();
            drop(rude);
            let mut out = Vec::new();
            let error = client(&path, &mut tokio::io::empty(), &mut out).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
            let mut out = Vec::new();
            let count = client(&path, &mut &RECEIVED[..], &mut out).await.unwrap();
            assert_eq!(count, FRAME as u64 + 100);
            read(&out).await.1
        };
        let (served, out) = tokio::join!(served, fetched);
        assert_eq!((served.unwrap(), out == result), (Served::Fetched, true));
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn nobody_is_waited_for_longer_than_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.sock");
        let served = serve(&path, Packed::of_bytes(b"x").unwrap(), Duration::from_millis(5), || ()).await;
        assert_eq!(served.unwrap(), Served::Expired);
        let error = client(&path, &mut &RECEIVED[..], &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    async fn fetch_from(steps: Vec<Step>) -> (Result<u64, Error>, Vec<u8>) {
        let (client, _) = exec_server(steps).await;
        let mut out = Vec::new();
        let count = fetch(&client, "kb", "shop-1-x7k2p", &mut out, Duration::from_secs(20)).await;
        (count, out)
    }

    #[tokio::test]
    async fn a_result_comes_through_exec_and_is_confirmed() {
        let result = sample(5 * FRAME / 2);
        let stream = framed(&result).await;
        let mut steps: Vec<Step> = stream.chunks(100_000).map(|part| Step::Send(1, part.to_vec())).collect();
        steps.extend([Step::Expect("received\n"), success()]);
        let (count, out) = fetch_from(steps).await;
        assert_eq!((count.unwrap(), out == result), (result.len() as u64, true));
    }

    #[tokio::test]
    async fn a_command_that_hangs_after_all_arrived_is_no_matter() {
        let stream = framed(b"all of it").await;
        let (count, out) = fetch_from(vec![Step::Send(1, stream), Step::Expect("received\n"), Step::Hang]).await;
        assert_eq!((count.unwrap(), out.as_slice()), (9, b"all of it".as_slice()));
    }

    #[tokio::test]
    async fn what_is_cut_or_damaged_on_the_way_is_an_error() {
        let stream = framed(&sample(1000)).await;
        let (error, out) = fetch_from(vec![Step::Send(1, stream[..500].to_vec()), success()]).await;
        let error = error.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), out.len()),
            ("can't fetch the result: it ended after 0 of 1000 bytes", 0)
        );
        assert!(error.is_transient());

        let (error, _) = fetch_from(vec![Step::Send(1, stream[..500].to_vec())]).await;
        assert!(matches!(error, Err(Error::Exec(exec::Error::Broken { .. }))), "{error:?}");

        let mut damaged = stream.clone();
        damaged[700] ^= 1;
        let (error, out) = fetch_from(vec![Step::Send(1, damaged), success()]).await;
        assert!(error.unwrap_err().to_string().contains("SHA-256"));
        assert!(out.is_empty());
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let exit = r#"{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"5"}]}}"#;
        let steps = vec![Step::Send(2, b"no result waits here\n".to_vec()), Step::Send(3, exit.into())];
        let (error, _) = fetch_from(steps).await;
        let text = "can't fetch the result: `worker result` ended with exit code 5: no result waits here";
        assert_eq!(error.unwrap_err().to_string(), text);

        let body = r#"{"kind":"Status","status":"Failure","message":"no","reason":"Forbidden","code":403}"#;
        let client = refusing_server(403, body.to_owned()).await;
        let error = fetch(&client, "kb", "p", &mut Vec::new(), Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(error.exit_code(), crate::report::ExitCode::Forbidden);
    }
}
