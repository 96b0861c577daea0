//! Bodies of unknown length: multipart uploads, each part sent from memory before the next is filled. What fits into one
//! part is one conditional PUT instead.

use super::Bucket;
use super::call::{Action, Deed};
use crate::store::{Error, PendingUpload, Upload};
use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Parts that S3 takes in one upload.
const PARTS_LIMIT: usize = 10_000;
/// Bytes up to which a buffer grows as it is filled. Beyond, it gets the room of a whole part at once: each doubling on
/// the way would leave a hole of some MiB behind.
const SMALL: usize = 256 * 1024;

/// How long an abort waits for the answer to the call that began what is to be aborted.
const BEGINNING: Duration = Duration::from_secs(5);

/// A body on its way into a bucket.
pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: String,
    /// The part that is being filled.
    buffer: BytesMut,
    counted: u64,
    /// The call that begins the multipart upload. It goes on when nobody waits for it any more: what S3 has begun by then
    /// must be aborted.
    beginning: Option<JoinHandle<Result<String, Error>>>,
    multipart: Option<Multipart>,
    ended: bool,
}

/// A multipart upload that S3 knows.
struct Multipart {
    id: String,
    /// In their order, which is that of their numbers.
    sent: Vec<CompletedPart>,
}

impl S3Upload {
    pub(super) fn new(bucket: Arc<Bucket>, key: &str) -> Self {
        let (key, buffer) = (key.to_owned(), BytesMut::new());
        Self { bucket, key, buffer, counted: 0, beginning: None, multipart: None, ended: false }
    }

    /// Begins the multipart upload.
    async fn begin(&mut self) -> Result<Multipart, Error> {
        let beginning = self.beginning.get_or_insert_with(|| {
            let (bucket, key) = (Arc::clone(&self.bucket), self.key.clone());
            tokio::spawn(async move { bucket.begin(&key).await })
        });
        let begun = beginning.await;
        self.beginning = None;
        let ended = |ended| {
            let deed = Deed::new(Action::CreateMultipartUpload, &self.key);
            self.bucket.refused(deed, format!("its task ended: {ended}"))
        };
        Ok(Multipart { id: begun.map_err(ended)??, sent: Vec::new() })
    }

    /// Sends what the buffer holds as a part. The buffer stays for the next one.
    async fn send_part(&mut self) -> Result<(), Error> {
        if self.multipart.is_none() {
            self.multipart = Some(self.begin().await?);
        }
        let (bucket, key) = (&self.bucket, &self.key);
        let Some(multipart) = &mut self.multipart else { return Ok(()) };
        if multipart.sent.len() == PARTS_LIMIT {
            let limit = (PARTS_LIMIT * bucket.part_size) as u64;
            return Err(Error::TooLarge { place: bucket.place(Some(key)), limit });
        }
        let body = std::mem::take(&mut self.buffer).freeze();
        let number = i32::try_from(multipart.sent.len() + 1).unwrap_or(i32::MAX);
        multipart.sent.push(bucket.send_part(key, &multipart.id, number, &body).await?);
        self.buffer = body.try_into_mut().unwrap_or_default();
        self.buffer.clear();
        Ok(())
    }

    async fn fill(&mut self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.buffer.len() == self.bucket.part_size {
                self.send_part().await?;
            }
            if self.buffer.len() + bytes.len() > SMALL && self.buffer.capacity() < self.bucket.part_size {
                self.buffer.reserve(self.bucket.part_size - self.buffer.len());
            }
            let some = bytes.split_to(bytes.len().min(self.bucket.part_size - self.buffer.len()));
            self.buffer.extend_from_slice(&some);
            self.counted += some.len() as u64;
        }
        Ok(())
    }

    /// Sends the last part, has S3 put all together, and asks for the length.
    async fn complete(&mut self) -> Result<u64, Error> {
        if self.multipart.is_none() {
            self.complete_small().await?;
        } else {
            self.send_part().await?;
            if let Some(multipart) = &self.multipart {
                self.bucket.complete(&self.key, &multipart.id, &multipart.sent).await?;
            }
            self.multipart = None;
        }
        let there = self.bucket.length(&self.key).await?;
        if there != self.counted {
            let why = format!("{} bytes were uploaded and {there} are there", self.counted);
            return Err(Error::Integrity { place: self.bucket.place(Some(&self.key)), why });
        }
        Ok(there)
    }

    /// One conditional PUT. When an answer was lost and the retry finds the key taken, what has it may be ours.
    async fn complete_small(&mut self) -> Result<(), Error> {
        let body = std::mem::take(&mut self.buffer).freeze();
        let put = self.bucket.put_new(&self.key, &body).await;
        match put.result {
            Err(Error::Exists { place }) if put.unsure => {
                let there = self.bucket.read(&self.key, None, body.len() as u64).await;
                if there.is_ok_and(|there| there == body) { Ok(()) } else { Err(Error::Exists { place }) }
            }
            result => result,
        }
    }

    /// Ends the multipart upload, if there is one. No part is on its way then: S3 would keep what arrives after the abort.
    async fn discard(&mut self) -> Result<(), Error> {
        self.ended = true;
        self.buffer = BytesMut::new();
        if self.beginning.is_some()
            && let Ok(Ok(begun)) = timeout(BEGINNING, self.begin()).await
        {
            self.multipart = Some(begun);
        }
        match self.multipart.take() {
            None => Ok(()),
            Some(multipart) => self.bucket.abort(&self.key, &multipart.id).await,
        }
    }

    async fn discard_after<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if result.is_err()
            && let Err(error) = self.discard().await
        {
            // A later run sweeps it; what made the upload fail matters more.
            tracing::warn!(key = self.key, %error, "the upload could not be aborted");
        }
        result
    }
}

#[async_trait]
impl Upload for S3Upload {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        if self.ended {
            return Err(self
                .bucket
                .refused(Deed::new(Action::UploadPart, &self.key), "an error has ended it".to_owned()));
        }
        let result = self.fill(bytes).await;
        self.discard_after(result).await
    }

    async fn finish(mut self: Box<Self>) -> Result<u64, Error> {
        if self.ended {
            return self.write(Bytes::new()).await.map(|()| 0);
        }
        let result = self.complete().await;
        self.ended = result.is_ok();
        self.discard_after(result).await
    }

    async fn abort(mut self: Box<Self>) -> Result<(), Error> {
        self.discard().await
    }
}

impl Drop for S3Upload {
    fn drop(&mut self) {
        let (multipart, beginning) = (self.multipart.take(), self.beginning.take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if multipart.is_none() && beginning.is_none() {
            return;
        }
        let (bucket, key) = (Arc::clone(&self.bucket), std::mem::take(&mut self.key));
        runtime.spawn(async move {
            let begun = match beginning {
                Some(beginning) => beginning.await.ok().and_then(Result::ok),
                None => None,
            };
            let Some(id) = multipart.map(|multipart| multipart.id).or(begun) else { return };
            if let Err(error) = bucket.abort(&key, &id).await {
                tracing::warn!(key, %error, "an upload that was dropped could not be aborted");
            }
        });
    }
}

impl Bucket {
    /// Begins a multipart upload.
    async fn begin(&self, key: &str) -> Result<String, Error> {
        let deed = Deed::new(Action::CreateMultipartUpload, key);
        let attempt = || async move {
            let begin = self.client.create_multipart_upload().bucket(&self.name).key(self.full(key));
            let begin = begin.checksum_algorithm(ChecksumAlgorithm::Crc32);
            begin.send().await.map_err(|error| self.judge(deed, error))
        };
        let answer = self.call(deed, attempt).await.result?;
        answer.upload_id.ok_or_else(|| self.refused(deed, "the answer has no upload id".to_owned()))
    }

    /// Sends a part with its checksum.
    async fn send_part(&self, key: &str, id: &str, number: i32, body: &Bytes) -> Result<CompletedPart, Error> {
        let deed = Deed::new(Action::UploadPart, key).moving(body.len() as u64);
        let attempt = || async move {
            let send =
                self.client.upload_part().bucket(&self.name).key(self.full(key)).upload_id(id).part_number(number);
            let send = send.checksum_algorithm(ChecksumAlgorithm::Crc32).body(ByteStream::from(body.clone()));
            send.send().await.map_err(|error| self.judge(deed, error))
        };
        let answer = self.call(deed, attempt).await.result.map_err(|error| self.ended_by_others(deed, error))?;
        let part = CompletedPart::builder().part_number(number).set_e_tag(answer.e_tag);
        // Servers that ignore the checksum don't want it back.
        Ok(part.set_checksum_crc32(answer.checksum_crc32).build())
    }

    /// Has S3 put the parts together. An answer that was lost may leave nothing to complete: then the key
    /// must be there, and the caller looks at its length.
    async fn complete(&self, key: &str, id: &str, parts: &[CompletedPart]) -> Result<(), Error> {
        let deed = Deed::new(Action::CompleteMultipartUpload, key);
        let parts = &CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        let attempt = || async move {
            let complete = self.client.complete_multipart_upload().bucket(&self.name).key(self.full(key)).upload_id(id);
            let complete = complete.multipart_upload(parts.clone());
            complete.send().await.map(|_| ()).map_err(|error| self.judge(deed, error))
        };
        let completed = self.call(deed, attempt).await;
        match completed.result {
            Err(Error::NotFound { .. }) if completed.unsure && self.length(key).await.is_ok() => Ok(()),
            result => result.map_err(|error| self.ended_by_others(deed, error)),
        }
    }

    /// Says of an upload that S3 doesn't know any more what must have happened.
    fn ended_by_others(&self, deed: Deed<'_>, error: Error) -> Error {
        match error {
            Error::NotFound { .. } => self.refused(deed, "somebody has ended the upload".to_owned()),
            error => error,
        }
    }

    /// Ends a multipart upload. It is fine when it has ended.
    pub(super) async fn abort(&self, key: &str, id: &str) -> Result<(), Error> {
        let deed = Deed::new(Action::AbortMultipartUpload, key);
        let attempt = || async move {
            let abort = self.client.abort_multipart_upload().bucket(&self.name).key(self.full(key)).upload_id(id);
            abort.send().await.map(|_| ()).map_err(|error| self.judge(deed, error))
        };
        match self.call(deed, attempt).await.result {
            Err(Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// The multipart uploads below a prefix that haven't ended. Other servers than AWS's may take the prefix for a whole
    /// key (MinIO does), so there all of the bucket's are listed and chosen from.
    pub(super) async fn pending(&self, prefix: &str) -> Result<Vec<PendingUpload>, Error> {
        let deed = Deed::of_bucket(Action::ListMultipartUploads);
        let full = self.full(prefix);
        let asked = &self.endpoint.is_none().then(|| full.clone());
        let (mut pending, mut from) = (Vec::new(), None::<(String, String)>);
        loop {
            let marker = &from;
            let attempt = || async move {
                let list = self.client.list_multipart_uploads().bucket(&self.name).set_prefix(asked.clone());
                let (key, id) = marker.clone().unzip();
                let list = list.set_key_marker(key).set_upload_id_marker(id);
                list.send().await.map_err(|error| self.judge(deed, error))
            };
            let answer = self.call(deed, attempt).await.result?;
            pending.extend(answer.uploads().iter().filter_map(|upload| {
                let key = upload.key().filter(|key| key.starts_with(&full))?.strip_prefix(&self.prefix)?;
                let (id, initiated) = (upload.upload_id()?.to_owned(), super::time(upload.initiated()));
                Some(PendingUpload { key: key.to_owned(), initiated, id })
            }));
            let next = answer.next_key_marker.zip(answer.next_upload_id_marker);
            match next {
                Some(next) if answer.is_truncated == Some(true) && from.as_ref() != Some(&next) => from = Some(next),
                _ => return Ok(pending),
            }
        }
    }
}
