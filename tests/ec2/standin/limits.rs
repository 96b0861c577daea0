//! EC2's token buckets: per account, region and action, as "Request throttling for the Amazon EC2 API" lists them.

use super::query::Query;
use super::{Asked, Refusal};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tokens left, and when that was.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Limits(BTreeMap<[String; 3], Bucket>);

/// The most tokens, and how many come back each second.
fn size(action: &str, query: &Query) -> (f64, f64) {
    let narrowed = query.get("MaxResults").is_some()
        || query.get("Filter.1.Name").is_some()
        || ["VolumeId.1", "SnapshotId.1"].iter().any(|key| query.get(key).is_some());
    match action {
        "DescribeSnapshots" | "DescribeVolumes" if !narrowed => (50.0, 10.0),
        _ if action.starts_with("Describe") => (100.0, 20.0),
        "CreateSnapshot"
        | "CreateSnapshots"
        | "DeleteSnapshot"
        | "CreateVolume"
        | "DeleteVolume"
        | "ModifySnapshotAttribute" => (100.0, 5.0),
        "CreateTags" => (100.0, 10.0),
        _ => (50.0, 5.0),
    }
}

impl Limits {
    pub(crate) fn take(&mut self, asked: Asked<'_>, action: &str, query: &Query) -> Result<(), Refusal> {
        let now = asked.now;
        let (most, refill) = size(action, query);
        let key = [asked.account, asked.region, action].map(str::to_owned);
        let bucket = self.0.entry(key).or_insert(Bucket { tokens: most, at: now });
        let since = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + since * refill).min(most);
        bucket.at = now;
        if bucket.tokens < 1.0 {
            return Err(Refusal(503, "RequestLimitExceeded", "Request limit exceeded.".to_owned()));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}
