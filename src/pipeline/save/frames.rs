//! Frames on their way from the lists to the encoders. Each has one of [`PLACES`] from its first objects until it is compressed:
//! that bounds what all of them hold, wherever they wait.

use crate::archive::encoders::Encoders;
use crate::archive::frame::{FilledFrame, FrameBuilder, Object};
use crate::pipeline::Error;
use crate::resource::Kind;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Frames that are being filled, wait, or are being compressed. As many as lists: while one is compressed, three are filled.
pub(super) const PLACES: usize = 4;

/// A filled frame with its place.
pub(super) struct Placed {
    pub(super) frame: FilledFrame,
    pub(super) place: OwnedSemaphorePermit,
}

/// Where lists send their frames.
pub(super) struct Frames {
    filled: mpsc::Sender<Placed>,
    places: Arc<Semaphore>,
    encoders: Encoders,
}

impl Frames {
    /// All places are free.
    pub(super) fn new() -> (Self, mpsc::Receiver<Placed>) {
        let (filled, to_compress) = mpsc::channel(PLACES);
        (Self { filled, places: Arc::new(Semaphore::new(PLACES)), encoders: Encoders::default() }, to_compress)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.places).acquire_owned().await.map_err(nobody)
    }
}

/// The frame that a list fills.
pub(super) struct Filling<'a> {
    frames: &'a Frames,
    builder: FrameBuilder,
    /// That of the frame which is being filled.
    place: Option<OwnedSemaphorePermit>,
    full: Vec<FilledFrame>,
}

impl<'a> Filling<'a> {
    /// Nothing yet, and no place.
    pub(super) fn new(kind: &Kind, frames: &'a Frames) -> Self {
        Self { frames, builder: FrameBuilder::new(kind, &frames.encoders), place: None, full: Vec::new() }
    }

    /// Adds an object. What that fills waits for [`Self::pass_on`].
    pub(super) fn push(&mut self, object: &Object<'_>) -> Result<(), Error> {
        self.builder.push(object)?;
        if self.builder.is_full() {
            self.full.extend(self.builder.take()?);
        }
        Ok(())
    }

    /// Sends what is full, and waits for a place for what is not: called after each piece of a list, that is as far as a
    /// list goes without one.
    pub(super) async fn pass_on(&mut self) -> Result<(), Error> {
        for frame in std::mem::take(&mut self.full) {
            let place = match self.place.take() {
                Some(place) => place,
                None => self.frames.place().await?,
            };
            self.frames.filled.send(Placed { frame, place }).await.map_err(nobody)?;
        }
        if self.place.is_none() && !self.builder.is_empty() {
            self.place = Some(self.frames.place().await?);
        }
        Ok(())
    }

    /// Sends the last one, too.
    pub(super) async fn finish(mut self) -> Result<(), Error> {
        self.full.extend(self.builder.take()?);
        self.pass_on().await
    }
}

fn nobody<E>(_: E) -> Error {
    Error::Thread("nobody takes frames any more".to_owned())
}
