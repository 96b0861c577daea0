//! A stand-in for the API server's exec, for tests: one connection or many, WebSocket (RFC 6455) by hand, subprotocol
//! v5.channel.k8s.io. Models: the handshake with `Sec-WebSocket-Accept`, channel-numbered binary messages, the empty
//! messages that open each channel, masked client frames, an answer that is no upgrade, a connection that just ends.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does once connected.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends bytes on a channel: 1 stdout, 2 stderr, 3 status.
    Send(u8, Vec<u8>),
    /// Waits until the client has sent this on stdin.
    Expect(&'static str),
    /// Says nothing, and keeps the connection.
    Hang,
}

/// The status of a command that succeeded.
pub(crate) fn success() -> Step {
    Step::Send(3, br#"{"metadata":{},"status":"Success"}"#.to_vec())
}

/// Starts a server for one connection that runs these steps and closes; gives a client for it and the request line it got.
pub(crate) async fn exec_server(steps: Vec<Step>) -> (kube::Client, Arc<Mutex<String>>) {
    serve(move |stream, key| Box::pin(speak(stream, key, steps))).await
}

/// Starts a server for one connection that answers with an HTTP status and a body.
pub(crate) async fn refusing_server(code: u16, body: String) -> kube::Client {
    let answer =
        format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let speak = move |mut stream: TcpStream, _| -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move { stream.write_all(answer.as_bytes()).await.unwrap() })
    };
    serve(speak).await.0
}

/// What a server with many connections answers to a request.
pub(crate) enum Answer {
    /// A status and a body.
    Json(u16, String),
    /// An exec that runs these steps.
    Exec(Vec<Step>),
}

/// Starts a server that answers every request by its first line, such as `GET /version HTTP/1.1`, one on each connection.
pub(crate) async fn api_server(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> kube::Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            // a client that gave up has closed; its test looks at its own side
            tokio::spawn(async move { answer_one(stream, answer.as_ref()).await.ok() });
        }
    });
    kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap()
}

async fn answer_one(mut stream: TcpStream, answer: &(impl Fn(&str) -> Answer + Sync)) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    let length = field("content-length: ").parse().unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).await?;
    match answer(head.lines().next().unwrap()) {
        Answer::Json(code, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
            );
            stream.write_all((head + &body).as_bytes()).await
        }
        Answer::Exec(steps) => {
            speak(stream, field("sec-websocket-key: "), steps).await;
            Ok(())
        }
    }
}

async fn serve<F>(speak: F) -> (kube::Client, Arc<Mutex<String>>)
where
    F: FnOnce(TcpStream, String) -> futures::future::BoxFuture<'static, ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let request = Arc::new(Mutex::new(String::new()));
    let seen = request.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        *seen.lock().unwrap() = head.lines().next().unwrap().to_owned();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
        speak(stream, key.unwrap_or_default().to_owned()).await;
    });
    let config = kube::Config::new(url.parse().unwrap());
    (kube::Client::try_from(config).unwrap(), request)
}

async fn speak(mut stream: TcpStream, key: String, steps: Vec<Step>) {
    let accept = base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {accept}\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for channel in 0..4 {
        stream.write_all(&message(channel, b"")).await.unwrap();
    }
    for step in steps {
        match step {
            // a client that gave up has closed; its test looks at its own side
            Step::Send(channel, bytes) => match stream.write_all(&message(channel, &bytes)).await {
                Ok(()) => (),
                Err(_) => return,
            },
            Step::Expect(text) => {
                let mut got = Vec::new();
                while !String::from_utf8_lossy(&got).contains(text) {
                    got.extend(read_stdin(&mut stream).await);
                }
            }
            Step::Hang => std::future::pending().await,
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() + 1;
    let mut frame = vec![0x82];
    match length {
        0..=125 => frame.push(length as u8),
        126..=65535 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.push(channel);
    frame.extend(bytes);
    frame
}

/// One client frame, unmasked, without its channel; only what fits 125 bytes, which is all our tests send.
async fn read_stdin(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 6];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload).await.unwrap();
    let bytes: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ head[2 + at % 4]).collect();
    if head[0] == 0x82 && bytes.first() == Some(&0) { bytes[1..].to_vec() } else { Vec::new() }
}

/// SHA-1 (RFC 3174), for the handshake only.
fn sha1(bytes: &[u8]) -> Vec<u8> {
    let mut data = bytes.to_vec();
    data.push(0x80);
    while data.len() % 64 != 56 {
        data.push(0);
    }
    data.extend((bytes.len() as u64 * 8).to_be_bytes());
    let mut hash: [u32; 5] = [0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0];
    for block in data.chunks(64) {
        let mut words: Vec<u32> = block.chunks(4).map(|b| u32::from_be_bytes(b.try_into().unwrap())).collect();
        for at in 16..80 {
            words.push((words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = hash;
        for (at, word) in words.iter().enumerate() {
            let (mix, constant) = match at / 20 {
                0 => ((b & c) | (!b & d), 0x5A827999),
                1 => (b ^ c ^ d, 0x6ED9EBA1),
                2 => ((b & c) | (b & d) | (c & d), 0x8F1BBCDC),
                _ => (b ^ c ^ d, 0xCA62C1D6u32),
            };
            let next = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, part) in hash.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    hash.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
