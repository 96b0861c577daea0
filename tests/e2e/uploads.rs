//! Workers that are stopped in the middle of a multipart upload: by `kill -9`, by one signal, by a second one, and by the
//! deletion of their Job.

use crate::harness::{ClusterName::A, *};
use crate::interrupted::{begin, end, live_pods};
use crate::proxy::Proxy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// What is uploaded in parts.
const OBJECTS: &str = "/objects.tar.zst";

/// A namespace with more in it than one part of an upload holds, and a location behind a proxy.
struct Stage {
    proxy: Proxy,
    place: Location,
    location: String,
    namespace: TempNamespace,
}

impl Stage {
    fn new(name: &str) -> Self {
        let proxy = Proxy::start();
        let place = location_at(name, &proxy.endpoint());
        let (location, namespace) = (add_location(name, &place), TempNamespace::new(A, name));
        let mut random = fastrand::Rng::new();
        let items = (0..8).map(|number| {
            let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(750_000).collect();
            json!({"apiVersion": "v1", "kind": "ConfigMap", "binaryData": {"random": STANDARD.encode(bytes)},
                "metadata": {"name": format!("large-{number}"), "namespace": namespace.name}})
        });
        let items: Vec<Value> = items.collect();
        apply(A, &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
        Self { proxy, place, location, namespace }
    }

    /// Starts a backup and waits until it sends the first part. The Job, its pod, and whoever waits for it.
    fn sending(&self) -> (Child, String, String) {
        self.proxy.hold("PUT", OBJECTS, 1);
        let running = begin(&self.namespace.name, &self.location);
        self.proxy.wait_held(1);
        assert_eq!(self.pending().len(), 1, "one upload is begun");
        // an earlier one may seem to be alive for a moment
        let pod = eventually("one pod to be alive", || {
            let pods = live_pods(&self.namespace.name);
            if let [pod] = &pods[..] { Some(pod.clone()) } else { None }
        });
        let labels = get(A, &["pod", "-n", "kubectl-backup", &pod])["metadata"]["labels"].clone();
        let job = labels["batch.kubernetes.io/job-name"].as_str().expect("the Job's name").to_owned();
        (running, job, pod)
    }

    /// The keys of the location's uploads that have not ended.
    fn pending(&self) -> Vec<String> {
        let listing = s3("GET", &format!("{}?uploads=", bucket()), None).exits(0).stdout;
        let keys = listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.filter(|key| key.starts_with(&format!("{}/", self.place.prefix))).map(str::to_owned).collect()
    }

    fn backups(&self) -> Vec<String> {
        keys(&format!("{}/backups/", self.place.prefix))
    }

    /// Data that is no log.
    fn data(&self) -> Vec<String> {
        let keys = keys(&format!("{}/data/", self.place.prefix)).into_iter();
        keys.filter(|key| !key.ends_with("/log.jsonl.zst")).collect()
    }
}

/// Waits until a pod is gone, which was told to go; its grace period is a minute.
fn gone_within(pod: &str, limit: Duration, since: Instant) {
    kubectl(A, &["wait", "--for=delete", "-n", "kubectl-backup", &format!("pod/{pod}"), "--timeout=90s"]).exits(0);
    assert!(since.elapsed() < limit, "{pod} took {:?}", since.elapsed());
}

#[test]
fn promise_1_an_upload_of_a_killed_worker_is_swept_by_a_later_run() {
    let stage = Stage::new("killed-upload");
    let (running, _, pod) = stage.sending();
    let killed = stage.pending();
    // the kernel's way: a pod that is deleted is asked first, however little time it is given
    signal(&process_of(&pod), "KILL");
    stage.proxy.release();
    let told = end(running).exits(0).json();
    assert_eq!(manifest(&stage.place, told["id"].as_str().expect("an id"))["outcome"], "Complete");
    assert_eq!((stage.backups().len(), stage.pending()), (1, killed), "what is young stays");

    stage.proxy.age_uploads();
    let small = TempNamespace::new(A, "killed-upload-later");
    backup(A, &["ns", &small.name, "--location", &stage.location]).exits(0);
    assert_eq!((stage.backups().len(), stage.pending().len()), (2, 0), "what is old goes");
    backup(A, &["verify", told["id"].as_str().expect("an id"), "latest", "--location", &stage.location]).exits(0);
}

#[test]
fn one_signal_ends_the_upload_and_the_deletion_of_the_job_the_run() {
    let stage = Stage::new("stopped-upload");
    let (running, job, pod) = stage.sending();
    let since = Instant::now();
    kubectl(A, &["delete", "pod", "-n", "kubectl-backup", &pod, "--wait=false"]).exits(0);
    let status = eventually("a status that says `Cancelled`", || {
        let status = kubectl(A, &["get", "configmap", "-n", "kubectl-backup", &job, "-o", "jsonpath={.data}"]).stdout;
        status.contains(r#"\"outcome\":\"Cancelled\""#).then_some(status)
    });
    assert!(status.contains(r#"\"exitCode\":130"#), "{status}");
    gone_within(&pod, Duration::from_secs(30), since);
    assert_eq!((stage.pending(), stage.data()), (Vec::new(), Vec::new()), "nothing of the first attempt is left");
    // the Job's next pod
    stage.proxy.release();
    let told = end(running).exits(0).json();
    assert_eq!((told["outcome"].as_str(), stage.backups().len()), (Some("Complete"), 1), "{told}");
    let data = stage.data();

    let (running, job, pod) = stage.sending();
    let since = Instant::now();
    kubectl(A, &["delete", "job", "-n", "kubectl-backup", &job, "--wait=false"]).exits(0);
    gone_within(&pod, Duration::from_secs(30), since);
    let ran = end(running);
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    assert_eq!((stage.pending(), stage.data(), stage.backups().len()), (Vec::new(), data, 1));
}

#[test]
fn a_second_signal_exits_at_once() {
    let stage = Stage::new("second-signal");
    let (running, _, pod) = stage.sending();
    let process = process_of(&pod);
    // what cleans up is held back as well
    stage.proxy.hold("DELETE", OBJECTS, 1);
    signal(&process, "TERM");
    stage.proxy.wait_held(1);
    let since = Instant::now();
    signal(&process, "TERM");
    eventually("the process to end", || (!std::path::Path::new("/proc").join(&process).exists()).then_some(()));
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}; cleaning up takes 40 s at most", since.elapsed());
    let ended = eventually("the pod to have ended", || {
        let pod = get(A, &["pod", "-n", "kubectl-backup", &pod]);
        Some(pod["status"]["containerStatuses"][0]["state"]["terminated"].clone()).filter(|ended| !ended.is_null())
    });
    assert_eq!(ended["exitCode"], 130, "{ended}");
    let log = kubectl(A, &["logs", "-n", "kubectl-backup", &pod]).exits(0).stdout;
    assert!(log.trim_end().ends_with("stopped by a second signal, without cleaning up"), "{log}");
    stage.proxy.release();
    let told = end(running).exits(0).json();
    assert_eq!((told["outcome"].as_str(), stage.backups().len()), (Some("Complete"), 1), "{told}");
}

/// The process of a worker's pod, on this machine.
fn process_of(pod: &str) -> String {
    let uid = get(A, &["pod", "-n", "kubectl-backup", pod])["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let is_its = |process: &String| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == format!("KUBECTL_BACKUP_POD_UID={uid}").as_bytes())
    };
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let mut names = processes.map(|process| process.file_name().to_string_lossy().into_owned());
    names.find(is_its).unwrap_or_else(|| panic!("no process of {pod}"))
}

fn signal(process: &str, name: &str) {
    assert!(Command::new("kill").args(["-s", name, process]).status().expect("kill runs").success(), "{process}");
}
