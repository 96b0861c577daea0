//! Who we are to AWS and how we get there, for every service alike: the region and the credentials that the environment
//! names, as AWS tools find them, and an HTTP client that trusts `AWS_CA_BUNDLE` as they do.
//!
//! `identity` explains credentials that nobody believes, `web_identity` makes some of a service account token. Knows no
//! service but STS.

pub(crate) mod identity;
mod web_identity;

use crate::config::Location;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::identity::IdentityCache;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::SharedHttpClient;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, ConnectorBuilder};
use identity::{Environment, Refusal};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;
use web_identity::WebIdentity;

/// Time for a TCP and TLS connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// Time for one attempt to get credentials, and for all of them: the SDK tries STS 4 times.
const CREDENTIALS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(45));

/// A setting of the environment that can't be used, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unusable(pub(crate) String);

/// The region that the environment or the profile names.
pub(crate) async fn told_region() -> Option<String> {
    let profile = ProfileFileRegionProvider::new();
    let told = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile).region().await;
    told.map(|region| region.to_string())
}

/// With which credentials to go somewhere.
#[derive(Clone, Debug, Default)]
pub(crate) enum Access {
    /// Those that the environment names.
    #[default]
    Environment,
    /// A role, with the pod's own token; STS at another address than AWS's where one is given, whatever the environment says.
    Role {
        /// The role.
        arn: String,
        /// The token's file.
        token_file: PathBuf,
        /// Where STS is.
        sts: Option<String>,
    },
    /// Static keys.
    Keys(Credentials),
}

impl Access {
    /// The credentials for a second location, which a Job has besides those of the first: keys or a token in variables of
    /// their own ([`OTHER_KEYS`], [`OTHER_TOKEN`]). Without such, the first's do for both.
    pub(crate) fn other(location: &Location) -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let [key, secret, session] = OTHER_KEYS;
        if let (Some(key), Some(secret)) = (get(key), get(secret)) {
            return Self::Keys(Credentials::new(key, secret, get(session), None, "second location"));
        }
        match (&location.role_arn, get(OTHER_TOKEN)) {
            (Some(arn), Some(file)) => Self::Role { arn: arn.clone(), token_file: file.into(), sts: get(OTHER_STS) },
            _ => Self::Environment,
        }
    }

    /// The settings by which these credentials are found, for messages.
    pub(crate) fn environment(&self) -> Environment {
        match self {
            Self::Environment => Environment::of_process(),
            Self::Role { arn, token_file, .. } => Environment {
                role_arn: Some(arn.clone()),
                token_file: Some(token_file.clone()),
                ..Environment::default()
            },
            Self::Keys(_) => Environment { keys: true, ..Environment::default() },
        }
    }
}

/// The variables with the static keys of a second location: key, secret, session token.
pub(crate) const OTHER_KEYS: [&str; 3] = [
    "KUBECTL_BACKUP_OTHER_ACCESS_KEY_ID",
    "KUBECTL_BACKUP_OTHER_SECRET_ACCESS_KEY",
    "KUBECTL_BACKUP_OTHER_SESSION_TOKEN",
];
/// The variable with the file of the token for the role of a second location.
pub(crate) const OTHER_TOKEN: &str = "KUBECTL_BACKUP_OTHER_TOKEN_FILE";

/// The variable with the address of the STS that gives that role; AWS's own where there is none. `AWS_ENDPOINT_URL_STS` may be the
/// first location's server.
pub(crate) const OTHER_STS: &str = "KUBECTL_BACKUP_OTHER_ENDPOINT_URL_STS";

/// What all clients share: credentials and the HTTP client. STS is asked in `region`.
pub(crate) async fn sdk_config(region: &str, access: &Access) -> Result<SdkConfig, Unusable> {
    let (attempt, total) = CREDENTIALS;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(total)
        .build();
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .http_client(http_client()?)
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .identity_cache(IdentityCache::lazy().load_timeout(total).build())
        .timeout_config(timeouts);
    let sdk = loader.load().await;
    if let Access::Keys(keys) = access {
        let keys = SharedCredentialsProvider::new(keys.clone());
        return Ok(sdk.into_builder().credentials_provider(keys).build());
    }
    let mut sts = aws_sdk_sts::config::Builder::from(&sdk);
    if let Access::Role { sts: endpoint, .. } = access {
        sts.set_endpoint_url(endpoint.clone());
    }
    Ok(match WebIdentity::of_environment(&access.environment(), sts) {
        Some(provider) => sdk.into_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build(),
        None => sdk,
    })
}

/// The SDK's default HTTP client, except that it trusts `AWS_CA_BUNDLE` as well, which other AWS tools do and the Rust
/// SDK doesn't. `SSL_CERT_FILE`, `HTTPS_PROXY` and `NO_PROXY` work as they do there.
fn http_client() -> Result<SharedHttpClient, Unusable> {
    let mut trusted = TrustStore::default();
    if let Some(path) = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty()) {
        let unusable = |why: String| Unusable(format!("`{}` of AWS_CA_BUNDLE: {why}", path.display()));
        let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
        trusted.add_pem_certificate(parsable(&pem).map_err(unusable)?);
    }
    let unusable = |error: aws_smithy_http_client::HttpClientError| Unusable(error.to_string());
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

/// What to say where an error is about credentials that couldn't be got.
#[cfg_attr(not(feature = "ec2"), allow(dead_code, reason = "S3 has its own words for it"))]
pub(crate) fn about_credentials(error: &(dyn StdError + 'static)) -> Option<Refusal> {
    find::<CredentialsError>(error).map(|error| Environment::of_process().explain(error))
}

/// The first error of a type among the causes of another.
pub(crate) fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

/// An error and its causes.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// An error and its causes in one line, without repetitions.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        let generic = ["dispatch failure", "service error", "unhandled error", "other", "io error"];
        if !text.is_empty() && !generic.contains(&text.as_str()) && !told.iter().any(|t| t.contains(&text)) {
            told.push(text);
        }
    }
    if told.is_empty() { error.to_string() } else { told.join(": ") }
}
