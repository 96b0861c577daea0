//! Runs a command in a container through the API server's WebSocket exec, and hands back what it prints and its exit
//! code. Defines [`Exec`] (what to run where) and [`ExecExit`] (how it ended). Knows nothing of what the commands are for.
//!
//! What this guards against in kube 5 (read in its source): buffers of 1 KiB unless told otherwise; one task that feeds
//! stdout and stderr, so that both must be read at once; pipes that stay open for ever when the connection breaks, so
//! that only the status tells the end; no timeout of its own.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

#[cfg(test)]
pub(crate) mod server;

/// Bytes that may wait between the connection and the reader of stdout.
const STDOUT_BUFFER: usize = 1024 * 1024;
/// Bytes of an output that a [`Tail`] keeps: the last ones, where the reason usually is.
const KEPT: usize = 4096;
const STDERR_BUFFER: usize = 64 * 1024;
const COPY_BUFFER: usize = 64 * 1024;

/// A command, and where to run it.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// The container in it.
    pub container: &'a str,
    /// The program and its arguments; no shell is involved.
    pub command: &'a [&'a str],
    /// How long connecting and the command may take together. The command isn't told when the time is over: it may run
    /// on inside the container.
    pub timeout: Duration,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecExit {
    /// Its exit code.
    pub code: i32,
    /// The last 4 KiB of what it wrote to stderr; what is no UTF-8 is replaced.
    pub stderr_tail: String,
}

/// The last 4 KiB of an output.
#[derive(Debug, Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// What was kept; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

impl AsyncWrite for Tail {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(KEPT)..]);
        let over = self.0.len().saturating_sub(KEPT);
        self.0.drain(..over);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Why a command has no exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such pod.
    #[error("can't run a command in pod `{pod}`: it isn't there (namespace `{namespace}`)")]
    NotFound {
        /// Namespace of the pod.
        namespace: String,
        /// The pod.
        pod: String,
    },
    /// RBAC doesn't allow it. From Kubernetes 1.35 on, exec over WebSocket needs `create` next to `get` (KEP-4006).
    #[error(
        "not allowed to run a command in pod `{pod}`: {message}\n\
         hint: needs `get` and `create` on `pods/exec` in namespace `{namespace}`"
    )]
    Forbidden {
        /// Namespace of the pod.
        namespace: String,
        /// The pod.
        pod: String,
        /// The API server's words.
        message: String,
    },
    /// The API server or the kubelet took the request and couldn't start the command.
    #[error("can't run `{command}` in pod `{pod}`: {message}")]
    NotStarted {
        /// The pod.
        pod: String,
        /// The program.
        command: String,
        /// The server's words.
        message: String,
        /// The HTTP status, 0 where the connection was already open.
        code: u16,
    },
    /// No connection, or no upgrade to WebSocket.
    #[error(
        "can't connect to pod `{pod}`: {message}\nhint: a proxy between here and the API server must let WebSockets pass"
    )]
    Connect {
        /// The pod.
        pod: String,
        /// What went wrong.
        message: String,
    },
    /// The connection ended before the command did; what was read may be cut.
    #[error("the connection to pod `{pod}` ended before `{command}` did")]
    Broken {
        /// The pod.
        pod: String,
        /// The program.
        command: String,
    },
    /// It took too long.
    #[error("`{command}` in pod `{pod}` didn't end within {} s", timeout.as_secs_f32())]
    TimedOut {
        /// The pod.
        pod: String,
        /// The program.
        command: String,
        /// The time it had.
        timeout: Duration,
        /// What it wrote to stderr until then, as [`ExecExit::stderr_tail`]; the message leaves it out.
        stderr_tail: String,
    },
    /// Our own end of stdin or stdout failed.
    #[error("can't pass on what `{command}` says: {source}")]
    Local {
        /// The program.
        command: String,
        /// The failure.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same may work a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } => true,
            Self::NotStarted { code, .. } => *code == 429 || *code >= 500,
            _ => false,
        }
    }
}

/// Runs a command without input. Its stdout goes to `stdout` as it comes; while `stdout` isn't ready, the command waits.
pub async fn run(
    client: &kube::Client,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
    stdout: &mut (impl AsyncWrite + Unpin + Send),
    timeout: Duration,
) -> Result<ExecExit, Error> {
    converse(client, &Exec { namespace, pod, container, command, timeout }, None, stdout).await
}

/// Runs a command with input. The command never sees the end of its input, as older servers can't say it without
/// closing the whole connection.
pub async fn converse(
    client: &kube::Client,
    exec: &Exec<'_>,
    stdin: Option<&mut (dyn AsyncRead + Unpin + Send)>,
    stdout: &mut (impl AsyncWrite + Unpin + Send),
) -> Result<ExecExit, Error> {
    let mut stderr = Tail::default();
    let work = async {
        let attached = open(client, exec, stdin.is_some()).await?;
        attend(attached, exec, stdin, stdout, &mut stderr).await
    };
    let ended = tokio::time::timeout(exec.timeout, work).await;
    let stderr_tail = stderr.text();
    match ended {
        Ok(code) => Ok(ExecExit { code: code?, stderr_tail }),
        Err(_) => {
            let (pod, command) = exec.names();
            Err(Error::TimedOut { pod, command, timeout: exec.timeout, stderr_tail })
        }
    }
}

impl Exec<'_> {
    fn names(&self) -> (String, String) {
        (self.pod.to_owned(), self.command.first().copied().unwrap_or_default().to_owned())
    }

    fn judge(&self, error: kube::Error) -> Error {
        let (pod, command) = self.names();
        let namespace = self.namespace.to_owned();
        match error {
            // a 404 with the pod as its subject; others are of the kubelet ("container not found")
            kube::Error::Api(status) if status.is_not_found() => Error::NotFound { namespace, pod },
            kube::Error::Api(status) if status.is_forbidden() => {
                Error::Forbidden { namespace, pod, message: status.message }
            }
            kube::Error::Api(status) => Error::NotStarted { pod, command, message: status.message, code: status.code },
            other => Error::Connect { pod, message: super::chain(&other) },
        }
    }
}

async fn open(client: &kube::Client, exec: &Exec<'_>, stdin: bool) -> Result<AttachedProcess, Error> {
    let params = AttachParams::default()
        .container(exec.container)
        .stdin(stdin)
        .stdout(true)
        .stderr(true)
        .max_stdout_buf_size(STDOUT_BUFFER)
        .max_stderr_buf_size(STDERR_BUFFER);
    let pods: Api<Pod> = Api::namespaced(client.clone(), exec.namespace);
    pods.exec(exec.pod, exec.command.iter().copied(), &params).await.map_err(|error| exec.judge(error))
}

/// Moves bytes until the command's status is there and all it printed is read; answers with its exit code.
async fn attend(
    mut attached: AttachedProcess,
    exec: &Exec<'_>,
    stdin: Option<&mut (dyn AsyncRead + Unpin + Send)>,
    stdout: &mut (impl AsyncWrite + Unpin + Send),
    stderr: &mut Tail,
) -> Result<i32, Error> {
    let (pod, command) = exec.names();
    let broken = || Error::Broken { pod: pod.clone(), command: command.clone() };
    let local = |source| Error::Local { command: command.clone(), source };
    let status = attached.take_status().ok_or_else(broken)?;
    let printed = attached.stdout().ok_or_else(broken)?;
    let complained = attached.stderr().ok_or_else(broken)?;
    let input = attached.stdin();

    let feed = async {
        match (stdin, input) {
            (Some(from), Some(mut to)) => tokio::io::copy(from, &mut to).await.map(|_| Some(to)),
            _ => Ok(None),
        }
    };
    let read = async { tokio::try_join!(copy(printed, stdout), copy(complained, stderr)) };
    tokio::pin!(status, feed, read);
    let (mut exit, mut all_read, mut fed) = (None, false, None);
    while exit.is_none() || !all_read {
        tokio::select! {
            biased;
            // a pipe doesn't end when the connection breaks: only the missing status tells
            answer = &mut status, if exit.is_none() => exit = Some(answer.ok_or_else(broken)?),
            result = &mut read, if !all_read => {
                result.map_err(local)?;
                all_read = true;
            }
            result = &mut feed, if fed.is_none() => fed = Some(result),
        }
    }
    let exit = exit.ok_or_else(broken)?;
    exit_code(&exit).map_err(|message| Error::NotStarted { pod, command, message, code: 0 })
}

async fn copy(from: impl AsyncRead + Unpin, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut from = BufReader::with_capacity(COPY_BUFFER, from);
    tokio::io::copy_buf(&mut from, to).await?;
    to.flush().await
}

/// The exit code as the kubelet states it (`k8s.io/apimachinery/pkg/util/remotecommand`), or why there is none.
fn exit_code(status: &Status) -> Result<i32, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let message = status.message.clone().unwrap_or_else(|| "no reason given".to_owned());
    if status.reason.as_deref() != Some("NonZeroExitCode") {
        return Err(message);
    }
    let causes = status.details.iter().flat_map(|details| details.causes.iter().flatten());
    let mut codes = causes.filter(|cause| cause.reason.as_deref() == Some("ExitCode"));
    codes.find_map(|cause| cause.message.as_deref()?.parse().ok()).ok_or(message)
}

#[cfg(test)]
mod tests;
