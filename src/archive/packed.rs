//! What waits in memory until somebody takes it: what an operation came to, which of a large restore is as much as all else
//! that is held of it.

use super::Error;
use bytes::Bytes;
use serde::Serialize;
use std::io::{self, BufWriter, Read, Write};

/// Bytes that are compressed at once.
const CHUNK: usize = 64 * 1024;

/// Bytes, compressed.
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
    /// Packs bytes.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let zstd = zstd::bulk::compress(bytes, 1).map_err(Error::Compress)?;
        Ok(Self { zstd, size: bytes.len() })
    }

    /// Packs a value as JSON.
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

    /// Bytes that come out.
    pub fn size(&self) -> usize {
        self.size
    }

    /// All of it at once.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn open(&self) -> Result<Vec<u8>, Error> {
        zstd::bulk::decompress(&self.zstd, self.size).map_err(Error::Compress)
    }

    /// All of it, in pieces of this many bytes.
    ///
    /// # Errors
    /// When zstd gets no memory.
    pub fn pieces(&self, size: usize) -> Result<impl Iterator<Item = Result<Bytes, Error>>, Error> {
        let mut decoder = zstd::Decoder::with_buffer(self.zstd.as_slice()).map_err(Error::Compress)?;
        let mut left = self.size;
        Ok(std::iter::from_fn(move || {
            let mut piece = vec![0; left.min(size)];
            if piece.is_empty() {
                return None;
            }
            left -= piece.len();
            Some(decoder.read_exact(&mut piece).map(|()| Bytes::from(piece)).map_err(Error::Compress))
        }))
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
            let (opened, pieces) = (packed.open().unwrap(), packed.pieces(1000).unwrap());
            assert_eq!(opened, serde_json::to_vec(&value).unwrap(), "{count}");
            let pieces: Vec<Bytes> = pieces.map(Result::unwrap).collect();
            assert_eq!(pieces.concat(), opened, "{count}");
            assert_eq!((packed.size(), pieces.len()), (opened.len(), opened.len().div_ceil(1000)));
            let again = Packed::of_bytes(&opened).unwrap();
            assert_eq!((again.open().unwrap(), again.size()), (opened.clone(), opened.len()));
            assert!(count < 2 || packed.zstd.len() * 4 < opened.len(), "{}", packed.zstd.len());
        }
    }
}
