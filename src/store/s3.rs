//! S3, and servers that speak like it. Everything in a request is in memory, so that any request can be sent again and
//! its checksum goes as a plain header, which every server understands or ignores; streamed bodies carry theirs in
//! trailers, which some servers store as part of the body.
//!
//! `client` makes the client, `call` tries again, `fault` judges answers, `upload` writes bodies in
//! parts.

mod call;
mod client;
mod fault;
mod upload;

use super::{Error, Listed, PendingUpload, Store, Upload, key};
use crate::aws::identity::Environment;
use crate::aws::{Access, causes};
use crate::config;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::{Bytes, BytesMut};
use call::{Action, Deed, Patience, Tried, call, within};
use fault::Fault;
use jiff::Timestamp;
use std::ops::Range;
use std::sync::Arc;

/// A bucket, or a prefix in one, as a store.
pub(super) struct S3Store {
    bucket: Arc<Bucket>,
}

/// A bucket and how to talk to it.
struct Bucket {
    client: Client,
    name: String,
    /// What all keys begin with: empty, or ends with `/`.
    prefix: String,
    region: String,
    endpoint: Option<String>,
    /// The location, for messages.
    described: String,
    environment: Environment,
    patience: Patience,
    /// [`crate::store::PART_SIZE`], except in tests.
    part_size: usize,
}

impl S3Store {
    /// Makes the client. Asks S3 nothing, but for the bucket's region where nobody told it.
    pub(super) async fn open(place: &config::S3, described: String, access: &Access) -> Result<Self, Error> {
        Ok(Self { bucket: Arc::new(client::bucket(place, described, access).await?) })
    }
}

impl Bucket {
    /// The whole key.
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A key, or the bucket, for messages.
    fn place(&self, key: Option<&str>) -> String {
        match key {
            Some(key) => format!("s3://{}/{}", self.name, self.full(key)),
            None => format!("s3://{}", self.name),
        }
    }

    /// The location's URL with another region.
    fn url_in(&self, region: &str) -> String {
        let endpoint = self.endpoint.as_ref().map(|endpoint| format!("&endpoint={endpoint}")).unwrap_or_default();
        format!("{}?region={region}{endpoint}", self.described)
    }

    /// What an IAM policy calls the bucket, or what is below the location's prefix.
    fn arn(&self, of_keys: bool) -> String {
        let partition = match &self.region {
            region if region.starts_with("cn-") => "aws-cn",
            region if region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        };
        let keys = if of_keys { format!("/{}*", self.prefix) } else { String::new() };
        format!("arn:{partition}:s3:::{}{keys}", self.name)
    }

    /// Tries a call until it succeeds, fails for good, or patience ends.
    async fn call<T, Answer>(&self, deed: Deed<'_>, attempt: impl FnMut() -> Answer) -> Tried<T>
    where
        Answer: Future<Output = Result<T, Fault>>,
    {
        call(&self.patience, deed, &self.place(deed.key), attempt).await
    }

    /// One conditional PUT.
    async fn put_new(&self, key: &str, body: &Bytes) -> Tried<()> {
        let deed = Deed::new(Action::PutObject, key).moving(body.len() as u64);
        let attempt = || async move {
            let put = self.client.put_object().bucket(&self.name).key(self.full(key)).if_none_match("*");
            let put = put.checksum_algorithm(ChecksumAlgorithm::Crc32).body(ByteStream::from(body.clone()));
            put.send().await.map(|_| ()).map_err(|error| self.judge(deed, error))
        };
        self.call(deed, attempt).await
    }

    /// Reads a body, or a range of it.
    async fn read(&self, key: &str, range: Option<Range<u64>>, limit: u64) -> Result<Bytes, Error> {
        let (deed, range) = (Deed::new(Action::GetObject, key), range.as_ref());
        let attempt = || async move {
            let header = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
            let get = self.client.get_object().bucket(&self.name).key(self.full(key)).set_range(header);
            let head = async { get.send().await.map_err(|error| self.judge(deed, error)) };
            let answer = within(self.patience.answer, head).await?;
            self.check_head(key, range, limit, &answer)?;
            let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
            within(self.patience.for_bytes(length.unwrap_or(limit)), self.collect(key, answer, limit)).await
        };
        let body = self.call(deed, attempt).await.result?;
        match range {
            Some(range) if body.len() as u64 != range.end - range.start => {
                Err(self.not_the_range(key, range, body.len() as u64))
            }
            _ => Ok(body),
        }
    }

    /// Checks what the answer says of itself before its body is read.
    fn check_head(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        limit: u64,
        answer: &GetObjectOutput,
    ) -> Result<(), Fault> {
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let Some(range) = range else {
            return match length {
                Some(length) if length > limit => Err(Fault::Final(self.too_large(key, limit))),
                _ => Ok(()),
            };
        };
        let begins_elsewhere =
            answer.content_range().is_some_and(|told| !told.starts_with(&format!("bytes {}-", range.start)));
        match length {
            Some(length) if length != range.end - range.start || begins_elsewhere => {
                Err(Fault::Final(self.not_the_range(key, range, length)))
            }
            _ => Ok(()),
        }
    }

    /// Reads the body within the attempt, so that a connection that breaks off on the way makes another.
    async fn collect(&self, key: &str, answer: GetObjectOutput, limit: u64) -> Result<Bytes, Fault> {
        let told = answer.content_length().and_then(|length| usize::try_from(length).ok());
        let mut collected = BytesMut::with_capacity(told.unwrap_or_default());
        let mut body = answer.body;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| self.broken_body(key, &error))?;
            if (collected.len() + chunk.len()) as u64 > limit {
                return Err(Fault::Final(self.too_large(key, limit)));
            }
            collected.extend_from_slice(&chunk);
        }
        match told {
            Some(told) if told != collected.len() => {
                Err(Fault::passing(format!("the body broke off after {} of {told} bytes", collected.len())))
            }
            _ => Ok(collected.freeze()),
        }
    }

    /// A body that can't be read to its end: broken off, or other than its checksum says.
    fn broken_body(&self, key: &str, error: &(dyn std::error::Error + 'static)) -> Fault {
        let why = causes(error);
        let damaged = why.contains("checksum mismatch");
        let error = || Box::new(Error::Integrity { place: self.place(Some(key)), why: why.clone() });
        Fault::Passing { error: damaged.then(error), why: why.clone(), may_have_worked: false }
    }

    fn too_large(&self, key: &str, limit: u64) -> Error {
        Error::TooLarge { place: self.place(Some(key)), limit }
    }

    fn not_the_range(&self, key: &str, range: &Range<u64>, came: u64) -> Error {
        let why = format!("bytes {}..{} were asked for and {came} came", range.start, range.end);
        Error::Integrity { place: self.place(Some(key)), why }
    }

    /// The length of a body.
    async fn length(&self, key: &str) -> Result<u64, Error> {
        let deed = Deed::new(Action::HeadObject, key);
        let attempt = || async move {
            let head = self.client.head_object().bucket(&self.name).key(self.full(key));
            let answer = head.send().await.map_err(|error| self.judge(deed, error))?;
            let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
            length.ok_or_else(|| Fault::Final(self.refused(deed, "the answer has no length".to_owned())))
        };
        self.call(deed, attempt).await.result
    }

    /// One page of a list, and where the next begins.
    async fn page(&self, prefix: &str, from: Option<&str>) -> Result<(Vec<Listed>, Option<String>), Error> {
        let deed = Deed::of_bucket(Action::ListObjects);
        let attempt = || async move {
            let list = self.client.list_objects_v2().bucket(&self.name).prefix(self.full(prefix));
            let list = list.set_continuation_token(from.map(str::to_owned));
            list.send().await.map_err(|error| self.judge(deed, error))
        };
        let answer = self.call(deed, attempt).await.result?;
        let entry = |object: &aws_sdk_s3::types::Object| {
            Some(Listed {
                key: object.key()?.strip_prefix(&self.prefix)?.to_owned(),
                size: u64::try_from(object.size()?).ok()?,
                modified: time(object.last_modified()),
            })
        };
        let listed = answer.contents().iter().filter_map(entry).collect();
        match (answer.is_truncated(), answer.next_continuation_token) {
            (Some(true), Some(next)) if from != Some(next.as_str()) => Ok((listed, Some(next))),
            (Some(true), _) => Err(self.refused(deed, "the list goes on and nobody says where".to_owned())),
            _ => Ok((listed, None)),
        }
    }
}

/// S3's time as ours.
fn time(time: Option<&DateTime>) -> Timestamp {
    let time = time.and_then(|time| Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok());
    time.unwrap_or(Timestamp::UNIX_EPOCH)
}

#[async_trait]
impl Store for S3Store {
    fn describe(&self) -> String {
        self.bucket.described.clone()
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<(), Error> {
        key::check(key)?;
        self.bucket.put_new(key, &body).await.result
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        key::check(key)?;
        self.bucket.read(key, None, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        key::check(key)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.bucket.read(key, Some(range), u64::MAX).await
    }

    async fn size(&self, key: &str) -> Result<u64, Error> {
        key::check(key)?;
        self.bucket.length(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        key::check_prefix(prefix)?;
        let (mut listed, mut next) = self.bucket.page(prefix, None).await?;
        while let Some(from) = next {
            let (more, then) = self.bucket.page(prefix, Some(&from)).await?;
            listed.extend(more);
            next = then;
        }
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        key::check(key)?;
        let (bucket, deed) = (&self.bucket, Deed::new(Action::DeleteObject, key));
        let attempt = || async move {
            let delete = bucket.client.delete_object().bucket(&bucket.name).key(bucket.full(key));
            delete.send().await.map(|_| ()).map_err(|error| bucket.judge(deed, error))
        };
        match bucket.call(deed, attempt).await.result {
            Err(Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, Error> {
        key::check(key)?;
        Ok(Box::new(upload::S3Upload::new(Arc::clone(&self.bucket), key)))
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, Error> {
        key::check_prefix(prefix)?;
        self.bucket.pending(prefix).await
    }

    async fn abort_upload(&self, upload: &PendingUpload) -> Result<(), Error> {
        self.bucket.abort(&upload.key, &upload.id).await
    }
}

#[cfg(test)]
mod tests;
