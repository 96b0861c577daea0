//! What people are told about credentials. The SDK reads them from the process's environment, so each test starts
//! itself again with the environment that it wants and looks at what that process says.

use super::server::{Answer, Server};
use crate::aws::identity::Environment;
use crate::config::Location;
use crate::store;
use crate::store::s3::fault::Fault;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ConnectorError, SdkError};
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use std::path::PathBuf;

/// Set in the process that opens a location: its URL, and the file for what it is told.
const CHILD: (&str, &str) = ("KUBECTL_BACKUP_TEST_URL", "KUBECTL_BACKUP_TEST_TOLD");
const ROLE: &str = "arn:aws:iam::123456789012:role/kubectl-backup";
const SUBJECT: &str = "system:serviceaccount:kubectl-backup:kubectl-backup-reader";
const ISSUER: &str = "https://oidc.eks.eu-central-1.amazonaws.com/id/ABC";

/// Opens and lists a location in a process with exactly this environment, and gives the error or `listed`. In that
/// process itself `None`: the test is over.
async fn told(test: &str, url: &str, environment: &[(&str, &str)]) -> Option<String> {
    if let (Ok(url), Ok(file)) = (std::env::var(CHILD.0), std::env::var(CHILD.1)) {
        let location = Location::parse_url(&url).unwrap();
        let listed = match store::open(&location).await {
            Ok(store) => store.list("").await.map(|_| ()),
            Err(error) => Err(error),
        };
        let text = listed.map_or_else(|error| format!("{error}\n{error:?}"), |()| "listed".to_owned());
        std::fs::write(file, text).unwrap();
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("told");
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args([&format!("store::s3::tests::identity::{test}"), "--exact"]).env_clear();
    for kept in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        child.envs(std::env::var_os(kept).map(|value| (kept, value)));
    }
    child.env(CHILD.0, url).env(CHILD.1, &file).env("HOME", home.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    let ended = child.envs(environment.iter().copied()).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    Some(std::fs::read_to_string(file).unwrap())
}

/// A token as the kubelet writes it, signed by nobody.
fn token() -> String {
    let payload =
        serde_json::json!({"iss": ISSUER, "sub": SUBJECT, "aud": ["sts.amazonaws.com"], "exp": 1_795_000_000});
    let encode = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode("{\"alg\":\"RS256\"}"), encode(&payload.to_string()), encode("hunter2 signature"))
}

struct TokenFile {
    path: String,
    _folder: tempfile::TempDir,
}

fn token_file() -> TokenFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, token()).unwrap();
    TokenFile { path: path.to_str().unwrap().to_owned(), _folder: folder }
}

fn sts_error(status: u16, code: &str, message: &str) -> Answer {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
         <Message>{message}</Message></Error><RequestId>x</RequestId></ErrorResponse>"
    );
    Answer::new(status, body).with("content-type", "text/xml")
}

async fn told_by_sts(test: &str, role: &str, answer: Answer) -> Option<String> {
    let (sts, file) = (Server::script(vec![answer]).await, token_file());
    let environment =
        [("AWS_ROLE_ARN", role), ("AWS_WEB_IDENTITY_TOKEN_FILE", &file.path), ("AWS_ENDPOINT_URL_STS", &sts.url())];
    told(test, &format!("s3://bucket?endpoint={}", sts.url()), &environment).await
}

#[tokio::test]
async fn an_sts_that_names_no_account_is_good_enough() {
    // MinIO's answer: the SDK's own provider refuses it for the empty ARN
    let sts = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
               <AssumeRoleWithWebIdentityResult><AssumedRoleUser><Arn></Arn><AssumeRoleId></AssumeRoleId></AssumedRoleUser>\
               <Credentials><AccessKeyId>KEY</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>\
               <SessionToken>hunter2</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
               </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    let list = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated></ListBucketResult>";
    let answers = [sts, list].map(|body| Answer::new(200, body.to_owned()).with("content-type", "text/xml"));
    let (server, file) = (Server::script(answers.to_vec()).await, token_file());
    let environment =
        [("AWS_ROLE_ARN", ROLE), ("AWS_WEB_IDENTITY_TOKEN_FILE", &file.path), ("AWS_ENDPOINT_URL_STS", &server.url())];
    let url = format!("s3://bucket?endpoint={}", server.url());
    let name = "an_sts_that_names_no_account_is_good_enough";
    let Some(text) = told(name, &url, &environment).await else { return };
    assert_eq!(text, "listed");
}

#[tokio::test]
async fn without_credentials_the_ways_to_give_some_are_told() {
    let url = "s3://bucket?endpoint=http://127.0.0.1:1";
    let Some(text) = told("without_credentials_the_ways_to_give_some_are_told", url, &[]).await else { return };
    assert!(
        text.starts_with("no AWS credentials were found\nhint: in a Job: give the location a `roleArn` or"),
        "{text}"
    );
    assert!(text.lines().nth(1).unwrap().contains("Pod Identity"), "{text}");
    assert!(!text.contains("Ec2InstanceMetadata"), "{text}");
}

#[tokio::test]
async fn a_missing_token_is_named_by_its_path() {
    let environment = [("AWS_ROLE_ARN", ROLE), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token")];
    let url = "s3://bucket?endpoint=http://127.0.0.1:1";
    let Some(text) = told("a_missing_token_is_named_by_its_path", url, &environment).await else { return };
    let expected = format!("the token in `/nowhere/token` for role `{ROLE}` can't be read: No such file or directory");
    assert!(text.starts_with(&expected) && text.contains("\nhint: AWS_WEB_IDENTITY_TOKEN_FILE names it"), "{text}");
}

#[tokio::test]
async fn a_role_that_does_not_trust_us_gets_the_statement_it_lacks() {
    let message = format!("Not authorized to perform sts:AssumeRoleWithWebIdentity {}", token());
    let answer = sts_error(403, "AccessDenied", &message);
    let name = "a_role_that_does_not_trust_us_gets_the_statement_it_lacks";
    let Some(text) = told_by_sts(name, ROLE, answer).await else { return };
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap(),
        format!(
            "role `{ROLE}` can't be assumed: AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity (token) \
             (the token's subject is `{SUBJECT}`, its issuer `{ISSUER}`, its audience `sts.amazonaws.com`, it expires at \
             2026-11-18T11:06:40Z)"
        )
    );
    let (hint, statement) = lines.next().unwrap().split_once(": {").unwrap();
    assert_eq!(hint, "hint: the role must exist and its trust policy hold this statement");
    let statement: serde_json::Value = serde_json::from_str(&format!("{{{statement}")).unwrap();
    let provider = "oidc.eks.eu-central-1.amazonaws.com/id/ABC";
    assert_eq!(statement["Principal"]["Federated"], format!("arn:aws:iam::123456789012:oidc-provider/{provider}"));
    assert_eq!(statement["Condition"]["StringEquals"][format!("{provider}:sub")], SUBJECT);
    assert_eq!(statement["Condition"]["StringEquals"][format!("{provider}:aud")], "sts.amazonaws.com");
    assert!(!text.contains("hunter2") && !text.contains(&token()), "{text}");
}

#[tokio::test]
async fn each_refusal_of_sts_has_its_way_out() {
    let no_provider = "No OpenIDConnect provider found in your account for https://oidc.eks";
    let cases = [
        (
            400,
            "InvalidIdentityToken",
            no_provider,
            "eksctl utils associate-iam-oidc-provider --cluster CLUSTER --approve",
        ),
        (400, "InvalidIdentityToken", "Incorrect token audience", "must list the audience `sts.amazonaws.com`"),
        (400, "InvalidIdentityToken", "Couldn't retrieve verification key", "/.well-known/openid-configuration"),
        (400, "ExpiredTokenException", "Token expired", "check the node's clock"),
        (400, "ValidationError", "Request ARN is invalid", "check `roleArn`"),
    ];
    for (status, code, message, hint) in cases {
        let answer = sts_error(status, code, message);
        let Some(text) = told_by_sts("each_refusal_of_sts_has_its_way_out", ROLE, answer).await else { return };
        assert!(
            text.starts_with(&format!("role `{ROLE}` can't be assumed: {code}: {message} (the token's subject")),
            "{text}"
        );
        assert!(text.lines().nth(1).unwrap().starts_with("hint: ") && text.contains(hint), "{text}");
    }
}

#[tokio::test]
async fn minio_is_not_told_about_iam() {
    let answer = sts_error(403, "AccessDenied", "denied");
    let name = "minio_is_not_told_about_iam";
    let Some(text) = told_by_sts(name, "arn:minio:iam:::role/idmp-x", answer).await else { return };
    assert!(text.contains("hint: MinIO must know the issuer") && text.contains(ISSUER), "{text}");
}

#[tokio::test]
async fn an_assumed_role_signs_and_is_named_when_it_is_refused() {
    let credentials = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
        <AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>hunter2</SecretAccessKey>\
        <SessionToken>hunter2-session</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
        <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/kubectl-backup/s</Arn>\
        <AssumedRoleId>x:s</AssumedRoleId></AssumedRoleUser></AssumeRoleWithWebIdentityResult>\
        </AssumeRoleWithWebIdentityResponse>";
    let sts = Server::script(vec![Answer::new(200, credentials)]).await;
    let s3 = Server::script(vec![Answer::error(403, "AccessDenied", "Access Denied")]).await;
    let file = token_file();
    let environment =
        [("AWS_ROLE_ARN", ROLE), ("AWS_WEB_IDENTITY_TOKEN_FILE", &file.path), ("AWS_ENDPOINT_URL_STS", &sts.url())];
    let name = "an_assumed_role_signs_and_is_named_when_it_is_refused";
    let Some(text) = told(name, &format!("s3://bucket/pre?endpoint={}", s3.url()), &environment).await else { return };
    let asked = &sts.seen()[0];
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    assert!(body.contains("Action=AssumeRoleWithWebIdentity") && body.contains(&token()), "{body}");
    let signed = &s3.seen()[0];
    assert!(signed.header("authorization").unwrap().contains("Credential=ASIAEXAMPLE/"));
    assert_eq!(signed.header("x-amz-security-token"), Some("hunter2-session"));
    let first = text.lines().next().unwrap();
    let expected =
        format!("`ListObjectsV2` of `s3://bucket` is forbidden for role `{ROLE}`: AccessDenied: Access Denied (403)");
    assert_eq!(first, expected);
    assert!(text.contains("hint: `s3:ListBucket` on `arn:aws:s3:::bucket` is needed"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn the_pod_identity_agents_refusals_are_explained() {
    let cases = [(404, "no EKS Pod Identity association"), (400, "the role must trust `pods.eks.amazonaws.com`")];
    for (status, hint) in cases {
        let (agent, file) =
            (Server::script(vec![Answer::new(status, "[x]: (y): z, fault: client")]).await, token_file());
        let uri = format!("{}/v1/credentials", agent.url());
        let environment =
            [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*uri), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &file.path)];
        let name = "the_pod_identity_agents_refusals_are_explained";
        let Some(text) = told(name, "s3://bucket?endpoint=http://127.0.0.1:1", &environment).await else { return };
        assert!(text.starts_with("no credentials could be got: ") && text.contains(&format!("hint: {hint}")), "{text}");
    }
}

#[tokio::test]
async fn keys_that_are_not_known_are_told_whose_they_are() {
    let refusal =
        Answer::error(403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records.");
    let s3 = Server::script(vec![refusal]).await;
    let environment = [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let name = "keys_that_are_not_known_are_told_whose_they_are";
    let Some(text) = told(name, &format!("s3://bucket?endpoint={}", s3.url()), &environment).await else { return };
    let beginning = "the credentials of the keys in `AWS_ACCESS_KEY_ID` are refused: InvalidAccessKeyId";
    assert!(text.starts_with(beginning) && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn the_region_comes_from_the_environment_or_from_the_bucket() {
    let name = "the_region_comes_from_the_environment_or_from_the_bucket";
    let keys = [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "hunter2")];
    let list = Answer::new(200, "<ListBucketResult></ListBucketResult>").with("x-amz-bucket-region", "eu-south-2");
    let cases = [
        ("s3://bucket", None, &["HEAD", "GET"][..], "eu-south-2"),
        ("s3://bucket", Some(("AWS_REGION", "eu-west-3")), &["GET"][..], "eu-west-3"),
        ("s3://bucket?region=ap-south-1", Some(("AWS_REGION", "eu-west-3")), &["GET"][..], "ap-south-1"),
    ];
    for (url, region, methods, scope) in cases {
        let s3 = Server::script(vec![list.clone()]).await;
        let endpoint = s3.url();
        let mut environment = vec![("AWS_ENDPOINT_URL_S3", endpoint.as_str())];
        environment.extend(keys);
        environment.extend(region);
        let Some(text) = told(name, url, &environment).await else { return };
        assert_eq!(text, "listed");
        let seen = s3.seen();
        assert_eq!(seen.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(), methods);
        let authorization = seen.last().unwrap().header("authorization").unwrap();
        assert!(authorization.contains(&format!("/{scope}/s3/")), "{authorization}");
    }
}

#[tokio::test]
async fn a_ca_bundle_that_is_none_is_named() {
    let name = "a_ca_bundle_that_is_none_is_named";
    let file = token_file();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, part) in [(None, "No such file"), (Some(""), "holds no certificate"), (Some(broken), "can't be used")]
    {
        let path = content.map_or("/nowhere/ca.pem", |content| {
            std::fs::write(&file.path, content).unwrap();
            &file.path
        });
        let Some(text) = told(name, "s3://bucket?endpoint=https://127.0.0.1:1", &[("AWS_CA_BUNDLE", path)]).await
        else {
            return;
        };
        assert!(text.starts_with(&format!("`{path}` of AWS_CA_BUNDLE: ")) && text.contains(part), "{text}");
    }
}

#[test]
fn an_sts_that_cannot_be_reached_is_tried_again() {
    let file = token_file();
    let environment = Environment {
        role_arn: Some(ROLE.to_owned()),
        token_file: Some(PathBuf::from(&file.path)),
        ..Environment::default()
    };
    let unreachable =
        SdkError::<AssumeRoleWithWebIdentityError, aws_sdk_s3::config::http::HttpResponse>::dispatch_failure(
            ConnectorError::io("connection refused".into()),
        );
    let fault = Fault::from(environment.explain(&CredentialsError::provider_error(unreachable)));
    let Fault::Passing { error: Some(error), may_have_worked: false, .. } = fault else { panic!("it is final") };
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(text.contains("STS can't be reached: connection refused\nhint: the pod needs a way to STS"), "{text}");
}
