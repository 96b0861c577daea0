//! Credentials from a service account token: `AssumeRoleWithWebIdentity`, as the SDK's own provider does it, but for
//! one thing. The SDK takes the account out of the assumed role's ARN and refuses an answer whose ARN has none; MinIO's
//! STS leaves it empty. Nothing here needs the account.

use super::identity::Environment;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use std::path::PathBuf;
use std::time::SystemTime;

/// Assumes a role with the token in a file, which the kubelet renews.
#[derive(Debug)]
pub(super) struct WebIdentity {
    sts: aws_sdk_sts::Client,
    role: String,
    token_file: PathBuf,
}

impl WebIdentity {
    /// The provider that the environment asks for: a role and a token, and neither keys nor a profile, which come
    /// first in the SDK's chain too. `sts` is how its service is reached.
    pub(super) fn of_environment(environment: &Environment, sts: aws_sdk_sts::config::Builder) -> Option<Self> {
        let (role, token_file) = environment.web_identity()?;
        let sts = aws_sdk_sts::Client::from_conf(sts.build());
        Some(Self { sts, role: role.to_owned(), token_file: token_file.to_owned() })
    }

    async fn assume(&self) -> Result<Credentials, CredentialsError> {
        let token = std::fs::read_to_string(&self.token_file).map_err(CredentialsError::provider_error)?;
        let assume = self.sts.assume_role_with_web_identity();
        let assume = assume.role_arn(&self.role).role_session_name(env!("CARGO_PKG_NAME")).web_identity_token(token);
        let answer = assume.send().await.map_err(CredentialsError::provider_error)?;
        let given = answer.credentials.ok_or_else(|| CredentialsError::unhandled("STS gave no credentials"))?;
        let expiry = SystemTime::try_from(given.expiration).map_err(CredentialsError::unhandled)?;
        let (key, secret, token) = (given.access_key_id, given.secret_access_key, given.session_token);
        Ok(Credentials::new(key, secret, Some(token), Some(expiry), "WebIdentityToken"))
    }
}

impl ProvideCredentials for WebIdentity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.assume())
    }
}
