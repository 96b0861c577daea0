//! Filesystems that are held still while a snapshot is begun: `fsfreeze` by exec in a container that has it mounted.
//!
//! Whatever becomes of us, the filesystem thaws: a timer within the container is started before it is frozen. We thaw as
//! soon as EC2 has answered. Whether the timer was quicker shows then, as what isn't frozen can't be thawed.

use super::Snapshots;
use crate::cluster::Cluster;
use crate::cluster::exec::{self, Exec, ExecExit};
use crate::rules::hooks::last_lines;
use crate::rules::volumes::Claim;
use crate::rules::volumes::mounts::{Mount, of_pod};
use futures::future::join_all;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a filesystem stays frozen at most.
const HOLD: Duration = Duration::from_secs(10);
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(10);
/// How often a filesystem is thawed that may still be frozen.
const TRIES: u32 = 3;
/// Pods that are read at once.
const PAGE: u32 = 100;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Freezes `$1`, for `$2` seconds at most; prints the timer's process id. Long options, as busybox has no short ones.
const FREEZE: &str = r#"(sleep "$2"; fsfreeze --unfreeze "$1") </dev/null >/dev/null 2>&1 & timer=$!
fsfreeze --freeze "$1" || { code=$?; kill "$timer"; exit "$code"; }
echo "$timer""#;
/// Thaws `$1`, and ends the timer `$2`.
const THAW: &str = r#"fsfreeze --unfreeze "$1"; code=$?; [ -z "$2" ] || kill "$2"; exit "$code""#;

/// Where each volume is mounted, or why it can't be frozen; those that no running pod has mounted are missing.
pub(super) type Mounts = BTreeMap<String, Result<Mount, String>>;

/// Filesystems that are frozen.
pub(super) struct Frozen<'a> {
    cluster: &'a Cluster,
    /// By volume, with the timer's process id.
    held: Vec<(String, &'a Mount, String)>,
    /// Why others are not.
    unfrozen: BTreeMap<String, String>,
}

impl Snapshots<'_> {
    /// Finds out where volumes can be frozen.
    pub(super) async fn mounts(&self, chosen: &[(Claim, String)]) -> Mounts {
        let mut mounts = Mounts::new();
        if !self.request.options.freeze {
            return mounts;
        }
        let namespaces: BTreeSet<&str> = chosen.iter().map(|(claim, _)| claim.namespace.as_str()).collect();
        for namespace in namespaces {
            let here = chosen.iter().filter(|(claim, _)| claim.namespace == namespace);
            match self.mounts_in(namespace).await {
                Ok(mut found) => {
                    mounts.extend(here.filter_map(|(claim, volume)| Some((volume.clone(), found.remove(&claim.name)?))))
                }
                Err(why) => mounts.extend(here.map(|(_, volume)| (volume.clone(), Err(why.clone())))),
            }
        }
        mounts
    }

    /// By claim.
    async fn mounts_in(&self, namespace: &str) -> Result<Mounts, String> {
        let super::Request { cluster, install_namespace, .. } = self.request;
        if namespace == install_namespace {
            return Err("nothing is frozen in the namespace of this tool's own Jobs".to_owned());
        }
        let found = pods(cluster, namespace).await.map_err(|why| format!("the pods can't be listed: {why}"))?;
        if found.values().all(Result::is_err) {
            return Ok(found);
        }
        // asked beforehand, since servers before Kubernetes 1.35 take `get` for enough, which the reader has everywhere
        match cluster.may("create", "pods", "exec", Some(namespace)).await {
            Ok(true) => Ok(found),
            Ok(false) => {
                let init = format!("kubectl backup init --hooks --install-namespace {install_namespace}");
                Err(format!("`create` on `pods/exec` is not allowed; `{init}` grants it"))
            }
            Err(error) => Err(format!("whether commands may run in pods is not known: {error}")),
        }
    }
}

async fn pods(cluster: &Cluster, namespace: &str) -> Result<Mounts, String> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        plural: "pods".to_owned(),
    };
    let pods: Api<DynamicObject> = Api::namespaced_with(cluster.client().clone(), namespace, &resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Mounts::new();
    loop {
        let list = tokio::time::timeout(ANSWER, pods.list(&params)).await;
        let list = list.map_err(|_| format!("no answer within {} s", ANSWER.as_secs()))?;
        let list = list.map_err(|error| error.to_string())?;
        for pod in list.items {
            let pod = json!({"metadata": {"namespace": namespace, "name": pod.metadata.name}, "spec": pod.data["spec"],
                             "status": pod.data["status"]});
            for (claim, mount) in of_pod(&pod) {
                if found.get(&claim).is_none_or(|before| before.is_err() && mount.is_ok()) {
                    found.insert(claim, mount);
                }
            }
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

impl<'a> Frozen<'a> {
    /// Freezes what can be frozen of these volumes.
    pub(super) async fn of(cluster: &'a Cluster, mounts: &'a Mounts, volumes: &[String]) -> Self {
        let (mut held, mut unfrozen) = (Vec::new(), BTreeMap::new());
        let mut able = Vec::new();
        for volume in volumes {
            match mounts.get(volume) {
                Some(Ok(mount)) => able.push((volume, mount)),
                Some(Err(why)) => _ = unfrozen.insert(volume.clone(), why.clone()),
                None => (),
            }
        }
        let froze = join_all(able.iter().map(|(_, mount)| freeze(cluster, mount))).await;
        for ((volume, mount), result) in able.into_iter().zip(froze) {
            match result {
                Ok(timer) => held.push((volume.clone(), mount, timer)),
                Err(why) => _ = unfrozen.insert(volume.clone(), why),
            }
        }
        Self { cluster, held, unfrozen }
    }

    /// Whether any is frozen.
    pub(super) fn any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether all are frozen that somebody may be writing to.
    pub(super) fn all(&self) -> bool {
        self.any() && self.unfrozen.is_empty()
    }

    /// Thaws them. Which were frozen all the time, and why others were not.
    pub(super) async fn thaw(self) -> (BTreeSet<String>, BTreeMap<String, String>) {
        let Self { cluster, held, mut unfrozen } = self;
        let thawed = join_all(held.iter().map(|(_, mount, timer)| thaw(cluster, mount, timer))).await;
        let mut frozen = BTreeSet::new();
        for ((volume, ..), result) in held.into_iter().zip(thawed) {
            match result {
                Ok(()) => _ = frozen.insert(volume),
                Err(why) => _ = unfrozen.insert(volume, why),
            }
        }
        (frozen, unfrozen)
    }
}

fn place(mount: &Mount) -> String {
    let Mount { namespace, pod, container, path } = mount;
    format!("`{path}` in container `{container}` of pod `{namespace}/{pod}`")
}

async fn run(cluster: &Cluster, mount: &Mount, command: &[&str], out: &mut Vec<u8>) -> Result<ExecExit, exec::Error> {
    let Mount { namespace, pod, container, .. } = mount;
    let exec = Exec { namespace, pod, container, command, timeout: COMMAND };
    exec::converse(cluster.client(), &exec, None, out).await
}

async fn freeze(cluster: &Cluster, mount: &Mount) -> Result<String, String> {
    let (seconds, mut out) = (HOLD.as_secs().to_string(), Vec::new());
    let why = match run(cluster, mount, &["sh", "-c", FREEZE, "sh", &mount.path, &seconds], &mut out).await {
        Ok(ExecExit { code: 0, .. }) => {
            let timer = String::from_utf8_lossy(&out).trim().to_owned();
            return Ok(timer)
                .map(|timer| if timer.bytes().all(|c| c.is_ascii_digit()) { timer } else { String::new() });
        }
        Ok(ExecExit { code: 127, stderr_tail }) => {
            format!("{}; the container needs `fsfreeze`", last_lines(&stderr_tail))
        }
        Ok(ExecExit { code, stderr_tail }) => format!("exit code {code}: {}", last_lines(&stderr_tail)),
        Err(error) => {
            // it may be frozen, or be about to be
            _ = thaw(cluster, mount, "").await;
            let text = error.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    Err(format!("{} could not be frozen: {why}", place(mount)))
}

async fn thaw(cluster: &Cluster, mount: &Mount, timer: &str) -> Result<(), String> {
    let mut tried = 0;
    loop {
        tried += 1;
        match run(cluster, mount, &["sh", "-c", THAW, "sh", &mount.path, timer], &mut Vec::new()).await {
            Ok(ExecExit { code: 0, .. }) => return Ok(()),
            Ok(_) => {
                let seconds = HOLD.as_secs();
                return Err(format!("{} was thawed before EC2 had answered, after {seconds} s", place(mount)));
            }
            Err(error) if error.is_transient() && tried < TRIES => (),
            Err(error) => {
                let text = error.to_string();
                let why = text.lines().next().unwrap_or_default();
                let seconds = HOLD.as_secs();
                return Err(format!("{} is thawed after {seconds} s by its own timer, not by us: {why}", place(mount)));
            }
        }
    }
}
