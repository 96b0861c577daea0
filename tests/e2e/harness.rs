//! What the tests need of the cluster: the binary, kubectl, namespaces of their own, and the bucket.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The state of the test clusters and of MinIO, as `tests/cluster/up` and `tests/cluster/minio` leave it. A cluster
/// that isn't up fails every test: none is ever skipped.
pub struct World {
    a: BTreeMap<String, String>,
    b: BTreeMap<String, String>,
    s3: BTreeMap<String, String>,
}

fn shell_assignments(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}: start the clusters with tests/run.sh", path.display()));
    let pair =
        |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned()));
    text.lines().filter_map(pair).collect()
}

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let root = std::env::var("KUBECTL_BACKUP_CLUSTERS").unwrap_or_else(|_| "/tmp/kubectl-backup-clusters".into());
        let env = |name: &str| shell_assignments(&Path::new(&root).join(name).join("env"));
        World { a: env("a"), b: env("b"), s3: env("minio") }
    })
}

/// One of the two clusters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterName {
    A,
    B,
}

impl World {
    pub fn of(&self, cluster: ClusterName, key: &str) -> &str {
        let env = if cluster == ClusterName::A { &self.a } else { &self.b };
        env.get(key).unwrap_or_else(|| panic!("{key} is not in the cluster's env file"))
    }

    pub fn s3(&self, key: &str) -> &str {
        self.s3.get(key).unwrap_or_else(|| panic!("{key} is not in MinIO's env file"))
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.stdout, self.stderr))
    }

    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in:\n{}", self.stderr);
        }
        self
    }
}

/// `kubectl-backup ARGS` against a cluster, as a user runs it.
pub fn backup_command(cluster: ClusterName, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-backup"));
    command.args(args).env("KUBECONFIG", world().of(cluster, "KUBECONFIG")).env("NO_COLOR", "1").stdin(Stdio::null());
    for name in ["AWS_PROFILE", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

pub fn backup(cluster: ClusterName, args: &[&str]) -> Ran {
    eprintln!("$ kubectl backup {} [{cluster:?}]", args.join(" "));
    let ran = Ran::of(backup_command(cluster, args).output().expect("the binary runs"));
    eprintln!("{}", ran.stderr);
    ran
}

/// The same on the laptop: `--local`, with MinIO's root keys as the user's own.
pub fn backup_local(cluster: ClusterName, args: &[&str]) -> Ran {
    let mut command = backup_command(cluster, args);
    command
        .arg("--local")
        .env("AWS_ACCESS_KEY_ID", world().s3("S3_ROOT_ACCESS_KEY_ID"))
        .env("AWS_SECRET_ACCESS_KEY", world().s3("S3_ROOT_SECRET_ACCESS_KEY"))
        .env("AWS_REGION", "us-east-1");
    eprintln!("$ kubectl backup {} --local [{cluster:?}]", args.join(" "));
    Ran::of(command.output().expect("the binary runs"))
}

pub fn kubectl(cluster: ClusterName, args: &[&str]) -> Ran {
    let mut command = Command::new(Path::new(world().of(cluster, "BIN")).join("kubectl"));
    command.args(args).env("KUBECONFIG", world().of(cluster, "KUBECONFIG")).stdin(Stdio::null());
    Ran::of(command.output().expect("kubectl runs"))
}

#[track_caller]
pub fn apply(cluster: ClusterName, yaml: &str) {
    let mut command = Command::new(Path::new(world().of(cluster, "BIN")).join("kubectl"));
    command.args(["apply", "--server-side", "-f", "-"]).env("KUBECONFIG", world().of(cluster, "KUBECONFIG"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("kubectl runs");
    child.stdin.take().expect("a pipe").write_all(yaml.as_bytes()).expect("kubectl reads");
    assert!(child.wait().expect("kubectl ends").success(), "kubectl apply failed");
}

pub fn get(cluster: ClusterName, args: &[&str]) -> Value {
    let args: Vec<&str> = ["get", "-o", "json"].iter().chain(args).copied().collect();
    kubectl(cluster, &args).exits(0).json()
}

/// A name that no other test of this run has.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A namespace of the test's own; removed when the test ends, also on failure.
pub struct TempNamespace {
    pub cluster: ClusterName,
    pub name: String,
}

impl TempNamespace {
    pub fn new(cluster: ClusterName, prefix: &str) -> Self {
        let name = unique(prefix);
        kubectl(cluster, &["create", "namespace", &name]).exits(0);
        kubectl(cluster, &["wait", "-n", &name, "--for=create", "serviceaccount/default", "--timeout=60s"]).exits(0);
        Self { cluster, name }
    }

    pub fn delete(&self) {
        kubectl(self.cluster, &["delete", "namespace", &self.name, "--timeout=120s"]).exits(0);
    }
}

impl Drop for TempNamespace {
    fn drop(&mut self) {
        kubectl(self.cluster, &["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
    }
}

/// Waits until something is so, at most for a minute and a half; says what it waited for.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited 90 s for {what}, in vain");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// The bucket of this run of the tests, made at its first use.
pub fn bucket() -> &'static str {
    static BUCKET: OnceLock<String> = OnceLock::new();
    BUCKET.get_or_init(|| world().s3("S3_BUCKET").to_owned())
}

/// A request to MinIO with the root keys, through curl: a client that is not ours.
pub fn s3(method: &str, path_and_query: &str, body: Option<&Path>) -> Ran {
    let endpoint = world().s3("S3_ENDPOINT");
    let user = format!("{}:{}", world().s3("S3_ROOT_ACCESS_KEY_ID"), world().s3("S3_ROOT_SECRET_ACCESS_KEY"));
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user, "-X", method]);
    if let Some(body) = body {
        command.arg("-T").arg(body);
    }
    command.arg(format!("{endpoint}/{path_and_query}"));
    Ran::of(command.output().expect("curl runs"))
}

/// The keys below a prefix of the bucket.
pub fn keys(prefix: &str) -> Vec<String> {
    let query = format!("{}?list-type=2&prefix={}", bucket(), prefix.replace('/', "%2F"));
    let listing = s3("GET", &query, None).exits(0).stdout;
    listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(str::to_owned).collect()
}

/// Downloads an object of the bucket.
pub fn download(key: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let endpoint = world().s3("S3_ENDPOINT");
    let user = format!("{}:{}", world().s3("S3_ROOT_ACCESS_KEY_ID"), world().s3("S3_ROOT_SECRET_ACCESS_KEY"));
    let status = Command::new("curl")
        .args(["-sS", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", &user, "-o"])
        .arg(file.path())
        .arg(format!("{endpoint}/{}/{key}", bucket()))
        .status()
        .expect("curl runs");
    assert!(status.success(), "downloading {key} failed");
    std::fs::read(file.path()).expect("the download")
}

/// Puts bytes where an object of the bucket is.
pub fn overwrite(key: &str, bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("a file to write");
    s3("PUT", &format!("{}/{key}", bucket()), Some(file.path())).exits(0);
}

/// A location of the test's own: a prefix of the bucket, as it is named on the command line.
pub struct Location {
    pub prefix: String,
    pub url: String,
}

pub fn location(name: &str) -> Location {
    location_at(name, world().s3("S3_ENDPOINT"))
}

/// The same behind another endpoint, such as a proxy.
pub fn location_at(name: &str, endpoint: &str) -> Location {
    let prefix = unique(name);
    let url = format!("s3://{}/{prefix}?region=us-east-1&endpoint={endpoint}", bucket());
    Location { prefix, url }
}

pub fn scratch() -> PathBuf {
    tempfile::tempdir().expect("a folder").keep()
}
