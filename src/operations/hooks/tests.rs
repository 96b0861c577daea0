use super::*;
use crate::cluster::exec::server::{Answer, Step, api_server, success};
use crate::id::Attempt;
use anyhow::bail;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// A cluster with pods in namespace `shop`, and what was asked of it: `exec POD PROGRAM`, `work`.
struct Fake {
    cluster: Cluster,
    context: Context,
    wanted: Wanted,
    chosen: Chosen,
    kinds: [Kind; 1],
    log: Arc<Mutex<Vec<String>>>,
    events: Events,
    problems: Arc<Mutex<Vec<Problem>>>,
}

fn annotated(name: &str, annotations: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Running"}})
}

fn exits(code: u8, stderr: &str) -> Vec<Step> {
    let causes = json!([{"reason": "ExitCode", "message": code.to_string()}]);
    let status =
        json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}});
    vec![Step::Send(2, stderr.into()), Step::Send(3, status.to_string().into())]
}

impl Fake {
    /// `allowed` are the namespaces in which exec is allowed, empty for all; `steps` what a program does.
    async fn new(pods: Value, denied: bool, steps: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let pods: BTreeMap<String, Value> =
            pods.as_object().unwrap().iter().map(|(name, given)| (name.clone(), annotated(name, given))).collect();
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        let client = api_server(move |line| {
            let path = line.split(' ').nth(1).unwrap();
            let of_all = path.strip_prefix("/api/v1/pods");
            let below = path.strip_prefix("/api/v1/namespaces/shop/pods").or(of_all).unwrap_or_default();
            if path.ends_with("/selfsubjectaccessreviews") {
                return Answer::Json(201, json!({"status": {"allowed": !denied}}).to_string());
            }
            if let Some((name, query)) = below.split_once("/exec?") {
                let program = query.split("command=").nth(1).unwrap().split('&').next().unwrap();
                seen.lock().unwrap().push(format!("exec {} {program}", name.trim_start_matches('/')));
                return Answer::Exec(steps(program));
            }
            if let Some(name) = below.strip_prefix('/') {
                return Answer::Json(200, pods[name].to_string());
            }
            assert!(below.starts_with('?'), "{line}");
            let items: Vec<Value> = pods.values().map(|pod| json!({"metadata": pod["metadata"]})).collect();
            Answer::Json(200, json!({"metadata": {"resourceVersion": "7"}, "items": items}).to_string())
        });
        let client = client.await;
        let problems = Arc::new(Mutex::new(Vec::new()));
        let told = problems.clone();
        let events = Events::new(move |event| {
            if let Event::Problem(problem) = event {
                told.lock().unwrap().push(problem);
            }
        });
        let context = Context {
            now: Arc::new(Timestamp::now),
            events: events.clone(),
            cancel: CancellationToken::new(),
            attempt: Attempt::parse("attempt-1").unwrap(),
            install_namespace: DEFAULT_NAMESPACE.to_owned(),
        };
        let (group, version) = (String::new(), "v1".to_owned());
        let pods = Kind { group, version, kind: "Pod".into(), resource: "pods".into(), namespaced: true };
        Self {
            cluster: Cluster::new(client.clone(), client),
            context,
            wanted: Wanted::Namespaces(["shop".to_owned()].into()),
            chosen: Chosen::default(),
            kinds: [pods],
            log,
            events,
            problems,
        }
    }

    fn around(&self, enabled: bool) -> Around<'_> {
        let (wanted, chosen, kinds) = (&self.wanted, &self.chosen, &self.kinds);
        let mut around = Around::new(enabled, wanted, chosen, kinds, &self.cluster, &self.context, &self.events);
        around.grace = Duration::from_millis(300);
        around
    }

    async fn run(&self, enabled: bool, work: impl Future<Output = anyhow::Result<()>>) -> (anyhow::Result<()>, Ran) {
        let log = self.log.clone();
        let (result, ran) = self
            .around(enabled)
            .run(async move {
                log.lock().unwrap().push("work".to_owned());
                work.await
            })
            .await;
        assert_eq!(*self.problems.lock().unwrap(), ran.problems, "every problem is told at once");
        (result, ran)
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn outcomes(ran: &Ran) -> Vec<(String, When, HookOutcome)> {
    ran.reports.iter().map(|one| (one.pod.clone(), one.when, one.outcome)).collect()
}

fn both() -> Value {
    json!({"db": {"kubectl-backup/pre": "freeze", "kubectl-backup/post": "thaw"}, "web": {"app": "x"}})
}

#[tokio::test]
async fn none_in_namespaces_that_are_left_out() {
    let mut fake = Fake::new(both(), false, |_| vec![success()]).await;
    (fake.wanted, fake.chosen) = (Wanted::Cluster, Chosen::default().without(["shop".to_owned()]));
    let (_, ran) = fake.run(true, async { Ok(()) }).await;
    assert_eq!((fake.log(), outcomes(&ran)), (vec!["work".to_owned()], Vec::new()));
}

#[tokio::test]
async fn before_the_work_and_after_it() {
    let fake = Fake::new(both(), false, |_| vec![success()]).await;
    let (result, ran) = fake.run(true, async { Ok(()) }).await;
    result.unwrap();
    assert_eq!(fake.log(), ["exec db freeze", "work", "exec db thaw"]);
    let succeeded = HookOutcome::Succeeded;
    assert_eq!(outcomes(&ran), [("db".into(), When::Pre, succeeded), ("db".into(), When::Post, succeeded)]);
    assert!(ran.problems.is_empty() && ran.omissions.is_empty(), "{ran:?}");
    let report = &ran.reports[0];
    let said = (report.namespace.as_str(), report.container.as_str(), report.command.as_str(), &report.message);
    assert_eq!(said, ("shop", "main", "freeze", &None));
}

#[tokio::test]
async fn a_failed_pre_hook_is_a_problem_and_the_rest_goes_on() {
    let steps =
        |program: &str| if program == "freeze" { exits(3, "one\nno \u{1b}[2Jspace\n") } else { vec![success()] };
    let fake = Fake::new(both(), false, steps).await;
    let (result, ran) = fake.run(true, async { Ok(()) }).await;
    result.unwrap();
    assert_eq!(fake.log(), ["exec db freeze", "work", "exec db thaw"]);
    let message = "`freeze` in container `main` exited with 3: one / no \\u{1b}[2Jspace";
    let expected = Problem { subject: "pre hook of pod shop/db".into(), message: message.into() };
    assert_eq!(ran.problems, [expected]);

    let continues = json!({"db": {"kubectl-backup/pre": "freeze", "kubectl-backup/pre-on-error": "Continue"}});
    let fake = Fake::new(continues.clone(), false, |_| exits(1, "")).await;
    let (_, ran) = fake.run(true, async { Ok(()) }).await;
    assert_eq!((ran.problems.len(), outcomes(&ran)), (0, vec![("db".into(), When::Pre, HookOutcome::Failed)]));
    assert!(ran.reports[0].message.as_deref().unwrap().ends_with("exited with 1: it wrote nothing"));

    // a tool that complains on stdout
    let steps = |_: &str| [vec![Step::Send(1, b"no lock\n".to_vec())], exits(1, " \n")].concat();
    let (_, ran) = Fake::new(continues, false, steps).await.run(true, async { Ok(()) }).await;
    assert!(ran.reports[0].message.as_deref().unwrap().ends_with("exited with 1: no lock"), "{ran:?}");
}

#[tokio::test]
async fn a_hanging_hook_ends_at_its_timeout() {
    let pods = json!({"db": {"kubectl-backup/pre": "freeze", "kubectl-backup/pre-timeout": "600ms"}});
    let steps =
        |_: &str| vec![Step::Send(1, b"42 rows".to_vec()), Step::Send(2, b"waiting for a lock\n".to_vec()), Step::Hang];
    let fake = Fake::new(pods, false, steps).await;
    let (result, ran) = fake.run(true, async { Ok(()) }).await;
    result.unwrap();
    assert_eq!(outcomes(&ran), [("db".into(), When::Pre, HookOutcome::TimedOut)]);
    let message = &ran.problems[0].message;
    assert!(message.contains("didn't end within 600ms; the connection is closed"), "{message}");
    assert!(message.ends_with("may go on: waiting for a lock"), "{message}");
}

#[tokio::test]
async fn what_was_frozen_is_thawed_when_the_work_fails_or_panics() {
    let fake = Fake::new(both(), false, |_| vec![success()]).await;
    let (result, ran) = fake.run(true, async { bail!("no bucket") }).await;
    assert_eq!((result.unwrap_err().to_string().as_str(), ran.reports.len()), ("no bucket", 2));
    assert_eq!(fake.log(), ["exec db freeze", "work", "exec db thaw"]);

    let fake = Fake::new(both(), false, |_| vec![success()]).await;
    let panics = async { panic!("a mistake") };
    assert!(AssertUnwindSafe(fake.run(true, panics)).catch_unwind().await.is_err());
    assert_eq!(fake.log(), ["exec db freeze", "work", "exec db thaw"]);
}

#[tokio::test]
async fn what_was_frozen_is_thawed_when_the_run_is_cancelled() {
    let fake = Fake::new(both(), false, |_| vec![success()]).await;
    let cancel = fake.context.cancel.clone();
    let cancelled = async {
        cancel.cancel();
        Err(pipeline::Error::Cancelled.into())
    };
    let (result, _) = fake.run(true, cancelled).await;
    assert!(result.is_err());
    assert_eq!(fake.log(), ["exec db freeze", "work", "exec db thaw"]);
}

#[tokio::test]
async fn a_cancel_stops_pre_hooks_and_the_work_is_not_begun() {
    let steps = |program: &str| if program == "freeze" { vec![Step::Hang] } else { vec![success()] };
    let fake = Fake::new(both(), false, steps).await;
    let (cancel, log) = (fake.context.cancel.clone(), fake.log.clone());
    tokio::spawn(async move {
        while log.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    });
    let (result, ran) = fake.run(true, async { Ok(()) }).await;
    assert_eq!(super::super::exit_code(&result.unwrap_err()), crate::report::ExitCode::Interrupted);
    assert_eq!(fake.log(), ["exec db freeze", "exec db thaw"]);
    let expected = [("db".into(), When::Pre, HookOutcome::Stopped), ("db".into(), When::Post, HookOutcome::Succeeded)];
    assert_eq!(outcomes(&ran), expected);
}

#[tokio::test]
async fn after_a_cancel_post_hooks_have_their_time_in_all() {
    let fake =
        Fake::new(both(), false, |program| if program == "thaw" { vec![Step::Hang] } else { vec![success()] }).await;
    let cancel = fake.context.cancel.clone();
    let began = Instant::now();
    let cancelled = async {
        cancel.cancel();
        Err(pipeline::Error::Cancelled.into())
    };
    let (_, ran) = fake.run(true, cancelled).await;
    assert!(began.elapsed() < Duration::from_secs(10), "far less than the hook's 30 s");
    assert_eq!(ran.reports[1].outcome, HookOutcome::Stopped);
}

#[tokio::test]
async fn many_pods_all_have_their_turn() {
    let pods: serde_json::Map<String, Value> =
        (0..20).map(|n| (format!("db-{n:02}"), json!({"kubectl-backup/pre": "freeze"}))).collect();
    let fake = Fake::new(Value::Object(pods), false, |_| vec![success()]).await;
    let (_, ran) = fake.run(true, async { Ok(()) }).await;
    let names: Vec<&str> = ran.reports.iter().map(|one| one.pod.as_str()).collect();
    assert!(names.len() == 20 && names.is_sorted(), "{names:?}");
    assert!(ran.reports.iter().all(|one| one.outcome == HookOutcome::Succeeded), "{ran:?}");
}

#[tokio::test]
async fn without_the_right_nothing_is_run_and_the_way_out_is_told() {
    let fake = Fake::new(both(), true, |_| vec![success()]).await;
    let (result, ran) = fake.run(true, async { Ok(()) }).await;
    result.unwrap();
    assert_eq!(fake.log(), ["work"]);
    let message = "those of pod `shop/db` are not run: `create` on `pods/exec` is not allowed; \
                   `kubectl backup init --hooks` grants it, `--hooks=false` does without";
    assert_eq!(ran.problems, [Problem { subject: "hooks".into(), message: message.into() }]);
    assert!(ran.reports.len() == 2 && ran.reports.iter().all(|one| one.outcome == HookOutcome::NotRun), "{ran:?}");
}

#[tokio::test]
async fn what_is_left_out_is_told() {
    let fake = Fake::new(both(), false, |_| vec![success()]).await;
    let (_, ran) = fake.run(false, async { Ok(()) }).await;
    assert_eq!(fake.log(), ["work"]);
    let omission = Omission { subject: "hooks".into(), rule: "--hooks=false".into(), objects: None };
    assert_eq!((ran.omissions.as_slice(), ran.reports.len()), ([omission].as_slice(), 0));

    let pods = json!({"bad": {"kubectl-backup/pre": "two words", "kubectl-backup/post": "thaw"},
        "twice": {"kubectl-backup/pre": "ours", "hook.backup.velero.io/command": "theirs"}});
    let fake = Fake::new(pods, false, |_| vec![success()]).await;
    let (_, ran) = fake.run(true, async { Ok(()) }).await;
    assert_eq!(fake.log(), ["exec twice ours", "work"]);
    assert!(
        ran.problems[0].subject == "hooks of pod shop/bad" && ran.problems[0].message.contains("`kubectl-backup/pre`")
    );
    let omission = Omission {
        subject: "hook.backup.velero.io/command of pod shop/twice".into(),
        rule: "annotation kubectl-backup/pre takes its place".into(),
        objects: Some(1),
    };
    assert_eq!(ran.omissions, [omission]);
}

#[tokio::test]
async fn hooks_are_named_without_being_run_nor_told_whole() {
    let pods = json!({"db": {"kubectl-backup/pre": "[\"psql\", \"password=hunter2\"]",
        "post.hook.backup.velero.io/command": "thaw"}});
    let fake = Fake::new(pods, false, |_| vec![success()]).await;
    let (named, ran) = fake.around(true).named().await;
    let told: Vec<String> = named
        .iter()
        .map(|hook| format!("{} {} {} {} {}", hook.when, hook.pod, hook.container, hook.command, hook.annotation))
        .collect();
    let expected = ["pre db main psql kubectl-backup/pre", "post db main thaw post.hook.backup.velero.io/command"];
    assert_eq!(told, expected);
    assert!(fake.log().is_empty() && ran.problems.is_empty(), "{:?}", fake.log());
}
