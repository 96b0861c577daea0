//! Whole backups through the real S3 client, to a small S3 on loopback in which any call goes wrong, or is the last thing
//! that a worker does: with the client's own patience, and archives of more than one part.

#[allow(dead_code, reason = "the S3 client's own tests use all of it")]
#[path = "../../src/store/s3/tests/fake.rs"]
mod fake;
#[allow(dead_code, reason = "the S3 client's own tests use all of it")]
#[path = "../../src/store/s3/tests/server.rs"]
mod server;

use crate::api::Api;
use crate::bucket::Bucket;
use crate::run::{ID, Scope, Worker, backup_task, ending, exit_code, folder, read_back, restore_task};
use crate::world::World;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fake::{Fake, Fault, Held};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use kubectl_backup::config::Location;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::verify::{Level, VerifyTask};
use kubectl_backup::operations::{Done, Verb};
use kubectl_backup::pipeline::sweep;
use kubectl_backup::report::ExitCode;
use kubectl_backup::store::{self, PART_SIZE, Store};
use server::{Answer, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "hunter2-secret")];

/// Backups at once: most wait for time to pass.
const AT_ONCE: usize = 4;
/// Steps of time, where S3 is given up in the end, and where what happens within seconds matters.
const FAST: Duration = Duration::from_secs(1);
const GENTLE: Duration = Duration::from_millis(250);

/// Runs a test, by its name, in a process of its own, as the S3 client finds its keys in the environment; there time
/// runs by `step` in a millisecond. It can't stand still as in the other tests: among real sockets nobody knows when all
/// that is left to wait for is a timer.
fn alone(name: &str, step: Duration, test: impl Future<Output = ()>) {
    if std::env::var(KEYS[0].0).is_ok_and(|key| key == KEYS[0].1) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let hurry = async {
            loop {
                // while the pool is at work, the clock doesn't jump by itself
                tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(1))).await.unwrap();
                tokio::time::advance(step).await;
            }
        };
        return runtime.block_on(async {
            tokio::select! { () = test => (), () = hurry => () }
        });
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    let ran = command.args(["--exact", name, "--nocapture"]).env_clear().envs(KEYS).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && told.contains("1 passed"), "{told}");
}

/// A busy cluster, with more in its Secrets than one part of an upload holds.
fn busy() -> Api {
    static WORLD: LazyLock<World> = LazyLock::new(|| {
        let mut world = World::full();
        let mut random = fastrand::Rng::with_seed(7);
        for number in 0..9 {
            let blob: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(PART_SIZE / 8).collect();
            let data = format!("\"data\":{{\"blob\":\"{}\"}},\"type\":\"Opaque\"", STANDARD.encode(blob));
            world.put("secrets", Some("shop"), &format!("large-{number}"), "", &data);
        }
        world
    });
    let api = Api::new(WORLD.clone());
    api.state().churn = true;
    api
}

/// What S3 is asked: `UploadPart data/ID/ATTEMPT/objects.tar.zst 2`.
fn call(action: &str, request: &Request) -> String {
    let key = request.path.strip_prefix("/bucket/pre/").unwrap_or_default();
    let part = request.query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).unwrap_or_default();
    let prefix = request.query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
    format!("{action} {key}{prefix} {part}").trim_end().to_owned()
}

/// A way to S3, and what goes wrong on it.
struct Way {
    fake: Fake,
    location: Location,
    store: Arc<dyn Store>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Way {
    /// The function is told the call and how often it was made before.
    async fn to(held: Arc<Mutex<Held>>, fault: impl Fn(&str, usize) -> Fault + Send + 'static) -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let noted = calls.clone();
        let fake = Fake::start_on(held, move |action, request| {
            let call = call(action, request);
            let mut noted = noted.lock().unwrap();
            let before = noted.iter().filter(|one| **one == call).count();
            noted.push(call.clone());
            fault(&call, before)
        })
        .await;
        let url = format!("s3://bucket/pre?region=us-east-1&endpoint={}", fake.server.url());
        let location = Location::parse_url(&url).unwrap();
        let store = store::open(&location).await.unwrap();
        Self { fake, location, store, calls }
    }

    async fn back_up(&self, worker: &Worker, api: &Api) -> anyhow::Result<Done> {
        let verb = Verb::Backup(backup_task(Scope::Shop));
        worker.run_on(ID, verb, self.location.clone(), api, self.store.as_ref()).await
    }

    /// The keys in the bucket.
    fn keys(&self) -> Vec<String> {
        let held = self.fake.held.lock().unwrap();
        held.objects.keys().map(|path| path.strip_prefix("/bucket/pre/").unwrap().to_owned()).collect()
    }

    /// Reads the backup back that is in the bucket, from a folder that holds the same.
    async fn read_back(&self, api: &Api, about: &str) -> String {
        let folder = folder();
        for key in self.keys() {
            let path = folder.path().join(&key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, self.fake.object(&key).unwrap()).unwrap();
        }
        let bucket = Bucket::new(folder.path()).await;
        read_back(api, &bucket, Scope::Shop, about).await.manifest.attempt.to_string()
    }

    /// Sweeps two days later: then no upload is pending, and nothing is there but what the backup's manifest names.
    async fn assert_swept(&self, stands: Option<&str>, about: &str) {
        let later = Timestamp::now().checked_add(SignedDuration::from_hours(48)).unwrap();
        sweep::garbage(self.store.as_ref(), later).await.unwrap();
        let (keys, pending) = (self.keys(), self.fake.pending());
        let belongs =
            |key: &String| stands.is_some_and(|by| key.starts_with("backups/") || key.contains(&format!("/{by}/")));
        assert!(pending == 0 && keys.iter().all(belongs), "{about}: {pending} uploads and {keys:?} are left");
    }
}

/// Every call of a backup without faults, once.
async fn calls(api: &Api) -> Vec<String> {
    let way = Way::to(Arc::default(), |_, _| Fault::None).await;
    assert_eq!(ending(&way.back_up(&Worker::default(), api).await), "Complete");
    assert_eq!(way.read_back(api, "without faults").await, "first");
    let mut known = BTreeSet::new();
    let calls: Vec<String> =
        way.calls.lock().unwrap().iter().filter(|call| known.insert((*call).clone())).cloned().collect();
    let parts = calls.iter().filter(|call| call.starts_with("UploadPart ")).count();
    assert!(parts >= 2 && calls.len() > 9 && calls.contains(&manifest()), "{calls:?}");
    calls
}

/// Whether a call is about the upload in parts, or the commit; the others are tried in less ways, as `storing` and `kill`
/// have them all.
fn is_crucial(call: &str) -> bool {
    call.ends_with("/objects.tar.zst") || call.starts_with("UploadPart") || call == manifest()
}

fn manifest() -> String {
    format!("PutObject backups/{ID}.json")
}

fn slow_down() -> Answer {
    Answer::error(503, "SlowDown", "Please reduce your request rate.")
}

/// What goes wrong with a request, by name.
fn fault(name: &str) -> Fault {
    match name {
        "429" => Fault::Before(Answer::error(429, "TooManyRequests", "Please reduce your request rate.")),
        "500" => Fault::Before(Answer::error(500, "InternalError", "We encountered an internal error.")),
        "503" => Fault::Before(slow_down()),
        "reset" => Fault::Before(Answer::Reset),
        "reset after" => Fault::After(Answer::Reset),
        "stall" => Fault::Before(Answer::Silence),
        "stall after" => Fault::After(Answer::Silence),
        "half an answer" => Fault::Half { stalled: false },
        "half an answer, then nothing" => Fault::Half { stalled: true },
        other => panic!("{other}"),
    }
}

const FAULTS: [&str; 9] = [
    "429",
    "500",
    "503",
    "reset",
    "reset after",
    "stall",
    "stall after",
    "half an answer",
    "half an answer, then nothing",
];

/// Every call goes wrong twice, and works then; so do those of a verification and of a restore. (Once where S3 falls
/// silent: two completions of five minutes are all of the time that a call has.)
#[test]
fn within_patience_faults_at_every_call_cost_time_only() {
    alone("s3::within_patience_faults_at_every_call_cost_time_only", FAST, async {
        let cases = stream::iter(FAULTS).for_each_concurrent(AT_ONCE, async |name| {
            let (api, times) = (busy(), if name.contains("stall") || name.contains("nothing") { 1 } else { 2 });
            let goes_wrong = move |_: &str, before| if before < times { fault(name) } else { Fault::None };
            let way = Way::to(Arc::default(), goes_wrong).await;
            let result = way.back_up(&Worker::default(), &api).await;
            assert_eq!(ending(&result), "Complete", "{name}");
            way.read_back(&api, name).await;
            let task =
                VerifyTask { backups: vec![BackupQuery::parse(ID).unwrap()], from_cluster: None, level: Level::Bytes };
            let id = "verify-20261120-150000-eeee";
            let verified =
                Worker::default().run_on(id, Verb::Verify(task), way.location.clone(), &api, way.store.as_ref()).await;
            assert_eq!(ending(&verified), "Complete", "{name}");
            let mut asked = BTreeMap::<String, usize>::new();
            for call in way.calls.lock().unwrap().iter() {
                *asked.entry(call.clone()).or_default() += 1;
            }
            assert!(asked.len() > 12 && asked.values().all(|asked| *asked > times), "{name}: {asked:?}");
            // an upload whose beginning was lost is nobody's
            let lost = if name.contains("after") || name.contains("half") { times } else { 0 };
            assert_eq!(way.fake.pending(), lost, "{name}");
            way.assert_swept(Some("first"), name).await;
            way.read_back(&api, &format!("{name}, swept")).await;
            let (id, target, verb) =
                ("restore-20261120-160000-rrrr", Api::new(World::empty()), Verb::Restore(Box::new(restore_task())));
            let restored = Worker::default().run_on(id, verb, way.location.clone(), &target, way.store.as_ref()).await;
            assert_eq!(ending(&restored), "Complete", "{name}");
        });
        cases.await;
    });
}

#[test]
fn beyond_patience_no_call_makes_a_backup() {
    alone("s3::beyond_patience_no_call_makes_a_backup", FAST, async {
        let calls = calls(&busy()).await;
        let commit = calls.iter().position(|call| *call == manifest()).unwrap();
        let cases = calls.into_iter().enumerate().flat_map(|(place, failing)| {
            let names = ["503", "reset after", "stall"].into_iter().take(if is_crucial(&failing) { 3 } else { 1 });
            names.map(move |name| (place, failing.clone(), name))
        });
        let cases = stream::iter(cases).for_each_concurrent(AT_ONCE, async |(place, failing, name)| {
            let (about, api) = (format!("{failing}: {name}"), busy());
            let goes_wrong = {
                let failing = failing.clone();
                move |call: &str, _| if call == failing { fault(name) } else { Fault::None }
            };
            let way = Way::to(Arc::default(), goes_wrong).await;
            let result = way.back_up(&Worker::default(), &api).await;
            // a manifest that is there counts, whatever became of the answer
            let is_there = place == commit && name == "reset after";
            if place > commit || is_there {
                assert_eq!(ending(&result), "Complete", "{about}");
                way.read_back(&api, &about).await;
                return;
            }
            assert!(result.is_err(), "{about}: {}", ending(&result));
            let keys = way.keys();
            assert!(!keys.iter().any(|key| key.starts_with("backups/")), "{about}: {keys:?}");
            let lost = failing.starts_with("CreateMultipartUpload") && name == "reset after";
            assert!(lost || way.fake.pending() == 0, "{about}: {} uploads are pending", way.fake.pending());
            let store = Way::to(way.fake.held.clone(), |_, _| Fault::None).await;
            store.assert_swept(None, &about).await;
        });
        cases.await;
    });
}

/// A way on which a call is the last thing that happens: it cancels the token, and from then on nobody is answered.
async fn until(at: &str, after: bool, held: Arc<Mutex<Held>>, cancel: CancellationToken) -> Way {
    let at = at.to_owned();
    Way::to(held, move |call, _| {
        if cancel.is_cancelled() {
            return Fault::Before(Answer::Closed);
        }
        if call != at {
            return Fault::None;
        }
        cancel.cancel();
        if after { Fault::After(Answer::Silence) } else { Fault::Before(Answer::Silence) }
    })
    .await
}

#[test]
fn a_kill_at_any_call_is_no_backup_and_is_swept_by_a_later_run() {
    alone("s3::a_kill_at_any_call_is_no_backup_and_is_swept_by_a_later_run", GENTLE, async {
        let calls = calls(&busy()).await;
        let commit = calls.iter().position(|call| *call == manifest()).unwrap();
        let cases = calls.into_iter().enumerate().flat_map(|(place, at)| {
            let ways = [false, true].into_iter().take(if is_crucial(&at) { 2 } else { 1 });
            ways.map(move |after| (place, at.clone(), after))
        });
        let cases = stream::iter(cases).for_each_concurrent(AT_ONCE, async |(place, at, after)| {
            let (about, api, killed) = (format!("{at}, {after}"), busy(), CancellationToken::new());
            let held: Arc<Mutex<Held>> = Arc::default();
            let way = until(&at.replace("/first/", "/killed/"), after, held.clone(), killed.clone()).await;
            let worker = Worker::named("killed");
            tokio::select! {
                biased;
                () = killed.cancelled() => (),
                result = way.back_up(&worker, &api) => panic!("{about}: it lived: {}", ending(&result)),
            }
            let is_committed = place > commit || place == commit && after;
            assert_eq!(way.keys().iter().any(|key| key.starts_with("backups/")), is_committed, "{about}");
            if at.starts_with("UploadPart") {
                assert_eq!(way.fake.pending(), 1, "{about}");
            }

            let next = Way::to(held, |_, _| Fault::None).await;
            assert_eq!(ending(&next.back_up(&Worker::named("second"), &api).await), "Complete", "{about}");
            let stands = if is_committed { "killed" } else { "second" };
            assert_eq!(next.read_back(&api, &about).await, stands, "{about}");
            next.assert_swept(Some(stands), &about).await;
        });
        cases.await;
    });
}

#[test]
fn a_signal_at_any_call_leaves_no_upload() {
    alone("s3::a_signal_at_any_call_leaves_no_upload", GENTLE, async {
        let calls = calls(&busy()).await;
        let commit = calls.iter().position(|call| *call == manifest()).unwrap();
        let cases = calls.into_iter().take(commit).flat_map(|at| {
            let ways = [false, true].into_iter().take(if is_crucial(&at) { 2 } else { 1 });
            ways.map(move |answered| (at.clone(), answered))
        });
        let cases = stream::iter(cases).for_each_concurrent(AT_ONCE, async |(at, answered)| {
            let (api, worker, about) = (busy(), Worker::default(), format!("{at}, {answered}"));
            let (cancel, at) = (worker.cancel.clone(), at.clone());
            let way = Way::to(Arc::default(), move |call, _| {
                if call != at {
                    return Fault::None;
                }
                cancel.cancel();
                if answered { Fault::None } else { Fault::Before(Answer::Silence) }
            })
            .await;
            let result = way.back_up(&worker, &api).await;
            assert_eq!(exit_code(&result), ExitCode::Interrupted, "{about}: {}", ending(&result));
            let keys: Vec<String> = way.keys().into_iter().filter(|key| !key.ends_with("/log.jsonl.zst")).collect();
            assert!(keys.is_empty() && way.fake.pending() == 0, "{about}: {keys:?}, {}", way.fake.pending());
        });
        cases.await;
    });
}
