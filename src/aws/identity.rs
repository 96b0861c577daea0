//! Who we are to AWS, and what to say when nobody believes it. The SDK's texts leave out what a person needs: the path
//! of a missing token, the subject of a refused one, the words of the Pod Identity agent.
//!
//! No text made here holds a credential: of a token only the claims are told, which are in the cluster's own words.

use super::{causes, find};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::path::{Path, PathBuf};

/// Why there are no credentials, or none that are accepted. Holds no credential.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What happened.
    pub(crate) text: String,
    /// The way out.
    pub(crate) hint: String,
    /// Whether it may go well later: STS couldn't be reached, or was overloaded.
    pub(crate) transient: bool,
}

/// The settings of the environment by which the SDK finds credentials, for messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `AWS_ROLE_ARN`.
    pub(crate) role_arn: Option<String>,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub(crate) token_file: Option<PathBuf>,
    /// Whether EKS Pod Identity, or ECS, has left its address.
    pub(crate) container: bool,
    /// Whether `AWS_ACCESS_KEY_ID` is set: it comes before all others.
    pub(crate) keys: bool,
    /// `AWS_PROFILE`.
    pub(crate) profile: Option<String>,
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            role_arn: get("AWS_ROLE_ARN"),
            token_file: get("AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from),
            container: get("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some()
                || get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some(),
            keys: get("AWS_ACCESS_KEY_ID").is_some(),
            profile: get("AWS_PROFILE"),
        }
    }

    /// The role and the file of a service account token, where they are what the credentials come from.
    pub(crate) fn web_identity(&self) -> Option<(&str, &Path)> {
        match self {
            Self { keys: false, profile: None, role_arn: Some(role), token_file: Some(file), .. } => Some((role, file)),
            _ => None,
        }
    }

    /// As whom we come, where the environment says it.
    pub(crate) fn identity(&self) -> Option<String> {
        match self {
            Self { keys: true, .. } => Some("the keys in `AWS_ACCESS_KEY_ID`".to_owned()),
            Self { profile: Some(profile), .. } => Some(format!("the AWS profile `{profile}`")),
            Self { role_arn: Some(arn), token_file: Some(_), .. } => Some(format!("role `{arn}`")),
            Self { container: true, .. } => Some("the role of the EKS Pod Identity association".to_owned()),
            _ => None,
        }
    }

    /// What to say about credentials that the service doesn't accept.
    pub(crate) fn refused_credentials(&self, code: &str, said: &str) -> Refusal {
        let whose = self.identity().map(|identity| format!(" of {identity}")).unwrap_or_default();
        let hint = match code {
            "InvalidAccessKeyId" => "the server doesn't know the access key; check the Secret or profile it comes from",
            "SignatureDoesNotMatch" => "the secret key doesn't belong to the access key, or the clock is wrong",
            _ => "get new credentials, and check the clock",
        };
        Refusal { text: format!("the credentials{whose} are refused: {said}"), hint: hint.into(), transient: false }
    }

    /// What to say about credentials that couldn't be got.
    pub(crate) fn explain(&self, error: &CredentialsError) -> Refusal {
        if let Some((role, path)) = self.web_identity() {
            return explain_web_identity(error, role, path);
        }
        if matches!(error, CredentialsError::CredentialsNotLoaded(_)) {
            return none_found();
        }
        let why = causes(error);
        let hint = match why.to_ascii_lowercase() {
            _ if self.container => pod_identity_hint(&why),
            lower if lower.contains("sso") || lower.contains("token has expired") => {
                "log in again: aws sso login".to_owned()
            }
            _ => "check the AWS profile and environment: aws sts get-caller-identity".to_owned(),
        };
        let unreachable = ["dispatch failure", "timed out", "timeout"].iter().any(|word| why.contains(word));
        credentials(format!("no credentials could be got: {why}"), hint, unreachable)
    }
}

fn explain_web_identity(error: &CredentialsError, role: &str, path: &Path) -> Refusal {
    let token = match std::fs::read_to_string(path) {
        Ok(token) => token.trim().to_owned(),
        Err(unreadable) => {
            let text = format!("the token in `{}` for role `{role}` can't be read: {unreadable}", path.display());
            let hint = "AWS_WEB_IDENTITY_TOKEN_FILE names it; the kubelet puts it there for a location with a \
                        `roleArn`, or for a service account with the annotation eks.amazonaws.com/role-arn";
            return credentials(text, hint.to_owned(), false);
        }
    };
    let claims = Claims::of(&token);
    let Some(sts) = find::<SdkError<AssumeRoleWithWebIdentityError, HttpResponse>>(error) else {
        let text = format!("role `{role}` can't be assumed: {}", causes(error));
        return credentials(text, "check AWS_ROLE_ARN and the token".to_owned(), false);
    };
    let Some(refusal) = sts.as_service_error() else {
        let text = format!("role `{role}` can't be assumed, STS can't be reached: {}", causes(sts));
        let hint = "the pod needs a way to STS: internet access, a VPC endpoint for it, or AWS_ENDPOINT_URL_STS";
        return credentials(text, hint.to_owned(), true);
    };
    let (code, message) = (refusal.code().unwrap_or("no code"), refusal.message().unwrap_or("no message"));
    // A server may repeat what it was sent.
    let message = if token.is_empty() { message.to_owned() } else { message.replace(&token, "(token)") };
    let server_error = sts.raw_response().is_some_and(|answer| answer.status().as_u16() >= 500);
    let passing = server_error || code == "IDPCommunicationError" || code.contains("Throttling");
    let text = format!("role `{role}` can't be assumed: {code}: {message} ({claims})");
    credentials(text, web_identity_hint(code, &message, role, &claims), passing)
}

fn credentials(text: String, hint: String, transient: bool) -> Refusal {
    Refusal { text, hint, transient }
}

fn none_found() -> Refusal {
    Refusal {
        text: "no AWS credentials were found".to_owned(),
        hint: "in a Job: give the location a `roleArn` or a `credentialsSecret`, or the service account an EKS Pod Identity \
               association; with `--local`: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            .to_owned(),
        transient: false,
    }
}

/// What the EKS Pod Identity agent's status means; its words are lost in the SDK.
fn pod_identity_hint(why: &str) -> String {
    let hint = match why {
        _ if why.contains("404") => {
            "no EKS Pod Identity association for this service account, or none yet: aws eks create-pod-identity-association"
        }
        _ if why.contains("400") => {
            "the role must trust `pods.eks.amazonaws.com` for `sts:AssumeRole` and `sts:TagSession`, and the node's role \
             must allow `eks-auth:AssumeRoleForPodIdentity`"
        }
        _ => "the EKS Pod Identity agent must run on the node, and NO_PROXY must hold 169.254.170.23",
    };
    hint.to_owned()
}

/// The way out for each of STS's refusals.
fn web_identity_hint(code: &str, message: &str, role: &str, claims: &Claims) -> String {
    if role.starts_with("arn:minio:") {
        return format!(
            "MinIO must know the issuer, with this role's policy: mc idp openid add … config_url={}",
            claims.issuer
        );
    }
    match code {
        "InvalidIdentityToken" if message.contains("No OpenIDConnect provider") => format!(
            "the role's account has no IAM OIDC provider for the cluster: eksctl utils associate-iam-oidc-provider --cluster \
             CLUSTER --approve (issuer {})",
            claims.issuer
        ),
        "InvalidIdentityToken" if message.contains("audience") => format!(
            "the IAM OIDC provider {} must list the audience `{}`, or set `audience` in `job` to one it lists",
            claims.issuer, claims.audience
        ),
        "InvalidIdentityToken" => format!(
            "AWS must reach {}/.well-known/openid-configuration from the internet and trust its certificate",
            claims.issuer
        ),
        "ExpiredTokenException" => "check the node's clock; the kubelet renews the token in time".to_owned(),
        "ValidationError" => "check `roleArn`: the ARN isn't one that IAM knows".to_owned(),
        _ => format!("the role must exist and its trust policy hold this statement: {}", trust_statement(role, claims)),
    }
}

/// The statement that lets this very token assume the role.
fn trust_statement(role: &str, claims: &Claims) -> serde_json::Value {
    let mut parts = role.split(':').skip(1);
    let partition = parts.next().unwrap_or("aws");
    let account = parts.nth(2).unwrap_or("ACCOUNT");
    let issuer = claims.issuer.trim_start_matches("https://");
    serde_json::json!({
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:{partition}:iam::{account}:oidc-provider/{issuer}")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            format!("{issuer}:sub"): claims.subject,
            format!("{issuer}:aud"): claims.audience,
        }},
    })
}

/// What a token says of itself.
#[derive(Debug, PartialEq, Eq)]
struct Claims {
    subject: String,
    issuer: String,
    audience: String,
    expires: Option<i64>,
}

impl Claims {
    /// Reads the payload of a JWT. What it doesn't say is `?`. Nothing is verified: STS does that.
    fn of(token: &str) -> Self {
        let payload = token.split('.').nth(1).unwrap_or_default();
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).unwrap_or_default();
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let audience = match &payload["aud"] {
            serde_json::Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join(","),
            one => text(one),
        };
        Self {
            subject: text(&payload["sub"]),
            issuer: text(&payload["iss"]),
            audience,
            expires: payload["exp"].as_i64(),
        }
    }
}

impl std::fmt::Display for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { subject, issuer, audience, expires } = self;
        write!(f, "the token's subject is `{subject}`, its issuer `{issuer}`, its audience `{audience}`")?;
        match expires.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
            Some(time) => write!(f, ", it expires at {time}"),
            None => Ok(()),
        }
    }
}
