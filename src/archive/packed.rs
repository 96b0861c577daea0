//! JSON that waits in memory until there is room for it: what a restore came to is written down while its whole plan is
//! still there.

use super::Error;
use bytes::Bytes;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// Bytes that are compressed at once.
const CHUNK: usize = 64 * 1024;

/// A value as JSON, compressed.
#[derive(Debug)]
pub struct Packed {
    zstd: Vec<u8>,
    size: usize,
}

/// Counts what is written to it.
struct Counted<W> {
    to: W,
    size: usize,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.size += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Packed {
    /// Packs a value.
    ///
    /// # Errors
    /// When it can't be JSON, or zstd gets no memory.
    pub fn of(value: &impl Serialize) -> Result<Self, Error> {
        let encoder = zstd::Encoder::new(Vec::new(), 1).map_err(Error::Compress)?;
        let mut writer = BufWriter::with_capacity(CHUNK, Counted { to: encoder, size: 0 });
        serde_json::to_writer(&mut writer, value).map_err(|source| Error::Compress(source.into()))?;
        let Counted { to, size } = writer.into_inner().map_err(|error| Error::Compress(error.into_error()))?;
        let mut zstd = to.finish().map_err(Error::Compress)?;
        zstd.shrink_to_fit();
        Ok(Self { zstd, size })
    }

    /// The JSON.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn open(&self) -> Result<Bytes, Error> {
        zstd::bulk::decompress(&self.zstd, self.size).map(Bytes::from).map_err(Error::Compress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        for count in [0, 1, 100_000] {
            let value: Vec<String> = (0..count).map(|number| format!("object-{number}")).collect();
            let packed = Packed::of(&value).unwrap();
            let opened = packed.open().unwrap();
            assert_eq!(opened, serde_json::to_vec(&value).unwrap(), "{count}");
            assert!(count < 2 || packed.zstd.len() * 4 < opened.len(), "{}", packed.zstd.len());
        }
    }
}
