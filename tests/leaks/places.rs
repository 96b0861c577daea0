//! Where a run of the e2e tests leaves texts behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A text, and where it was found.
pub(crate) struct Found {
    pub(crate) place: String,
    pub(crate) text: String,
}

fn root() -> PathBuf {
    std::env::var("KUBECTL_BACKUP_CLUSTERS").unwrap_or_else(|_| "/tmp/kubectl-backup-clusters".into()).into()
}

fn environment(name: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(root().join(name).join("env")).unwrap_or_default();
    let pair =
        |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned()));
    text.lines().filter_map(pair).collect()
}

/// The keys that the tests use, by name.
pub(crate) fn credentials() -> Vec<(String, String)> {
    let all = ["minio", "ministack"].into_iter().flat_map(environment);
    let keys: Vec<_> = all.filter(|(name, value)| name.contains("SECRET") && value.len() >= 8).collect();
    assert!(!keys.is_empty(), "the keys of MinIO are not known");
    keys
}

/// The clusters that are up.
fn clusters() -> Vec<(String, BTreeMap<String, String>)> {
    let all = ["a", "b"].map(|name| (name.to_owned(), environment(name)));
    let up: Vec<_> = all.into_iter().filter(|(_, env)| !env.is_empty()).collect();
    assert!(!up.is_empty(), "no cluster is up");
    up
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Everything below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn texts(folder: &Path) -> Vec<Found> {
    let mut paths = Vec::new();
    files(folder, &mut paths);
    let text = |path: PathBuf| {
        let bytes = std::fs::read(&path).ok()?; // its pod may go just now
        Some(Found { place: path.display().to_string(), text: String::from_utf8_lossy(&bytes).into_owned() })
    };
    paths.into_iter().filter_map(text).collect()
}

/// What the pods wrote: as the e2e tests have kept it, and what the node still has.
pub(crate) fn pod_logs() -> Vec<Found> {
    let kept = texts(&root().join("logs"));
    let there = clusters().into_iter().flat_map(|(name, _)| texts(&root().join(name).join("node/var/log/pods")));
    kept.into_iter().chain(there).collect()
}

/// The uids of the pods of which a container was started, as far as their events are kept: an hour, or as long as their
/// namespace.
pub(crate) fn started_pods() -> BTreeMap<String, String> {
    let mut started = BTreeMap::new();
    for (name, env) in clusters() {
        let mut kubectl = Command::new(Path::new(&env["BIN"]).join("kubectl"));
        let args = ["get", "events", "-A", "--field-selector=reason=Started,involvedObject.kind=Pod", "-o", "json"];
        kubectl.args(args).env("KUBECONFIG", &env["KUBECONFIG"]);
        let list: serde_json::Value = serde_json::from_slice(&output(&mut kubectl)).expect("JSON");
        for event in list["items"].as_array().expect("items") {
            let (pod, text) = (&event["involvedObject"], |value: &serde_json::Value| value.as_str().map(str::to_owned));
            let about = format!("{}/{} in cluster {name}", pod["namespace"], pod["name"]);
            started.extend(text(&pod["uid"]).map(|uid| (uid, about)));
        }
    }
    started
}

/// What the commands of the e2e tests printed.
pub(crate) fn told() -> Vec<Found> {
    texts(&root().join("told"))
}

/// Jobs, pods, ConfigMaps and events of all namespaces.
pub(crate) fn cluster_objects() -> Vec<Found> {
    let mut found = Vec::new();
    for (name, env) in clusters() {
        for kind in ["jobs", "pods", "configmaps", "events"] {
            let mut kubectl = Command::new(Path::new(&env["BIN"]).join("kubectl"));
            kubectl.args(["get", kind, "-A", "-o", "json"]).env("KUBECONFIG", &env["KUBECONFIG"]);
            let list: serde_json::Value = serde_json::from_slice(&output(&mut kubectl)).expect("JSON");
            for object in list["items"].as_array().expect("items") {
                let meta = &object["metadata"];
                let place = format!("{kind} {}/{} in cluster {name}", meta["namespace"], meta["name"]);
                found.push(Found { place, text: object.to_string() });
            }
        }
    }
    found
}

/// Everything in the bucket that is not an archive of objects, unpacked.
pub(crate) fn bucket() -> Vec<Found> {
    let env = environment("minio");
    let curl = |path: &str| {
        let user = format!("{}:{}", env["S3_ROOT_ACCESS_KEY_ID"], env["S3_ROOT_SECRET_ACCESS_KEY"]);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user]);
        output(curl.arg(format!("{}/{}{path}", env["S3_ENDPOINT"], env["S3_BUCKET"])))
    };
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let listing = String::from_utf8(curl(&format!("?list-type=2&start-after={after}"))).expect("text");
        let keys: Vec<&str> = listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).collect();
        let Some(last) = keys.last() else { return found };
        after = last.replace('/', "%2F");
        for key in keys.iter().filter(|key| !key.ends_with("/objects.tar.zst")) {
            let bytes = curl(&format!("/{key}"));
            // tests damage some on purpose
            let bytes = if key.ends_with(".zst") { zstd::decode_all(&*bytes).unwrap_or(bytes) } else { bytes };
            found.push(Found { place: (*key).to_owned(), text: String::from_utf8_lossy(&bytes).into_owned() });
        }
    }
}
