//! [`Buffers`] and encoders that go from frame to frame: what one leaves the next takes. After the first few frames
//! nothing large is allocated any more, and memory is what the sum in `pipeline::save` says, whatever the allocator does
//! with holes.

use super::Error;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Compression level: higher ones cost more time than they save space on lists of objects (38.0 MB in 350 ms at 1, 37.7 MB in
/// 450 ms at 3).
const LEVEL: i32 = 1;
/// Buffers that a very large object has made larger than this are not kept.
const KEPT: usize = 4 * 1024 * 1024;

/// Buffers of frames that are being filled, and of those that are compressed.
#[derive(Clone, Default)]
pub struct Buffers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tars: Mutex<Vec<Vec<u8>>>,
    compressed: Mutex<Vec<Vec<u8>>>,
    encoders: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
}

/// A compressed frame's bytes, whose buffer goes back when the last of them is done with.
struct Lent {
    bytes: Vec<u8>,
    buffers: Buffers,
}

impl Buffers {
    /// An empty buffer with room for a frame.
    pub(super) fn tar(&self, room: usize) -> Vec<u8> {
        taken(&self.0.tars).unwrap_or_else(|| Vec::with_capacity(room))
    }

    /// Takes back the buffer of a frame that has been compressed.
    pub(super) fn done(&self, tar: Vec<u8>) {
        keep(&self.0.tars, tar);
    }

    /// One zstd frame of data, with a checksum.
    pub(super) fn compress(&self, data: &[u8]) -> Result<Bytes, Error> {
        let mut encoder = match taken(&self.0.encoders) {
            Some(encoder) => encoder,
            None => encoder().map_err(Error::Compress)?,
        };
        let mut bytes = taken(&self.0.compressed).unwrap_or_default();
        bytes.reserve(zstd::zstd_safe::compress_bound(data.len()));
        encoder.compress_to_buffer(data, &mut bytes).map_err(Error::Compress)?;
        lock(&self.0.encoders).push(encoder);
        Ok(Bytes::from_owner(Lent { bytes, buffers: self.clone() }))
    }
}

fn encoder() -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut encoder = zstd::bulk::Compressor::new(LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

fn lock<T>(shelf: &Mutex<Vec<T>>) -> std::sync::MutexGuard<'_, Vec<T>> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

fn taken<T>(shelf: &Mutex<Vec<T>>) -> Option<T> {
    lock(shelf).pop()
}

fn keep(shelf: &Mutex<Vec<Vec<u8>>>, mut buffer: Vec<u8>) {
    if buffer.capacity() <= KEPT {
        buffer.clear();
        lock(shelf).push(buffer);
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        keep(&self.buffers.0.compressed, std::mem::take(&mut self.bytes));
    }
}
