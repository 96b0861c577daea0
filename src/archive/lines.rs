//! JSON lines under zstd, written and read piece by piece: the index and the log.

use super::Error;
use bytes::Bytes;
use serde::Serialize;
use std::io::{BufRead, BufReader, Read, Write};

/// Bytes a line may have.
const LINE_LIMIT: u64 = 16 * 1024;

/// Compresses lines as they come; what is ready can be taken away at any time.
pub struct LineWriter(zstd::Encoder<'static, Vec<u8>>);

impl LineWriter {
    /// No lines yet.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn new() -> Result<Self, Error> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).map_err(Error::Compress)?;
        encoder.include_checksum(true).map_err(Error::Compress)?;
        Ok(Self(encoder))
    }

    /// Adds a value as a line.
    ///
    /// # Errors
    /// When the value can't be JSON.
    pub fn line(&mut self, value: &impl Serialize) -> Result<(), Error> {
        serde_json::to_writer(&mut self.0, value).map_err(|source| Error::Compress(source.into()))?;
        self.lines(b"\n")
    }

    /// Adds lines that are ready, each with its line feed.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn lines(&mut self, lines: &[u8]) -> Result<(), Error> {
        self.0.write_all(lines).map_err(Error::Compress)
    }

    /// Takes away what is compressed so far.
    pub fn ready(&mut self) -> Bytes {
        Bytes::from(std::mem::take(self.0.get_mut()))
    }

    /// Takes away the rest.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn finish(self) -> Result<Bytes, Error> {
        self.0.finish().map(Bytes::from).map_err(Error::Compress)
    }
}

/// Gives each line of a compressed file to a function, one at a time and without holding the others.
///
/// # Errors
/// [`Error::Damaged`] when it doesn't decompress or a line is longer than 16 KiB; and whatever the function returns.
pub fn each_line<E: From<Error>>(
    what: &str,
    compressed: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let damaged = |error: std::io::Error| Error::damaged(what, error.to_string());
    let mut reader = BufReader::new(zstd::Decoder::new(compressed).map_err(damaged)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_LIMIT + 1).read_until(b'\n', &mut line).map_err(damaged)?;
        if read == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if read as u64 > LINE_LIMIT {
            return Err(Error::damaged(what, format!("a line has more than {LINE_LIMIT} bytes")).into());
        }
        each(&line)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(bytes: &[u8]) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        each_line("the test", bytes, |line| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Ok::<_, Error>(())
        })?;
        Ok(lines)
    }

    #[test]
    fn lines_come_back_whenever_they_were_taken() {
        let mut writer = LineWriter::new().unwrap();
        let mut bytes = Vec::new();
        let expected: Vec<String> = (0..50_000).map(|n| format!("{{\"n\":{n}}}")).collect();
        for line in &expected {
            writer.line(&serde_json::from_str::<serde_json::Value>(line).unwrap()).unwrap();
            bytes.extend_from_slice(&writer.ready());
        }
        assert!(!bytes.is_empty());
        bytes.extend_from_slice(&writer.finish().unwrap());
        assert_eq!(collect(&bytes).unwrap(), expected);
    }

    #[test]
    fn truncated_and_endless_lines_are_refused() {
        let mut writer = LineWriter::new().unwrap();
        writer.lines(&vec![b'x'; 1 << 20]).unwrap();
        let bytes = writer.finish().unwrap();
        assert!(collect(&bytes).unwrap_err().to_string().contains("more than 16384 bytes"));
        let mut writer = LineWriter::new().unwrap();
        writer.lines(b"{}\n{}\n").unwrap();
        let bytes = writer.finish().unwrap();
        assert!(matches!(collect(&bytes[..bytes.len() - 5]), Err(Error::Damaged { .. })));
    }
}
