use super::super::fake::{Fake, failure};
use super::*;
use crate::config::S3;
use std::collections::BTreeMap;

const JOBS: &str = "/apis/batch/v1/namespaces/kb/jobs";

struct World {
    id: BackupId,
    settings: JobSettings,
    location: Location,
}

impl World {
    fn new() -> Self {
        let s3 = S3 { bucket: "b".into(), prefix: String::new(), region: None, endpoint: None, path_style: false };
        let location =
            Location { name: None, place: Place::S3(s3), role_arn: None, credentials_secret: None, read_only: false };
        Self { id: BackupId::parse("shop-1").unwrap(), settings: JobSettings::default(), location }
    }

    fn s3(&mut self) -> &mut S3 {
        match &mut self.location.place {
            Place::S3(s3) => s3,
            Place::Folder(_) => unreachable!(),
        }
    }

    fn spec<'a>(&'a self, task: &'a str) -> JobSpec<'a, str> {
        JobSpec {
            verb: "backup",
            id: &self.id,
            install_namespace: "kb",
            account: Account::Reader,
            task,
            settings: &self.settings,
            location: &self.location,
            other: None,
            image: "example.org/kubectl-backup:0.1.0",
        }
    }

    fn job(&self) -> Value {
        job(&self.spec("the task")).unwrap()
    }

    fn container(&self) -> Value {
        self.job()["spec"]["template"]["spec"]["containers"][0].clone()
    }

    fn env(&self) -> BTreeMap<String, Value> {
        let container = self.container();
        let list = container["env"].as_array().unwrap();
        let env: BTreeMap<String, Value> =
            list.iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry.clone())).collect();
        assert_eq!(env.len(), list.len(), "no name twice");
        env
    }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_job_is_what_the_contract_says() {
    let job = World::new().job();
    let typed: Job = serde_json::from_value(job.clone()).unwrap();
    let spec = typed.spec.unwrap();
    assert_eq!((spec.backoff_limit, spec.active_deadline_seconds), (Some(3), Some(72_000)));
    assert_eq!(spec.ttl_seconds_after_finished, Some(86_400));
    let rules = spec.pod_failure_policy.unwrap().rules;
    assert_eq!((rules[0].action.as_str(), rules[1].action.as_str()), ("Ignore", "FailJob"));
    assert_eq!(rules[1].on_exit_codes.as_ref().unwrap().values, [1, 2, 5, 6, 7]);
    let (meta, pod) = (spec.template.metadata.unwrap(), spec.template.spec.unwrap());
    assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
    assert_eq!(pod.termination_grace_period_seconds, Some(60));
    assert_eq!(pod.service_account_name.as_deref(), Some("kubectl-backup-reader"));
    let annotations = meta.annotations.unwrap();
    for (key, value) in [
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("kuma.io/sidecar-injection", "disabled"),
    ] {
        assert_eq!(annotations[key], value);
    }
    let labels = meta.labels.unwrap();
    assert_eq!(labels["sidecar.istio.io/inject"], "false");
    assert_eq!((labels[VERB_LABEL].as_str(), labels[marks::ID].as_str()), ("backup", "shop-1"));
    assert_eq!(job["metadata"]["labels"]["app.kubernetes.io/name"], "kubectl-backup");
    assert_eq!((typed.metadata.name.as_deref(), typed.metadata.namespace.as_deref()), (Some("shop-1"), Some("kb")));
}

#[test]
fn pods_satisfy_the_restricted_profile() {
    let pod = World::new().job()["spec"]["template"]["spec"].clone();
    assert_eq!(pod["securityContext"], json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}));
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(pod["volumes"], json!([{"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]));
    assert_eq!(pod["containers"][0]["volumeMounts"], json!([{"name": "run", "mountPath": "/run/kubectl-backup"}]));
    assert_eq!(pod["containers"][0]["args"], json!(["worker"]));
}

#[test]
fn the_task_travels_in_the_environment_and_the_pod_knows_who_it_is() {
    let env = World::new().env();
    assert_eq!(env["KUBECTL_BACKUP_TASK"]["value"], "\"the task\"");
    let field = |name: &str| env[name]["valueFrom"]["fieldRef"]["fieldPath"].as_str().unwrap().to_owned();
    assert_eq!(field("KUBECTL_BACKUP_POD_UID"), "metadata.uid");
    assert_eq!(field("KUBECTL_BACKUP_JOB"), "metadata.labels['batch.kubernetes.io/job-name']");
    assert_eq!(field("KUBECTL_BACKUP_JOB_UID"), "metadata.labels['batch.kubernetes.io/controller-uid']");
    assert_eq!(env["AWS_EC2_METADATA_DISABLED"]["value"], "true");
    assert!(!env.contains_key("AWS_REGION") && !env.contains_key("AWS_ROLE_ARN"));
}

#[test]
fn a_task_of_100_kib_fits_and_more_is_refused_with_a_way_out() {
    let world = World::new();
    let task = "x".repeat(TASK_LIMIT - 2);
    assert!(job(&world.spec(&task)).is_ok());
    let task = "x".repeat(TASK_LIMIT);
    let error = job(&world.spec(&task)).unwrap_err();
    assert!(error.to_string().contains("at most 102400\nhint: "), "{error}");
    assert_eq!(error.exit_code(), crate::report::ExitCode::Usage);
}

#[test]
fn a_role_brings_its_own_token() {
    let mut world = World::new();
    world.location.role_arn = Some("arn:aws:iam::1:role/r".into());
    world.s3().region = Some("eu-central-1".into());
    let env = world.env();
    assert_eq!(env["AWS_ROLE_ARN"]["value"], "arn:aws:iam::1:role/r");
    assert_eq!(env["AWS_WEB_IDENTITY_TOKEN_FILE"]["value"], "/var/run/secrets/kubectl-backup/token");
    assert_eq!(env["AWS_REGION"]["value"], "eu-central-1");
    assert!(!env.contains_key("AWS_ENDPOINT_URL_STS"));
    let volume = world.job()["spec"]["template"]["spec"]["volumes"][1].clone();
    let source = &volume["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(*source, json!({"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}));
    assert_eq!(volume["projected"]["defaultMode"], 0o444);

    world.settings.audience = Some("openshift".into());
    world.s3().endpoint = Some("https://minio:9000".into());
    let volume = world.job()["spec"]["template"]["spec"]["volumes"][1].clone();
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["audience"], "openshift");
    assert_eq!(world.env()["AWS_ENDPOINT_URL_STS"]["value"], "https://minio:9000");
}

#[test]
fn static_keys_come_from_the_secret_and_are_nowhere_in_the_job() {
    let mut world = World::new();
    world.location.credentials_secret = Some("keys".into());
    world.settings.env = map(&[("AWS_ACCESS_KEY_ID", "AKIA1")]);
    let env = world.env();
    let key = |name: &str| env[name]["valueFrom"]["secretKeyRef"].clone();
    assert_eq!(
        key("AWS_SECRET_ACCESS_KEY"),
        json!({"name": "keys", "key": "AWS_SECRET_ACCESS_KEY", "optional": false})
    );
    assert_eq!(key("AWS_SESSION_TOKEN")["optional"], true);
    assert!(env["AWS_ACCESS_KEY_ID"].get("value").is_none());
}

#[test]
fn all_settings_arrive() {
    let mut world = World::new();
    world.settings = JobSettings {
        image: Some("mirror/kb:1".into()),
        image_pull_policy: Some("Always".into()),
        image_pull_secrets: vec!["registry".into()],
        resources: Some(json!({"limits": {"memory": "1Gi"}})),
        node_selector: map(&[("disk", "ssd")]),
        tolerations: vec![json!({"key": "a", "operator": "Exists"})],
        annotations: map(&[("team", "ops"), ("linkerd.io/inject", "enabled")]),
        labels: map(&[("cost", "7")]),
        env: map(&[("HTTPS_PROXY", "http://p"), ("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_REGION", "x")]),
        priority_class_name: Some("high".into()),
        audience: None,
        ttl_seconds_after_finished: Some(60),
        active_deadline_seconds: Some(90),
    };
    world.s3().region = Some("us-west-2".into());
    let (job, env) = (world.job(), world.env());
    let template = &job["spec"]["template"];
    let pod = &template["spec"];
    let container = &pod["containers"][0];
    assert_eq!((&container["image"], &container["imagePullPolicy"]), (&json!("mirror/kb:1"), &json!("Always")));
    assert_eq!(container["resources"], json!({"limits": {"memory": "1Gi"}}));
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!((&pod["nodeSelector"], &pod["priorityClassName"]), (&json!({"disk": "ssd"}), &json!("high")));
    assert_eq!(pod["tolerations"], json!([{"key": "a", "operator": "Exists"}]));
    assert_eq!(template["metadata"]["annotations"]["team"], "ops");
    assert_eq!(template["metadata"]["annotations"]["linkerd.io/inject"], "enabled");
    assert_eq!(template["metadata"]["labels"]["cost"], "7");
    assert_eq!(
        (&job["spec"]["ttlSecondsAfterFinished"], &job["spec"]["activeDeadlineSeconds"]),
        (&json!(60), &json!(90))
    );
    assert_eq!(env["HTTPS_PROXY"]["value"], "http://p");
    assert_eq!(
        (&env["AWS_EC2_METADATA_DISABLED"]["value"], &env["AWS_REGION"]["value"]),
        (&json!("false"), &json!("us-west-2"))
    );
}

#[test]
fn settings_that_would_take_our_own_place_are_refused() {
    let mut world = World::new();
    world.settings.env = map(&[("KUBECTL_BACKUP_TASK", "{}")]);
    let error = job(&world.spec("t")).unwrap_err();
    assert!(error.to_string().contains("`job.env.KUBECTL_BACKUP_TASK`"), "{error}");
    world.settings = JobSettings { labels: map(&[(marks::ID, "x")]), ..JobSettings::default() };
    let error = job(&world.spec("t")).unwrap_err();
    assert!(error.to_string().contains("`job.labels.kubectl-backup/id`"), "{error}");
}

#[tokio::test]
async fn a_submission_that_arrives_twice_makes_one_job() {
    let (fake, world) = (Fake::default(), World::new());
    // the connection breaks after the Job was made: the second try meets it
    let made = world.job();
    fake.at("POST", JOBS, 1, move |objects| {
        let mut made = made;
        made["metadata"]["uid"] = json!("uid-7");
        objects.insert(format!("{JOBS}/shop-1"), made);
    });
    fake.break_off("POST", JOBS);
    let submitted = submit(&fake.client(), &world.spec("the task")).await.unwrap();
    assert_eq!(submitted, Submitted { uid: "uid-7".into(), existed: true });
    let posts = fake.calls("POST", JOBS);
    assert_eq!(posts.len(), 2);
    assert_eq!(posts[0].query, "fieldManager=kubectl-backup&fieldValidation=Strict");
}

#[tokio::test]
async fn another_task_under_the_same_name_is_an_error() {
    let (fake, world) = (Fake::default(), World::new());
    let first = submit(&fake.client(), &world.spec("one task")).await.unwrap();
    assert!(!first.existed);
    let error = submit(&fake.client(), &world.spec("another task")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "job `shop-1` in namespace `kb` exists already and does something else\nhint: give this run another name"
    );
    fake.put(&format!("{JOBS}/shop-1"), json!({"metadata": {"name": "shop-1"}}));
    assert!(matches!(submit(&fake.client(), &world.spec("one task")).await, Err(Error::Taken { .. })));
}

#[tokio::test]
async fn refusals_come_through() {
    let (fake, world) = (Fake::default(), World::new());
    let text = r#"jobs.batch is forbidden: User "ann" cannot create resource "jobs" in API group "batch""#;
    fake.answer("POST", JOBS, 403, failure(403, "Forbidden", text));
    let error = submit(&fake.client(), &world.spec("t")).await.unwrap_err();
    assert_eq!(error.exit_code(), crate::report::ExitCode::Forbidden);
    assert_eq!(fake.calls("POST", JOBS).len(), 1);
    fake.answer("POST", JOBS, 404, failure(404, "NotFound", "namespaces \"kb\" not found"));
    let error = submit(&fake.client(), &world.spec("t")).await.unwrap_err();
    assert!(error.to_string().contains("not found\nhint: run `kubectl backup init`"), "{error}");
}

#[tokio::test]
async fn deleting_takes_the_pods_along_and_is_fine_twice() {
    let (fake, world) = (Fake::default(), World::new());
    submit(&fake.client(), &world.spec("t")).await.unwrap();
    delete(&fake.client(), "kb", &world.id).await.unwrap();
    delete(&fake.client(), "kb", &world.id).await.unwrap();
    let path = format!("{JOBS}/shop-1");
    assert_eq!(fake.calls("DELETE", &path)[0].body["propagationPolicy"], "Background");
    assert_eq!(fake.get(&path), None);
}

#[test]
fn a_second_location_has_credentials_of_its_own() {
    let mut world = World::new();
    world.location.role_arn = Some("arn:aws:iam::1:role/a".into());
    let env = |world: &World, other: &Location| {
        let job = job(&JobSpec { other: Some(other), ..world.spec("the task") }).unwrap();
        let pod = &job["spec"]["template"]["spec"];
        let list = pod["containers"][0]["env"].as_array().unwrap().clone();
        let env: BTreeMap<String, Value> =
            list.into_iter().map(|entry| (entry["name"].as_str().unwrap().to_owned(), entry)).collect();
        let has_token = pod["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == "token");
        (env, has_token)
    };
    let own = |env: &BTreeMap<String, Value>| env.keys().filter(|name| name.contains("_OTHER_")).count();
    let mut other = world.location.clone();
    assert_eq!(own(&env(&world, &other).0), 0, "the same role does for both");
    other.role_arn = Some("arn:aws:iam::1:role/b".into());
    let (found, has_token) = env(&world, &other);
    assert_eq!(found["KUBECTL_BACKUP_OTHER_TOKEN_FILE"]["value"], "/var/run/secrets/kubectl-backup/token");
    assert!(own(&found) == 1 && has_token);
    assert_eq!(found["AWS_ROLE_ARN"]["value"], "arn:aws:iam::1:role/a");
    (other.role_arn, other.credentials_secret) = (None, Some("keys".into()));
    let (found, _) = env(&world, &other);
    let from = &found["KUBECTL_BACKUP_OTHER_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"];
    assert_eq!((&from["name"], &from["key"]), (&json!("keys"), &json!("AWS_SECRET_ACCESS_KEY")));
    assert_eq!(own(&found), 3);
    (other.role_arn, other.credentials_secret) = (Some("arn:aws:iam::1:role/b".into()), None);
    (world.location.role_arn, world.location.credentials_secret) = (None, Some("keys".into()));
    let (found, has_token) = env(&world, &other);
    assert!(has_token && !found.contains_key("AWS_WEB_IDENTITY_TOKEN_FILE"), "{found:?}");
    // a role at an S3-compatible server and one at AWS, whichever is first: each has its own STS
    let sts = |env: &BTreeMap<String, Value>| {
        let of = |name: &str| env.get(name).map(|one| one["value"].as_str().unwrap().to_owned());
        (of("AWS_ENDPOINT_URL_STS"), of("KUBECTL_BACKUP_OTHER_ENDPOINT_URL_STS"))
    };
    let some = |text: &str| Some(text.to_owned());
    let at = |endpoint: Option<&str>| {
        let role = Some("arn:aws:iam::1:role/r".to_owned());
        let endpoint = endpoint.map(str::to_owned);
        let s3 = S3 { bucket: "b".into(), prefix: String::new(), region: None, path_style: false, endpoint };
        Location { role_arn: role, credentials_secret: None, place: Place::S3(s3), ..other.clone() }
    };
    let (aws, minio) = (at(None), Location { role_arn: Some("arn:minio:iam:::role/m".into()), ..at(Some("http://m")) });
    world.location = minio.clone();
    assert_eq!(sts(&env(&world, &aws).0), (some("http://m"), None));
    world.settings.env = map(&[("AWS_ENDPOINT_URL_STS", "https://vpce")]);
    assert_eq!(sts(&env(&world, &aws).0), (some("http://m"), some("https://vpce")));
    world.location = aws;
    assert_eq!(sts(&env(&world, &minio).0), (some("https://vpce"), some("http://m")));
}
