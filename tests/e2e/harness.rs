//! What the tests need of the cluster: the binary, kubectl, namespaces of their own, and the bucket.

use crate::planted::{PLANTED, helm_release};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::DirEntryExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The state of the test clusters and of MinIO, as `tests/cluster/up` and `tests/cluster/minio` leave it. A cluster
/// that isn't up fails every test: none is ever skipped.
pub(crate) struct World {
    a: BTreeMap<String, String>,
    b: BTreeMap<String, String>,
    s3: BTreeMap<String, String>,
}

/// What a script left for the tests; empty when what it starts isn't up, which fails whoever asks for something of it.
fn shell_assignments(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let pair =
        |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned()));
    text.lines().filter_map(pair).collect()
}

/// Where the clusters keep their state.
fn clusters() -> String {
    std::env::var("KUBECTL_BACKUP_CLUSTERS").unwrap_or_else(|_| "/tmp/kubectl-backup-clusters".into())
}

pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let env = |name: &str| shell_assignments(&Path::new(&clusters()).join(name).join("env"));
        World { a: env("a"), b: env("b"), s3: env("minio") }
    })
}

/// One of the two clusters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClusterName {
    A,
    B,
}

impl World {
    pub(crate) fn of(&self, cluster: ClusterName, key: &str) -> &str {
        let env = if cluster == ClusterName::A { &self.a } else { &self.b };
        env.get(key)
            .unwrap_or_else(|| panic!("cluster {cluster:?} says no {key}: start the clusters with tests/run.sh"))
    }

    pub(crate) fn s3(&self, key: &str) -> &str {
        self.s3.get(key).unwrap_or_else(|| panic!("MinIO says no {key}: start it with tests/cluster/minio up"))
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The end of this program where it was started in the background.
    pub(crate) fn ended(child: Child) -> Self {
        let ran = Self::of(child.wait_with_output().expect("the binary ends"));
        keep(&["(in the background)"], &ran);
        ran
    }

    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}:\n{}\n{}", self.stdout, self.stderr))
    }

    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not in:\n{}", self.stderr);
        }
        self
    }
}

/// Keeps the log of every pod for `tests/leaks`: the node removes it with the pod, so each gets a second name as soon as
/// it is there.
fn keep_logs() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        std::thread::spawn(|| {
            loop {
                for name in ["a", "b"] {
                    let clusters = clusters();
                    let clusters = Path::new(&clusters);
                    link_files(&clusters.join(name).join("node/var/log/pods"), &clusters.join("logs").join(name));
                }
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
    });
}

/// Gives each file below a folder a second name below another one, of which its inode is a part: a log that is rotated
/// is another one. What goes away meanwhile is passed over.
fn link_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            link_files(&path, &to.join(name));
        } else if kind.is_file() {
            let kept = to.join(format!("{name}.{}", entry.ino()));
            if !kept.exists() {
                _ = std::fs::create_dir_all(to);
                _ = std::fs::hard_link(&path, kept);
            }
        }
    }
}

/// `kubectl-backup ARGS` against a cluster, as a user runs it.
pub(crate) fn backup_command(cluster: ClusterName, args: &[&str]) -> Command {
    keep_logs();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-backup"));
    command.args(args).env("KUBECONFIG", world().of(cluster, "KUBECONFIG")).env("NO_COLOR", "1").stdin(Stdio::null());
    for name in ["AWS_PROFILE", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn backup(cluster: ClusterName, args: &[&str]) -> Ran {
    eprintln!("$ kubectl backup {} [{cluster:?}]", args.join(" "));
    let ran = Ran::of(backup_command(cluster, args).output().expect("the binary runs"));
    eprintln!("{}", ran.stderr);
    keep(args, &ran);
    ran
}

/// Keeps what a person saw for `tests/leaks`, which looks for Secret values in it. Who asks for them sees them.
fn keep(args: &[&str], ran: &Ran) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = Path::new(&clusters()).join("told");
    std::fs::create_dir_all(&folder).expect("a folder");
    let stdout = if args.contains(&"--reveal") { "" } else { &ran.stdout };
    let text = format!("$ kubectl backup {}\n{stdout}\n{}", args.join(" "), ran.stderr);
    let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    std::fs::write(folder.join(name), text).expect("a file");
}

/// The same on the laptop: `--local`, with MinIO's root keys as the user's own.
pub(crate) fn backup_local(cluster: ClusterName, args: &[&str]) -> Ran {
    let mut command = backup_command(cluster, args);
    command
        .arg("--local")
        .env("AWS_ACCESS_KEY_ID", world().s3("S3_ROOT_ACCESS_KEY_ID"))
        .env("AWS_SECRET_ACCESS_KEY", world().s3("S3_ROOT_SECRET_ACCESS_KEY"))
        .env("AWS_REGION", "us-east-1");
    eprintln!("$ kubectl backup {} --local [{cluster:?}]", args.join(" "));
    let ran = Ran::of(command.output().expect("the binary runs"));
    keep(args, &ran);
    ran
}

pub(crate) fn kubectl(cluster: ClusterName, args: &[&str]) -> Ran {
    let mut command = Command::new(Path::new(world().of(cluster, "BIN")).join("kubectl"));
    command.args(args).env("KUBECONFIG", world().of(cluster, "KUBECONFIG")).stdin(Stdio::null());
    Ran::of(command.output().expect("kubectl runs"))
}

#[track_caller]
pub(crate) fn apply(cluster: ClusterName, yaml: &str) {
    let mut command = Command::new(Path::new(world().of(cluster, "BIN")).join("kubectl"));
    command.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
    run_with_input(command.env("KUBECONFIG", world().of(cluster, "KUBECONFIG")), yaml);
}

pub(crate) fn get(cluster: ClusterName, args: &[&str]) -> Value {
    let args: Vec<&str> = ["get", "-o", "json"].iter().chain(args).copied().collect();
    kubectl(cluster, &args).exits(0).json()
}

/// A name that no other test of this run has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A namespace of the test's own; removed when the test ends, also on failure.
pub(crate) struct TempNamespace {
    pub(crate) cluster: ClusterName,
    pub(crate) name: String,
}

impl TempNamespace {
    /// With a Secret in it, `planted`, whose values must not be found anywhere afterwards.
    pub(crate) fn new(cluster: ClusterName, prefix: &str) -> Self {
        let namespace = Self::empty(cluster, prefix);
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted", "namespace": namespace.name},
            "stringData": {"password": PLANTED, "release": helm_release()}
        });
        let mut command = Command::new(Path::new(world().of(cluster, "BIN")).join("kubectl"));
        // as people do, with all of it in an annotation too
        command.args(["apply", "-f", "-"]).env("KUBECONFIG", world().of(cluster, "KUBECONFIG"));
        run_with_input(&mut command, &secret.to_string());
        namespace
    }

    /// Without anything of ours in it.
    pub(crate) fn empty(cluster: ClusterName, prefix: &str) -> Self {
        let name = unique(prefix);
        kubectl(cluster, &["create", "namespace", &name]).exits(0);
        kubectl(cluster, &["wait", "-n", &name, "--for=create", "serviceaccount/default", "--timeout=60s"]).exits(0);
        Self { cluster, name }
    }

    pub(crate) fn delete(&self) {
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
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
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

/// The bucket of the tests.
pub(crate) fn bucket() -> &'static str {
    world().s3("S3_BUCKET")
}

/// A request to MinIO with the root keys, through curl: a client that is not ours.
pub(crate) fn s3(method: &str, path_and_query: &str, body: Option<&Path>) -> Ran {
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
pub(crate) fn keys(prefix: &str) -> Vec<String> {
    let query = format!("{}?list-type=2&prefix={}", bucket(), prefix.replace('/', "%2F"));
    let listing = s3("GET", &query, None).exits(0).stdout;
    listing.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(str::to_owned).collect()
}

/// Downloads an object of the bucket.
pub(crate) fn download(key: &str) -> Vec<u8> {
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
pub(crate) fn overwrite(key: &str, bytes: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(bytes).expect("a file to write");
    s3("PUT", &format!("{}/{key}", bucket()), Some(file.path())).exits(0);
}

/// A location of the test's own: a prefix of the bucket, as it is named on the command line.
pub(crate) struct Location {
    pub(crate) prefix: String,
    pub(crate) url: String,
}

pub(crate) fn location(name: &str) -> Location {
    location_at(name, world().s3("S3_ENDPOINT"))
}

/// The same behind another endpoint, such as a proxy.
pub(crate) fn location_at(name: &str, endpoint: &str) -> Location {
    let prefix = unique(name);
    let url = format!("s3://{}/{prefix}?region=us-east-1&endpoint={endpoint}", bucket());
    Location { prefix, url }
}

/// The image of this run of the tests.
fn image() -> String {
    std::env::var("KUBECTL_BACKUP_TEST_IMAGE").expect("KUBECTL_BACKUP_TEST_IMAGE: start the tests with tests/run.sh")
}

fn role(cluster: ClusterName, key: &str) -> &'static str {
    world().s3(&format!("{key}_{}", if cluster == ClusterName::A { "A" } else { "B" }))
}

/// Sets a cluster up with `init`, once, as a user does: the bucket and a role that its tokens may assume.
pub(crate) fn installed(cluster: ClusterName) {
    static ONCE: [OnceLock<()>; 2] = [OnceLock::new(), OnceLock::new()];
    ONCE[cluster as usize].get_or_init(|| install(cluster, "kubectl-backup", ""));
}

/// `init` into a namespace; `job` is YAML for the `job` section of the configuration.
pub(crate) fn install(cluster: ClusterName, namespace: &str, job: &str) {
    let url = format!("s3://{}/e2e?region=us-east-1&endpoint={}", bucket(), world().s3("S3_ENDPOINT"));
    let args = ["init", "--install-namespace", namespace, "--location", &url, "--role-arn", role(cluster, "ROLE_ARN")];
    backup(cluster, &args).exits(0);
    let (image, audience) = (image(), role(cluster, "AUDIENCE"));
    let config = format!(
        "defaultLocation: main\nlocations:\n  main:\n    url: {url}\n    roleArn: {}\njob:\n  image: {image}\n  audience: {audience}\n{job}",
        role(cluster, "ROLE_ARN")
    );
    write_config(cluster, namespace, &config);
}

/// Writes the configuration as GitOps would.
pub(crate) fn write_config(cluster: ClusterName, namespace: &str, config: &str) {
    let data = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubectl-backup-config", "namespace": namespace},
        "data": {"config.yaml": config}
    });
    apply(cluster, &data.to_string());
}

fn run_with_input(command: &mut Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the command runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the command reads");
    assert!(child.wait().expect("the command ends").success(), "{command:?} failed");
}

/// Adds a location behind another endpoint to cluster A's configuration, and answers with its name.
pub(crate) fn add_location(name: &str, location: &Location) -> String {
    static EDIT: std::sync::Mutex<()> = std::sync::Mutex::new(());
    installed(ClusterName::A);
    let _alone = EDIT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let role = world().s3("ROLE_ARN_A");
    backup(ClusterName::A, &["init", "--location", &format!("{name}={}", location.url), "--role-arn", role]).exits(0);
    name.to_owned()
}

/// Creates the application of `tests/fixtures` in a namespace, and waits until it runs.
pub(crate) fn apply_shop(namespace: &TempNamespace, suffix: &str) {
    let fixture = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
        let text = std::fs::read_to_string(path).expect("a fixture");
        text.replace("NAMESPACE", &namespace.name).replace("SUFFIX", suffix)
    };
    let cluster = namespace.cluster;
    apply(cluster, &fixture("shop.yaml"));
    let definition = format!("crd/orders{suffix}.shop.example.com");
    kubectl(cluster, &["wait", "--for=condition=Established", &definition, "--timeout=60s"]).exits(0);
    apply(cluster, &fixture("order.yaml"));
    kubectl(cluster, &["-n", &namespace.name, "rollout", "status", "deployment/web", "--timeout=120s"]).exits(0);
}

/// The cluster-scoped objects of the application.
pub(crate) fn shop_cluster_scoped(suffix: &str) -> Vec<String> {
    vec![
        format!("crd/orders{suffix}.shop.example.com"),
        format!("priorityclass/shop-{suffix}"),
        format!("pv/shop-data-{suffix}"),
        format!("clusterrole/shop:reader-{suffix}"),
        format!("clusterrolebinding/shop:reader-{suffix}"),
    ]
}

/// Every object of the application, less the paths that a restore is allowed to change (`src/rules/tidy.json`), as jq
/// and kubectl see them.
pub(crate) fn shop_objects(cluster: ClusterName, namespace: &str, suffix: &str) -> Vec<Value> {
    let kinds = format!(
        "serviceaccounts,roles,rolebindings,configmaps,secrets,persistentvolumeclaims,services,deployments,cronjobs,\
         networkpolicies,horizontalpodautoscalers,orders{suffix}"
    );
    let mut objects = vec![get(cluster, &["namespace", namespace])];
    objects.extend(shop_cluster_scoped(suffix).iter().map(|name| get(cluster, &[name])));
    let namespaced = get(cluster, &["-n", namespace, &kinds]);
    // never restored: every namespace is given its own, with the certificates of its cluster
    let own = |object: &&Value| object["metadata"]["name"] == "kube-root-ca.crt";
    objects.extend(namespaced["items"].as_array().expect("items").iter().filter(|object| !own(object)).cloned());
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
    let mut jq = Command::new("jq");
    jq.arg("-L").arg(rules).args(["-c", "-S", "include \"tidy\"; map(tidied) | sort_by(.kind, .metadata.name)"]);
    let mut child = jq.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("jq runs");
    let mut input = child.stdin.take().expect("a pipe");
    let text = serde_json::to_vec(&objects).expect("JSON");
    let writer = std::thread::spawn(move || input.write_all(&text).expect("jq reads"));
    let output = child.wait_with_output().expect("jq ends");
    writer.join().expect("the writer");
    serde_json::from_slice(&output.stdout).expect("jq's JSON")
}

/// The manifest of a backup, as it stands in the bucket.
pub(crate) fn manifest(location: &Location, id: &str) -> Value {
    serde_json::from_slice(&download(&format!("{}/backups/{id}.json", location.prefix))).expect("a manifest")
}

/// A backup of a namespace, made by a Job on cluster A; its manifest.
pub(crate) fn backed_up(namespace: &str, location: &Location) -> Value {
    installed(ClusterName::A);
    let args = ["ns", namespace, "--location", &location.url, "-o", "json", "--volumes=skip"];
    let told = backup(ClusterName::A, &args).exits(0).json();
    let manifest = manifest(location, told["id"].as_str().expect("an id"));
    assert_eq!((&told["outcome"], &manifest["outcome"]), (&Value::from("Complete"), &Value::from("Complete")));
    assert_eq!(told["objects"], manifest["counts"]["objects"], "what is told is what is stored");
    manifest
}

/// The verdict of every object in a plan or restore.
pub(crate) fn verdicts(result: &Value) -> BTreeMap<String, String> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let items = result["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| {
            (
                format!("{} {}/{}", text(item, "kind"), text(item, "namespace"), text(item, "name")),
                text(item, "verdict"),
            )
        })
        .collect()
}

/// MiniStack's env file: an S3 and STS that evaluate trust policies by subject.
pub(crate) fn ministack() -> BTreeMap<String, String> {
    shell_assignments(&Path::new(&clusters()).join("ministack/env"))
}
