//! Streams what the pods of a run print, over broken connections and from one attempt to the next.

use super::api::{Deed, optional};
use super::error::Error;
use super::{CONTAINER, has_ended, selector};
use crate::id::BackupId;
use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, LogParams};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Longer lines are passed on in pieces.
const LINE_LIMIT: u64 = 1024 * 1024;

/// How to follow a log.
#[derive(Clone, Copy, Debug)]
pub struct Follow {
    /// Between two looks for something new: the next attempt, a connection that comes back.
    pub pause: Duration,
    /// For how long a connection may say nothing before another is made: one that broke silently never ends.
    pub silence: Duration,
}

impl Default for Follow {
    fn default() -> Self {
        Self { pause: Duration::from_millis(500), silence: Duration::from_secs(30) }
    }
}

/// Writes the logs of a run's pods, oldest first, as they are: whoever prints them to a terminal takes care of control
/// characters. With `follow`, goes on until the Job ended and all it said is written; lines that were written are not
/// written again after a reconnect. Fails when there is no such Job.
pub async fn stream(
    client: &kube::Client,
    namespace: &str,
    id: &BackupId,
    follow: Option<Follow>,
    out: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let reader = Reader { pods: Api::namespaced(client.clone(), namespace), namespace, follow };
    let get = Deed { verb: "get", resource: "jobs.batch", namespace: Some(namespace), name: id.as_str() };
    let list = Deed { verb: "list", resource: "pods", namespace: Some(namespace), name: "" };
    let params = ListParams::default().labels(&selector(id));
    let mut read: BTreeMap<String, Position> = BTreeMap::new();
    let mut known = false;
    loop {
        let ended = match optional(get.again(|| jobs.get(id.as_str())).await)? {
            Some(job) => has_ended(&job),
            None if known => true,
            None => return Err(Error::NotFound { deed: get.to_string(), message: "there is no such job".to_owned() }),
        };
        known = true;
        let mut pods = list.again(|| reader.pods.list(&params)).await?.items;
        pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let mut all = true;
        for pod in &pods {
            let position = read.entry(pod.metadata.uid.clone().unwrap_or_default()).or_default();
            if !position.done {
                reader.copy(pod, ended, position, out).await?;
            }
            all &= position.done;
        }
        match follow {
            Some(_) if ended && all => return Ok(()),
            Some(follow) => sleep(follow.pause).await,
            None => return Ok(()),
        }
    }
}

/// How far a pod's log was read.
#[derive(Debug, Default)]
struct Position {
    /// The time of the last line, and how many lines of that time were written.
    last: Option<(Timestamp, usize)>,
    done: bool,
}

struct Reader<'a> {
    pods: Api<Pod>,
    namespace: &'a str,
    follow: Option<Follow>,
}

impl Reader<'_> {
    /// Writes what a pod said since the position. It is done when the pod, or its Job, had ended before this began.
    async fn copy(
        &self,
        pod: &Pod,
        over: bool,
        at: &mut Position,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let ended = over || matches!(phase, Some("Succeeded" | "Failed"));
        let params = LogParams {
            container: Some(CONTAINER.to_owned()),
            follow: self.follow.is_some() && !ended,
            timestamps: true,
            // whole seconds, rounded down here: kube rounds to the nearest, which would skip lines
            since_time: at.last.and_then(|(time, _)| Timestamp::from_second(time.as_second()).ok()),
            ..LogParams::default()
        };
        let deed = Deed { verb: "get", resource: "pods/log", namespace: Some(self.namespace), name };
        let log = match deed.once(self.pods.log_stream(name, &params)).await {
            Ok(log) => log,
            // gone with its log, or its node is
            Err(Error::NotFound { .. }) => {
                at.done = true;
                return Ok(());
            }
            // the container hasn't started, or never did
            Err(Error::Api { code: 400, .. }) => {
                at.done = ended;
                return Ok(());
            }
            Err(error) if error.is_transient() && self.follow.is_some() => {
                tracing::debug!("{error}; trying again");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let whole = self.lines(log, at, out).await?;
        at.done = whole && (ended || self.follow.is_none());
        Ok(())
    }

    /// Writes the lines that come after the position; whether the log came to its end.
    async fn lines(
        &self,
        log: impl AsyncBufRead,
        at: &mut Position,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<bool, Error> {
        let silence = self.follow.map_or(Follow::default().silence, |follow| follow.silence);
        let (from, mut same) = (at.last, 0);
        let mut line = Vec::new();
        futures::pin_mut!(log);
        loop {
            line.clear();
            let mut piece = (&mut log).take(LINE_LIMIT);
            match timeout(silence, piece.read_until(b'\n', &mut line)).await {
                Ok(Ok(0)) => return out.flush().await.map(|()| true).map_err(Error::Write),
                Ok(Ok(_)) => (),
                Ok(Err(error)) => {
                    tracing::debug!("the log broke off: {error}");
                    return Ok(false);
                }
                Err(_) => return Ok(false),
            }
            let Some((time, text)) = split(&line) else {
                out.write_all(&line).await.map_err(Error::Write)?;
                continue;
            };
            if let Some((last, written)) = from {
                same += usize::from(time == last);
                if time < last || (time == last && same <= written) {
                    continue;
                }
            }
            at.last = match at.last {
                Some((last, count)) if last == time => Some((last, count + 1)),
                _ => Some((time, 1)),
            };
            out.write_all(text).await.map_err(Error::Write)?;
            out.flush().await.map_err(Error::Write)?;
        }
    }
}

/// A line's time, which the kubelet puts in front of it, and its text.
fn split(line: &[u8]) -> Option<(Timestamp, &[u8])> {
    let space = line.iter().take(40).position(|byte| *byte == b' ')?;
    let time = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
    Some((time, &line[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, failure};
    use super::*;
    use serde_json::{Value, json};

    const JOB: &str = "/apis/batch/v1/namespaces/kb/jobs/shop-1";
    const FAST: Option<Follow> = Some(Follow { pause: Duration::from_millis(1), silence: Duration::from_secs(20) });

    fn job(condition: &str) -> Value {
        json!({ "metadata": { "name": "shop-1", "uid": "j" },
            "status": { "conditions": [{ "type": condition, "status": "True" }] } })
    }

    fn path(name: &str) -> String {
        format!("/api/v1/namespaces/kb/pods/{name}")
    }

    fn pod(name: &str, created: &str, phase: &str) -> Value {
        json!({ "metadata": { "name": name, "uid": name, "creationTimestamp": created,
            "labels": { "batch.kubernetes.io/job-name": "shop-1" } }, "status": { "phase": phase } })
    }

    async fn read(fake: &Fake, follow: Option<Follow>) -> Result<String, Error> {
        let (id, mut out) = (BackupId::parse("shop-1").unwrap(), Vec::new());
        stream(&fake.client(), "kb", &id, follow, &mut out).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn all_attempts_are_read_in_order() {
        let fake = Fake::default();
        fake.put(JOB, job("Complete"));
        fake.put(&path("a-second"), pod("a-second", "2026-11-20T10:01:00Z", "Succeeded"));
        fake.put(&path("b-first"), pod("b-first", "2026-11-20T10:00:00Z", "Failed"));
        fake.put(&path("c-third"), pod("c-third", "2026-11-20T10:02:00Z", "Pending"));
        fake.answer_bytes("GET", &path("b-first/log"), 200, "2026-11-20T10:00:01.000000001Z one\nodd\n");
        fake.answer_bytes(
            "GET",
            &path("a-second/log"),
            200,
            "2026-11-20T10:01:01.000000001Z two two\n2026-11-20T10:01:02Z ",
        );
        let wait = "container \"worker\" in pod \"c\" is waiting to start: ContainerCreating";
        fake.answer("GET", &path("c-third/log"), 400, failure(400, "BadRequest", wait));
        assert_eq!(read(&fake, None).await.unwrap(), "one\nodd\ntwo two\n");
        let query = &fake.calls("GET", &path("b-first/log"))[0].query;
        assert_eq!(query, "&container=worker&timestamps=true");
    }

    #[tokio::test]
    async fn following_survives_reconnects_without_repeating_or_losing_lines() {
        let fake = Fake::default();
        fake.put(JOB, json!({ "metadata": { "name": "shop-1" }, "status": { "active": 1 } }));
        fake.put(&path("p"), pod("p", "2026-11-20T10:00:00Z", "Running"));
        let line = |nanos: u32, text: &str| format!("2026-11-20T10:00:01.{nanos:09}Z {text}\n");
        let log = path("p/log");
        let wait = "container \"worker\" in pod \"p\" is waiting to start: ContainerCreating";
        fake.answer("GET", &log, 400, failure(400, "BadRequest", wait));
        fake.answer_bytes("GET", &log, 200, line(600_000_001, "a") + &line(700_000_000, "b") + &line(700_000_000, "b"));
        fake.break_off("GET", &log);
        // the API server sends the whole second again, with one more of the same time
        let again = line(600_000_001, "a") + &line(700_000_000, "b").repeat(3) + &line(800_000_000, "c");
        fake.answer_bytes("GET", &log, 200, again);
        fake.at("GET", JOB, 5, |objects| {
            objects.insert(JOB.into(), job("Complete"));
            objects.insert(path("p"), pod("p", "2026-11-20T10:00:00Z", "Succeeded"));
        });
        fake.answer_bytes("GET", &log, 200, line(800_000_000, "c") + &line(900_000_000, "d"));
        assert_eq!(read(&fake, FAST).await.unwrap(), "a\nb\nb\nb\nc\nd\n");
        let queries: Vec<String> = fake.calls("GET", &log).into_iter().map(|call| call.query).collect();
        assert!(queries[0].contains("follow=true") && !queries[0].contains("sinceTime"));
        assert!(queries[2].contains("sinceTime=2026-11-20T10%3A00%3A01Z"), "{}", queries[2]);
        assert!(!queries.last().unwrap().contains("follow"));
    }

    #[tokio::test]
    async fn following_goes_on_with_the_next_attempt() {
        let fake = Fake::default();
        fake.put(JOB, json!({ "metadata": { "name": "shop-1" }, "status": { "active": 1 } }));
        fake.put(&path("one"), pod("one", "2026-11-20T10:00:00Z", "Failed"));
        fake.answer_bytes("GET", &path("one/log"), 200, "2026-11-20T10:00:01Z first\n");
        fake.at("GET", JOB, 3, |objects| {
            objects.insert(JOB.into(), job("Failed"));
            objects.insert(path("two"), pod("two", "2026-11-20T10:01:00Z", "Failed"));
        });
        fake.answer_bytes("GET", &path("two/log"), 200, "2026-11-20T10:01:01Z second\n");
        assert_eq!(read(&fake, FAST).await.unwrap(), "first\nsecond\n");
        assert_eq!(fake.calls("GET", &path("one/log")).len(), 1);
    }

    #[tokio::test]
    async fn a_job_that_is_not_there_is_said_and_a_missing_right_named() {
        let fake = Fake::default();
        let error = read(&fake, FAST).await.unwrap_err();
        assert_eq!(error.to_string(), "can't get `jobs.batch` `shop-1` in namespace `kb`: there is no such job");
        fake.put(JOB, job("Complete"));
        fake.put(&path("p"), pod("p", "2026-11-20T10:00:00Z", "Succeeded"));
        let text = r#"pods "p" is forbidden: User "ann" cannot get resource "pods/log" in API group """#;
        fake.answer("GET", &path("p/log"), 403, failure(403, "Forbidden", text));
        let error = read(&fake, FAST).await.unwrap_err();
        assert!(error.to_string().ends_with("hint: needs `get` on `pods/log` in namespace `kb`"), "{error}");
    }

    #[tokio::test]
    async fn pods_that_were_removed_end_the_reading() {
        let fake = Fake::default();
        fake.put(JOB, job("Complete"));
        fake.put(&path("p"), pod("p", "2026-11-20T10:00:00Z", "Running"));
        assert_eq!(read(&fake, FAST).await.unwrap(), "");
    }
}
