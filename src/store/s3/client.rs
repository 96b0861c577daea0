//! The S3 client: configured from the environment as AWS tools are, with our own deadlines.

use super::Bucket;
use super::call::{Action, Deed, Patience};
use super::identity::Environment;
use super::web_identity::WebIdentity;
use crate::config;
use crate::store::{Error, PART_SIZE};
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{FrameworkMetadata, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::time::Duration;

/// Time for a TCP and TLS connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Time for one attempt to get credentials, and for all of them: the SDK tries STS 4 times.
const CREDENTIALS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(45));

/// Time without a single byte after which a body counts as stalled.
const STALL: Duration = Duration::from_secs(20);

/// The region where requests start whose region nobody knows, and that other servers than AWS's take for theirs.
const ANY_REGION: &str = "us-east-1";

/// Makes the client for a bucket, and asks for the bucket's region where nobody told it.
pub(super) async fn bucket(place: &config::S3, described: String) -> Result<Bucket, Error> {
    let profile = ProfileFileRegionProvider::new();
    let told = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile).region().await;
    let told = told.map(|region| region.to_string());
    let sdk = sdk_config(place, told.as_deref()).await?;
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
        environment: Environment::of_process(),
        patience: Patience::DEFAULT,
        part_size: PART_SIZE,
    };
    if known {
        return Ok(bucket);
    }
    let region = bucket.ask_region().await?;
    Ok(Bucket { client: client(&sdk, place, &region), region, ..bucket })
}

/// What all clients share: credentials, found in the environment, and the HTTP client.
async fn sdk_config(place: &config::S3, told_region: Option<&str>) -> Result<SdkConfig, Error> {
    // STS is asked in the region that the environment names, which is the cluster's: its endpoint is the near one.
    let region = told_region.or(place.region.as_deref()).unwrap_or(ANY_REGION).to_owned();
    let (attempt, total) = CREDENTIALS;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(total)
        .build();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(region))
        .http_client(http_client()?)
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .identity_cache(IdentityCache::lazy().load_timeout(total).build())
        .timeout_config(timeouts);
    let sdk = loader.load().await;
    Ok(match WebIdentity::of_environment(&Environment::of_process(), &sdk) {
        Some(provider) => sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build(),
        None => sdk,
    })
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

/// The SDK's default HTTP client, except that it trusts `AWS_CA_BUNDLE` as well, which other AWS tools do and the Rust
/// SDK doesn't. `SSL_CERT_FILE`, `HTTPS_PROXY` and `NO_PROXY` work as they do there.
fn http_client() -> Result<SharedHttpClient, Error> {
    let mut trusted = TrustStore::default();
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let unusable = |why: String| Error::Setting(format!("`{}` of AWS_CA_BUNDLE: {why}", path.display()));
        let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
        trusted.add_pem_certificate(parsable(&pem).map_err(unusable)?);
    }
    let unusable = |error: aws_smithy_http_client::HttpClientError| Error::Setting(error.to_string());
    let context = TlsContext::builder().with_trust_store(trusted).build().map_err(unusable)?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.set_tls_context(context.clone());
        connector.build()
    }))
}

/// The certificates of a bundle, checked because the SDK panics at one that it can't parse.
fn parsable(pem: &[u8]) -> Result<Vec<u8>, String> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("it holds a certificate that can't be used: {error}"))?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(pem.to_vec()) }
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
