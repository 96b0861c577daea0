//! A client for the inside of a cluster: no proxy, no gzip, no credential plugin. kube's own does as well, and reads large
//! lists dearly: TLS takes its records from the socket 4 KiB at a time, whatever has come, and HTTP/1 takes buffers of
//! 400 KiB for each connection anew and anew. Here the socket is read [`ROOM`] bytes at a time, and so is HTTP/1. That
//! saves CPU time.

use super::{Error, chain};
use http::Uri;
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// Bytes that are read at once.
const ROOM: usize = 64 * 1024;

/// Makes the client. What kube's makes of proxies, gzip and credential plugins is not looked at.
///
/// # Errors
/// [`Error::Connect`] where certificates can't be used.
pub(super) fn client(config: Config) -> Result<Client, Error> {
    let connect = |error: &(dyn std::error::Error + 'static)| Error::Connect { message: chain(error) };
    // whoever is first in the process says whose cryptography all use, as in kube
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    let tls = config.rustls_https_connector_with_connector(Sockets(tcp)).map_err(|error| connect(&error))?;
    let mut connector = TimeoutConnector::new(tls);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http = Http::builder(TokioExecutor::new()).http1_max_buf_size(ROOM).build::<_, Body>(connector);
    let service = tower::ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|error| connect(&error))?)
        .layer(config.extra_headers_layer().map_err(|error| connect(&error))?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// Makes connections that are read in large steps.
#[derive(Clone)]
struct Sockets(HttpConnector);

impl Service<Uri> for Sockets {
    type Response = Socket;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Socket, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(Socket { stream: connecting.await?, room: Vec::new(), taken: 0 }) })
    }
}

/// A connection, and what has been read of it in advance.
struct Socket {
    stream: TokioIo<TcpStream>,
    room: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, mut to: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken == this.room.len() {
            this.room.resize(ROOM, 0);
            let mut room = ReadBuf::new(&mut this.room);
            let read = Pin::new(&mut this.stream).poll_read(context, room.unfilled());
            let came = room.filled().len();
            this.room.truncate(came);
            this.taken = 0;
            ready!(read)?;
        }
        let rest = &this.room[this.taken..];
        let some = rest.len().min(to.remaining());
        to.put_slice(&rest[..some]);
        this.taken += some;
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, bytes)
    }
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}
