//! Writes through a bad connection: within patience everything arrives once, beyond it nothing is left.

use super::fake::{Fake, Fault};
use super::server::{Answer, Server};
use super::{PART, PATIENCE, patience_for, patient_store, store};
use crate::report::ExitCode;
use crate::store::{Error, Store};
use bytes::Bytes;
use futures::FutureExt;
use std::sync::Arc;
use tokio::sync::Notify;

const ACTIONS: [&str; 4] = ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"];

/// A body of three parts, the last one short.
fn large() -> Bytes {
    (0..2 * PART as u32 / 4 + 1000).flat_map(u32::to_le_bytes).collect()
}

fn slow_down() -> Answer {
    Answer::error(503, "SlowDown", "Please reduce your request rate.")
}

fn faults() -> [Answer; 5] {
    [slow_down(), Answer::Reset, Answer::Closed, Answer::Silence, Answer::new(502, "<html></html>")]
}

async fn upload(store: &dyn Store, body: &Bytes) -> Result<u64, Error> {
    let mut upload = store.upload("data/x").await?;
    for piece in body.chunks(10_000) {
        upload.write(Bytes::copy_from_slice(piece)).await?;
    }
    upload.finish().await
}

#[tokio::test]
async fn a_created_body_goes_whole_with_its_checksum_and_our_name() {
    let server = Server::script(vec![Answer::new(200, "")]).await;
    store(&server).create("a/b.json", "hello".into()).await.unwrap();
    let seen = server.seen();
    let [request] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/bucket/pre/a/b.json"));
    assert_eq!(request.body, "hello");
    assert_eq!(request.header("if-none-match"), Some("*"));
    assert_eq!(request.header("x-amz-checksum-crc32"), Some("NhCmhg=="));
    assert_eq!(request.header("content-length"), Some("5"));
    for trailer in ["x-amz-trailer", "content-encoding", "transfer-encoding", "x-amz-decoded-content-length"] {
        assert_eq!(request.header(trailer), None);
    }
    let agent = request.header("user-agent").unwrap();
    assert!(agent.contains(concat!("kubectl-backup/", env!("CARGO_PKG_VERSION"))), "{agent}");
}

#[tokio::test]
async fn a_body_is_created_once_whatever_fails_before() {
    let conflict = Answer::error(409, "ConditionalRequestConflict", "The conditional request cannot succeed.");
    for fault in faults().into_iter().chain([conflict]) {
        let patience = patience_for(&fault);
        let fake =
            Fake::start(move |_, times| if times < 3 { Fault::Before(fault.clone()) } else { Fault::None }).await;
        patient_store(&fake.server, patience).create("a", "hello".into()).await.unwrap();
        assert_eq!(fake.object("a").unwrap(), "hello");
        assert_eq!(fake.asked("PutObject"), 3);
    }
}

#[tokio::test]
async fn a_taken_key_is_told_at_once() {
    let fake = Fake::start(|_, _| Fault::None).await;
    let store = store(&fake.server);
    store.create("a", "first".into()).await.unwrap();
    let error = store.create("a", "second".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "`s3://bucket/pre/a` exists already");
    assert_eq!((fake.asked("PutObject"), fake.object("a").unwrap()), (2, Bytes::from("first")));
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_finds_the_key_taken_and_says_so() {
    for fault in [Answer::Reset, Answer::Closed, Answer::Silence, Answer::new(500, "")] {
        let patience = patience_for(&fault);
        let fake =
            Fake::start(move |_, times| if times == 1 { Fault::After(fault.clone()) } else { Fault::None }).await;
        let error = patient_store(&fake.server, patience).create("a", "hello".into()).await.unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fake.object("a").unwrap(), "hello");
    }
}

#[tokio::test]
async fn beyond_patience_a_create_names_action_and_key() {
    for fault in faults() {
        let patience = patience_for(&fault);
        let server = Server::script(vec![fault]).await;
        let error = patient_store(&server, patience).create("a", "hello".into()).await.unwrap_err();
        assert!(error.to_string().starts_with("`PutObject` of `s3://bucket/pre/a` failed 4 times, "), "{error}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn a_small_upload_whose_answer_was_lost_is_recognised_as_ours() {
    let lost = |action, times| match (action, times) {
        ("PutObject", 1) => Fault::After(Answer::Reset),
        _ => Fault::None,
    };
    let fake = Fake::start(lost).await;
    assert_eq!(upload(&store(&fake.server), &"hello".into()).await.unwrap(), 5);

    let fake = Fake::start(|_, times| if times == 1 { Fault::Before(Answer::Reset) } else { Fault::None }).await;
    fake.held.lock().unwrap().objects.insert("/bucket/pre/data/x".to_owned(), "other".into());
    let error = upload(&store(&fake.server), &"hello".into()).await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
}

#[tokio::test]
async fn any_fault_on_any_call_of_an_upload_is_survived() {
    let body = large();
    for faulty in ACTIONS {
        for fault in faults() {
            for lost in [false, true] {
                let answer = fault.clone();
                let fake = Fake::start(move |action, times| match (action == faulty && times == 1, lost) {
                    (true, false) => Fault::Before(answer.clone()),
                    (true, true) => Fault::After(answer.clone()),
                    (false, _) => Fault::None,
                })
                .await;
                let length = upload(&patient_store(&fake.server, patience_for(&fault)), &body).await;
                assert_eq!(length.unwrap_or_else(|e| panic!("{faulty} {fault:?}: {e}")), body.len() as u64);
                assert!(fake.object("data/x").unwrap() == body, "{faulty} {fault:?} {lost}");
                // An upload whose beginning was lost is nobody's: it is swept as pending.
                let orphans = usize::from(faulty == "CreateMultipartUpload" && lost);
                assert!(fake.pending() <= orphans, "{faulty} {fault:?} {lost}");
            }
        }
    }
}

#[tokio::test]
async fn an_upload_survives_many_faults_at_once() {
    let body = large();
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let fake = Fake::start(move |_, _| match random.u8(..6) {
            0 => Fault::Before(slow_down()),
            1 => Fault::After(Answer::Reset),
            2 => Fault::Before(Answer::Closed),
            _ => Fault::None,
        })
        .await;
        let store = patient_store(&fake.server, super::Patience { attempts: 30, ..PATIENCE });
        assert_eq!(upload(&store, &body).await.unwrap(), body.len() as u64, "seed {seed}");
        assert!(fake.object("data/x").unwrap() == body, "seed {seed}");
        assert_eq!(store.get("data/x", u64::MAX).await.unwrap().len(), body.len());
    }
}

#[tokio::test]
async fn an_upload_that_fails_for_good_is_aborted_and_names_its_call() {
    let body = large();
    for faulty in ["UploadPart", "CompleteMultipartUpload"] {
        for (fault, code) in [
            (slow_down(), ExitCode::Failed),
            (Answer::Reset, ExitCode::Failed),
            (Answer::error(403, "AccessDenied", "Access Denied"), ExitCode::Forbidden),
        ] {
            let fake =
                Fake::start(move |action, _| if action == faulty { Fault::Before(fault.clone()) } else { Fault::None });
            let fake = fake.await;
            let error = upload(&store(&fake.server), &body).await.unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{faulty}` of `s3://bucket/pre/data/x` ")), "{error}");
            assert_eq!(error.exit_code(), code, "{error}");
            assert_eq!((fake.pending(), fake.object("data/x")), (0, None), "{error}");
        }
    }
}

#[tokio::test]
async fn after_an_error_an_upload_takes_nothing_more() {
    let fake = Fake::start(|action, _| match action {
        "UploadPart" => Fault::Before(Answer::error(403, "AccessDenied", "Access Denied")),
        _ => Fault::None,
    })
    .await;
    let store = store(&fake.server);
    let mut upload = store.upload("data/x").await.unwrap();
    let mut failed = None;
    for _ in 0..8 {
        match upload.write(Bytes::from(vec![7; PART])).await {
            Ok(()) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    assert!(matches!(failed, Some(Error::Forbidden { .. })), "{failed:?}");
    let error = upload.write("x".into()).await.unwrap_err().to_string();
    assert_eq!(error, "`UploadPart` of `s3://bucket/pre/data/x` failed: an error has ended it");
    assert!(upload.finish().await.is_err());
    assert_eq!((fake.pending(), fake.object("data/x")), (0, None));
}

#[tokio::test]
async fn a_part_is_sent_before_the_next_is_filled() {
    let fake = Fake::start(move |action, _| match action {
        "UploadPart" => Fault::Before(Answer::Silence),
        _ => Fault::None,
    })
    .await;
    let mut upload = store(&fake.server).upload("data/x").await.unwrap();
    // the part is full, and sent when it is known that it isn't the last
    upload.write(Bytes::from(vec![7; PART])).await.unwrap();
    let more = upload.write("x".into());
    let asked = async {
        while fake.asked("UploadPart") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        more = more => panic!("there was room for more: {more:?}"),
        () = asked => (),
    }
}

#[tokio::test]
async fn a_completion_whose_answer_was_lost_counts() {
    let fake = Fake::start(|action, times| match (action, times) {
        ("CompleteMultipartUpload", 1) => Fault::After(Answer::Reset),
        _ => Fault::None,
    })
    .await;
    assert_eq!(upload(&store(&fake.server), &large()).await.unwrap(), large().len() as u64);
    assert_eq!(fake.asked("CompleteMultipartUpload"), 2);
}

#[tokio::test]
async fn an_upload_that_a_sweeper_ended_says_so() {
    for faulty in ["UploadPart", "CompleteMultipartUpload"] {
        let gone = Answer::error(404, "NoSuchUpload", "The specified upload does not exist.");
        let fake =
            Fake::start(move |action, _| if action == faulty { Fault::Before(gone.clone()) } else { Fault::None })
                .await;
        let error = upload(&store(&fake.server), &large()).await.unwrap_err().to_string();
        assert_eq!(error, format!("`{faulty}` of `s3://bucket/pre/data/x` failed: somebody has ended the upload"));
    }
}

#[tokio::test]
async fn an_error_within_a_good_status_is_an_error() {
    // S3 begins its answer to a long completion before it knows how it ends.
    let fake = Fake::start(|action, times| match (action, times) {
        ("CompleteMultipartUpload", 1) => {
            Fault::Before(Answer::error(200, "InternalError", "We encountered an error."))
        }
        _ => Fault::None,
    })
    .await;
    assert_eq!(upload(&store(&fake.server), &large()).await.unwrap(), large().len() as u64);
    assert_eq!(fake.asked("CompleteMultipartUpload"), 2);
}

#[tokio::test]
async fn a_length_other_than_what_was_sent_is_an_integrity_error() {
    for body in [large(), "hello".into()] {
        let fake = Fake::start(|action, _| match action {
            "HeadObject" => Fault::Before(Answer::new(200, "hell")),
            _ => Fault::None,
        })
        .await;
        let error = upload(&store(&fake.server), &body).await.unwrap_err();
        let text = format!("`s3://bucket/pre/data/x` is damaged: {} bytes were uploaded and 4 are there", body.len());
        assert_eq!((error.to_string(), error.exit_code()), (text, ExitCode::Integrity));
    }
}

#[tokio::test]
async fn a_failed_abort_does_not_hide_what_failed_first() {
    let fake = Fake::start(|action, _| match action {
        "UploadPart" => Fault::Before(Answer::error(400, "BadDigest", "The checksum did not match")),
        "AbortMultipartUpload" => Fault::Before(slow_down()),
        _ => Fault::None,
    })
    .await;
    let error = upload(&store(&fake.server), &large()).await.unwrap_err().to_string();
    assert_eq!(error, "`UploadPart` of `s3://bucket/pre/data/x` failed: BadDigest: The checksum did not match (400)");
    assert_eq!(fake.asked("AbortMultipartUpload"), 4);
}

#[tokio::test]
async fn a_dropped_upload_is_aborted() {
    for is_begun in [true, false] {
        let aborted = Arc::new(Notify::new());
        let heard = Arc::clone(&aborted);
        let fake = Fake::start(move |action, _| {
            if action == "AbortMultipartUpload" {
                heard.notify_one();
            }
            Fault::None
        })
        .await;
        let mut upload = store(&fake.server).upload("data/x").await.unwrap();
        if is_begun {
            upload.write(large()).await.unwrap();
        } else {
            assert!(upload.write(large()).now_or_never().is_none(), "S3 has not answered yet");
        }
        drop(upload);
        tokio::time::timeout(std::time::Duration::from_secs(10), aborted.notified()).await.unwrap();
    }
}

#[tokio::test]
async fn an_abort_waits_for_what_is_being_begun() {
    let fake = Fake::start(|_, _| Fault::None).await;
    let mut upload = store(&fake.server).upload("data/x").await.unwrap();
    assert!(upload.write(large()).now_or_never().is_none(), "S3 has not answered yet");
    upload.abort().await.unwrap();
    assert_eq!((fake.asked("CreateMultipartUpload"), fake.asked("AbortMultipartUpload"), fake.pending()), (1, 1, 0));
}

#[tokio::test]
async fn pending_uploads_are_those_below_the_prefix() {
    let uploads = ["other/data/a", "pre/data/a", "pre/log/b", "prefix/data/c"].map(|key| {
        format!(
            "<Upload><Key>{key}</Key><UploadId>id-{key}</UploadId><Initiated>2026-11-20T10:00:00Z</Initiated></Upload>"
        )
    });
    let page = |uploads: &[String], more: &str| {
        Answer::new(200, format!("<ListMultipartUploadsResult>{}{more}</ListMultipartUploadsResult>", uploads.concat()))
    };
    let more =
        "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>";
    let pages = [page(&uploads[..2], more), page(&uploads[2..], "<IsTruncated>false</IsTruncated>")];
    let [first, second] = pages;
    let server = Server::script(vec![slow_down(), first.clone(), second.clone(), first, second]).await;
    let store = store(&server);
    let keys = |pending: Vec<crate::store::PendingUpload>| pending.into_iter().map(|one| one.key).collect::<Vec<_>>();
    assert_eq!(keys(store.pending_uploads("").await.unwrap()), ["data/a", "log/b"]);
    let pending = store.pending_uploads("data/").await.unwrap();
    assert_eq!((pending.len(), pending[0].id.as_str()), (1, "id-pre/data/a"));
    assert_eq!(pending[0].initiated.to_string(), "2026-11-20T10:00:00Z");
}
