//! [`Encoders`] that go from frame to frame: what one leaves the next takes. The buffers of frames don't: what is kept for
//! the next frame has been filled once and so stays in memory whole, also while it holds little, and with 128 KiB and more
//! they come from the system and go back to it (`jobs::submit::WORKER_ENV`). With 52,000 objects, keeping them took 8 MiB
//! and saved 0.1 s of CPU time.

use super::Error;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use zstd::bulk::Compressor;

/// Compression level: higher ones cost more time than they save space on lists of objects (38.0 MB in 350 ms at 1, 37.7 MB in
/// 450 ms at 3).
const LEVEL: i32 = 1;

/// Encoders that nobody uses at the moment.
#[derive(Clone, Default)]
pub struct Encoders(Arc<Mutex<Vec<Compressor<'static>>>>);

impl Encoders {
    /// One zstd frame of data, with a checksum.
    pub(super) fn compress(&self, data: &[u8]) -> Result<Bytes, Error> {
        let idle = self.idle().pop();
        let mut encoder = idle.map_or_else(new, Ok).map_err(Error::Compress)?;
        let bytes = encoder.compress(data).map_err(Error::Compress)?;
        self.idle().push(encoder);
        Ok(Bytes::from(bytes))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Compressor<'static>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new() -> std::io::Result<Compressor<'static>> {
    let mut encoder = Compressor::new(LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}
