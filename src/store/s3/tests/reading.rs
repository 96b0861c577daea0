//! Reads through a bad connection: within patience the bytes are right, beyond it the error says what was asked for.

use super::server::{Answer, Server};
use super::{PATIENCE, bucket, patience_for, patient_store, store};
use crate::report::ExitCode;
use crate::store::{Error, Store};
use aws_sdk_s3::config::ResponseChecksumValidation;
use bytes::Bytes;

fn body() -> Bytes {
    (0..10_000u32).flat_map(u32::to_le_bytes).collect()
}

/// All that makes a call be tried again.
fn passing_faults() -> Vec<(&'static str, Answer)> {
    let whole = || Answer::new(200, body());
    vec![
        ("SlowDown", Answer::error(503, "SlowDown", "Please reduce your request rate.")),
        ("InternalError", Answer::error(500, "InternalError", "We encountered an internal error.")),
        ("status 502", Answer::new(502, "<html>bad gateway</html>")),
        ("status 503", Answer::new(503, "")),
        ("status 504", Answer::new(504, "")),
        ("status 429", Answer::new(429, "")),
        ("RequestTimeout", Answer::error(400, "RequestTimeout", "Your socket connection was not read from.")),
        ("reset", Answer::Reset),
        ("closed", Answer::Closed),
        ("silence", Answer::Silence),
        ("cut in the body", whole().cut(15_000)),
        ("cut before the body", whole().cut(0)),
        ("stalled in the body", whole().stalled(15_000)),
    ]
}

#[tokio::test]
async fn within_patience_the_bytes_are_right() {
    for (name, fault) in passing_faults() {
        let patience = patience_for(&fault);
        let server = Server::script(vec![fault.clone(), fault, Answer::new(200, body())]).await;
        let got = patient_store(&server, patience)
            .get("a/b", 1 << 20)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(got, body(), "{name}");
        assert!(server.seen().len() >= 3, "{name}");
    }
}

#[tokio::test]
async fn beyond_patience_the_error_names_action_and_key() {
    for (name, fault) in passing_faults() {
        let patience = patience_for(&fault);
        let server = Server::script(vec![fault]).await;
        let error = patient_store(&server, patience).get("a/b", 1 << 20).await.unwrap_err();
        let text = error.to_string();
        let beginning = "`GetObject` of `s3://bucket/pre/a/b` failed 4 times, the last time with: ";
        assert!(text.starts_with(beginning) && text.len() > beginning.len(), "{name}: {text}");
        assert!(error.is_transient() && error.exit_code() == ExitCode::Failed, "{name}: {text}");
        assert_eq!(server.seen().len(), 4, "{name}");
    }
}

#[tokio::test]
async fn ranges_are_read_again_from_their_beginning() {
    let part = || Answer::new(206, body().slice(100..5100)).with("content-range", "bytes 100-5099/40000");
    let stalled = part().stalled(10);
    let patience = patience_for(&stalled);
    let server = Server::script(vec![part().cut(4000), Answer::Reset, stalled, part()]).await;
    assert_eq!(patient_store(&server, patience).get_range("a", 100..5100).await.unwrap(), body().slice(100..5100));
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|request| request.header("range") == Some("bytes=100-5099")));
}

#[tokio::test]
async fn a_range_that_is_not_the_one_asked_for_is_an_integrity_error() {
    let answers = [
        ("the range is ignored", Answer::new(200, body())),
        ("it is shorter", Answer::new(206, body().slice(10..15)).with("content-range", "bytes 10-14/15")),
        ("it is another", Answer::new(206, body().slice(0..10)).with("content-range", "bytes 0-9/40000")),
        ("there is none", Answer::error(416, "InvalidRange", "The requested range is not satisfiable")),
    ];
    for (name, answer) in answers {
        let server = Server::script(vec![answer]).await;
        let error = store(&server).get_range("a", 10..20).await.unwrap_err();
        assert!(matches!(error, Error::Integrity { .. }), "{name}: {error}");
        assert!(error.to_string().starts_with("`s3://bucket/pre/a` is damaged: "), "{name}: {error}");
        assert_eq!((error.exit_code(), server.seen().len()), (ExitCode::Integrity, 1), "{name}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_not_read() {
    let chunked = format!("{:x}\r\n{}\r\n0\r\n\r\n", 3000, "x".repeat(3000));
    let chunked = Answer::new(200, chunked).with("transfer-encoding", "chunked");
    for answer in [Answer::new(200, body()), chunked] {
        let server = Server::script(vec![answer]).await;
        let error = store(&server).get("a", 2999).await.unwrap_err();
        assert_eq!(error.to_string(), "`s3://bucket/pre/a` has more than 2999 bytes");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_body_other_than_its_checksum_is_an_integrity_error() {
    let answer = Answer::new(200, "hello").with("x-amz-checksum-crc32", "AAAAAA==");
    let server = Server::script(vec![answer]).await;
    let mut bucket = bucket(&server, PATIENCE);
    let config = bucket.client.config().to_builder();
    let config = config.response_checksum_validation(ResponseChecksumValidation::WhenSupported).build();
    bucket.client = aws_sdk_s3::Client::from_conf(config);
    let error = bucket.read("a", None, 100).await.unwrap_err();
    assert!(matches!(error, Error::Integrity { .. }), "{error}");
    assert_eq!(server.seen().len(), 4, "it may have been damaged on the way");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_speaks_no_tls_gets_a_hint() {
    let server = Server::script(vec![Answer::Silence]).await;
    let mut bucket = bucket(&server, PATIENCE);
    let at = |bucket: &super::Bucket, url: &str| {
        aws_sdk_s3::Client::from_conf(bucket.client.config().to_builder().endpoint_url(url).build())
    };
    // Nobody listens on port 1 of loopback.
    bucket.client = at(&bucket, "http://127.0.0.1:1");
    let text = bucket.length("a").await.unwrap_err().to_string();
    assert!(text.contains("failed 4 times") && text.contains("Connection refused"), "{text}");
    assert!(text.contains("\nhint: check the `endpoint` of the location"), "{text}");

    let plain = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = plain.accept().unwrap();
        let _ = socket.read(&mut [0; 1000]).unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    bucket.client = at(&bucket, &format!("https://127.0.0.1:{port}"));
    let text = bucket.length("a").await.unwrap_err().to_string();
    answering.join().unwrap();
    assert!(text.contains("\nhint: the server doesn't speak TLS there"), "{text}");
}

#[tokio::test]
async fn refusals_are_told_once_with_a_way_out() {
    let denied = "User: arn:aws:sts::1:assumed-role/r/s is not authorized to perform: s3:GetObject on resource: x";
    let cases = [
        (
            Answer::error(403, "AccessDenied", "Access Denied"),
            "`GetObject` of `s3://bucket/pre/a` is forbidden: AccessDenied: Access Denied (403)\nhint: `s3:GetObject` on \
             `arn:aws:s3:::bucket/pre/*` is needed",
            ExitCode::Forbidden,
        ),
        (Answer::error(403, "AccessDenied", denied), "arn:aws:sts::1:assumed-role/r/s", ExitCode::Forbidden),
        (
            Answer::error(403, "AccessDenied", "not authorized to perform: kms:Decrypt"),
            "hint: the bucket's KMS key must allow it too",
            ExitCode::Forbidden,
        ),
        (
            Answer::error(404, "NoSuchBucket", "The specified bucket does not exist"),
            "bucket `bucket` does not exist at http://127.0.0.1",
            ExitCode::Failed,
        ),
        (
            Answer::error(404, "NoSuchKey", "The specified key does not exist."),
            "`s3://bucket/pre/a` does not exist",
            ExitCode::NotFound,
        ),
        (
            Answer::error(301, "PermanentRedirect", "must be addressed using the specified endpoint")
                .with("x-amz-bucket-region", "eu-central-1"),
            "bucket `bucket` is in region `eu-central-1`, not in `us-east-1`\nhint: give its region in the location's URL: \
             s3://bucket/pre?region=eu-central-1",
            ExitCode::Failed,
        ),
        (
            Answer::error(
                400,
                "AuthorizationHeaderMalformed",
                "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-2'",
            ),
            "bucket `bucket` is in region `eu-west-2`, not in `us-east-1`",
            ExitCode::Failed,
        ),
        (
            Answer::error(
                403,
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            ),
            "the credentials are refused: InvalidAccessKeyId",
            ExitCode::Forbidden,
        ),
        (
            Answer::error(403, "SignatureDoesNotMatch", "The request signature we calculated does not match"),
            "hint: the secret key doesn't belong to the access key",
            ExitCode::Forbidden,
        ),
        (
            Answer::error(400, "ExpiredToken", "The provided token has expired."),
            "get new credentials",
            ExitCode::Forbidden,
        ),
        (
            Answer::error(403, "InvalidObjectState", "The operation is not valid for the object's storage class"),
            "hint: it is in an archive class: aws s3api restore-object",
            ExitCode::Failed,
        ),
        (Answer::error(400, "InvalidArgument", "Invalid"), "failed: InvalidArgument: Invalid (400)", ExitCode::Failed),
        (Answer::error(501, "NotImplemented", "Not implemented"), "NotImplemented: Not impl", ExitCode::Failed),
    ];
    for (answer, part, code) in cases {
        let server = Server::script(vec![answer]).await;
        let error = store(&server).get("a", 100).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(part), "{text}");
        assert_eq!((error.exit_code(), server.seen().len(), error.is_transient()), (code, 1, false), "{text}");
        assert!(!text.contains("hunter2") && !format!("{error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn answers_without_a_body_are_understood_by_their_status() {
    let cases = [
        (Answer::new(404, ""), "`s3://bucket/pre/a` does not exist"),
        (Answer::new(403, ""), "`HeadObject` of `s3://bucket/pre/a` is forbidden: "),
        (Answer::new(301, "").with("x-amz-bucket-region", "eu-west-1"), "bucket `bucket` is in region `eu-west-1`"),
    ];
    for (answer, part) in cases {
        let server = Server::script(vec![answer]).await;
        let error = store(&server).size("a").await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(server.seen().len(), 1, "{error}");
    }
}

#[tokio::test]
async fn lists_survive_faults_on_any_page() {
    let page = |keys: &[&str], next: Option<&str>| {
        let contents: String = keys
            .iter()
            .map(|key| {
                format!(
                    "<Contents><Key>pre/{key}</Key><Size>7</Size><LastModified>2026-11-20T10:00:00.000Z</LastModified>\
                     </Contents>"
                )
            })
            .collect();
        let next = next.map_or("<IsTruncated>false</IsTruncated>".to_owned(), |token| {
            format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>")
        });
        Answer::new(200, format!("<ListBucketResult>{contents}{next}</ListBucketResult>"))
    };
    let (first, second) = (page(&["b", "c"], Some("two")), page(&["a"], None));
    let cut = second.clone().cut(60);
    let server = Server::script(vec![Answer::Reset, first, Answer::new(503, ""), cut, second]).await;
    let listed = store(&server).list("").await.unwrap();
    assert_eq!(listed.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(listed[0].modified.to_string(), "2026-11-20T10:00:00Z");
    let tokens: Vec<bool> =
        server.seen().iter().map(|request| request.query.contains("continuation-token=two")).collect();
    assert_eq!(tokens, [false, false, true, true, true]);

    let server = Server::script(vec![page(&["a"], Some("one"))]).await;
    let error = store(&server).list("").await.unwrap_err().to_string();
    assert_eq!(error, "`ListObjectsV2` of `s3://bucket` failed: the list goes on and nobody says where");
}

#[tokio::test]
async fn the_region_is_what_the_bucket_says_even_when_it_refuses() {
    for status in [200, 301, 400, 403] {
        let answer = Answer::new(status, "").with("x-amz-bucket-region", "eu-south-2");
        let server = Server::script(vec![Answer::Reset, answer]).await;
        assert_eq!(bucket(&server, PATIENCE).ask_region().await.unwrap(), "eu-south-2", "{status}");
    }
    let server = Server::script(vec![Answer::new(200, "")]).await;
    let error = bucket(&server, PATIENCE).ask_region().await.unwrap_err().to_string();
    assert!(error.contains("the region of bucket `bucket` is not known\nhint: "), "{error}");
    let server = Server::script(vec![Answer::new(404, "")]).await;
    let error = bucket(&server, PATIENCE).ask_region().await.unwrap_err();
    assert!(matches!(error, Error::NoBucket { .. }), "{error}");
}
