//! The S3 client: configured from the environment as AWS tools are, with our own deadlines.

use super::Bucket;
use super::call::{Action, Deed, Patience};
use crate::aws::{self, Access, CONNECT};
use crate::config;
use crate::store::{Error, PART_SIZE};
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{FrameworkMetadata, RequestChecksumCalculation, ResponseChecksumValidation};
use std::time::Duration;

/// Time without a single byte after which a body counts as stalled.
const STALL: Duration = Duration::from_secs(20);

/// The region where requests start whose region nobody knows, and that other servers than AWS's take for theirs.
const ANY_REGION: &str = "us-east-1";

/// Makes the client for a bucket, and asks for the bucket's region where nobody told it.
pub(super) async fn bucket(place: &config::S3, described: String, access: &Access) -> Result<Bucket, Error> {
    let told = aws::told_region().await;
    // STS is asked in the region that the environment names, which is the cluster's: its endpoint is the near one.
    let sdk = aws::sdk_config(told.as_deref().or(place.region.as_deref()).unwrap_or(ANY_REGION), access).await;
    let sdk = sdk.map_err(|error| Error::Setting(error.0))?;
    let region = place.region.clone().or(told);
    let known = region.is_some() || place.endpoint.is_some();
    let region = region.unwrap_or_else(|| ANY_REGION.to_owned());
    let bucket = Bucket {
        client: client(&sdk, place, &region),
        name: place.bucket.clone(),
        prefix: if place.prefix.is_empty() { String::new() } else { format!("{}/", place.prefix) },
        region,
        endpoint: place.endpoint.clone(),
        described,
        environment: access.environment(),
        patience: Patience::DEFAULT,
        part_size: PART_SIZE,
    };
    if known {
        return Ok(bucket);
    }
    let region = bucket.ask_region().await?;
    Ok(Bucket { client: client(&sdk, place, &region), region, ..bucket })
}

/// The S3 client. Retries and deadlines are in `call`, so that they cover bodies.
pub(super) fn client(sdk: &SdkConfig, place: &config::S3, region: &str) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .disable_read_timeout()
        .disable_operation_attempt_timeout()
        .disable_operation_timeout()
        .build();
    let mut config = aws_sdk_s3::config::Builder::from(sdk)
        .region(Region::new(region.to_owned()))
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALL).build())
        .force_path_style(place.path_style)
        // Said here, because `when_required` in the environment would take the checksums off the parts.
        .request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
    if let Some(endpoint) = &place.endpoint {
        config = config.endpoint_url(endpoint).response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    if let Ok(name) = AppName::new(env!("CARGO_PKG_NAME")) {
        config = config.app_name(name);
    }
    if let Ok(ours) = FrameworkMetadata::new(env!("CARGO_PKG_NAME"), Some(env!("CARGO_PKG_VERSION"))) {
        config = config.framework_metadata(ours);
    }
    Client::from_conf(config.build())
}

impl Bucket {
    /// The bucket's region, as S3 tells it to everybody who knows the name: with a redirect or a refusal too.
    pub(super) async fn ask_region(&self) -> Result<String, Error> {
        let deed = Deed::of_bucket(Action::HeadBucket);
        let attempt = || async move {
            match self.client.head_bucket().bucket(&self.name).send().await {
                Ok(answer) => Ok(answer.bucket_region().map(str::to_owned)),
                Err(error) => {
                    let header = error.raw_response().and_then(|answer| answer.headers().get("x-amz-bucket-region"));
                    header.map(|region| Some(region.to_owned())).ok_or_else(|| self.judge(deed, error))
                }
            }
        };
        self.call(deed, attempt).await.result?.ok_or_else(|| Error::Region {
            text: format!("the region of bucket `{}` is not known", self.name),
            hint: "give it in the location's URL: `?region=REGION`".to_owned(),
        })
    }
}
