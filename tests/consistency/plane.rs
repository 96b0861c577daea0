//! A control plane of a test's own, which goes with it.

use crate::api::Api;
use crate::etcd::Etcd;
use kubectl_backup::cluster::connect::{ConnectOptions, from_kubeconfig};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs until it is dropped, or until this process ends in whatever way: the script waits for the end of its input.
pub(crate) struct ControlPlane {
    script: Child,
    env: BTreeMap<String, String>,
}

impl ControlPlane {
    /// Starts one; `flags` are the script's options and kube-apiserver's flags.
    pub(crate) fn start(name: &str, flags: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/control-plane");
        let mut script = Command::new(script)
            .args(["with", &format!("consistency-{name}")])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/cluster/control-plane can be started");
        let lines = BufReader::new(script.stdout.take().expect("its output")).lines().map(|line| line.expect("a line"));
        let mut env = BTreeMap::new();
        let mut ready = false;
        for line in lines {
            if line == "ready" {
                ready = true;
                break;
            }
            let (key, value) = line.split_once('=').expect("KEY=value");
            env.insert(key.to_owned(), value.to_owned());
        }
        assert!(ready, "the control plane {name} didn't start; above is why");
        Self { script, env }
    }

    /// Kills the API server and starts it again; it answers a few seconds later.
    pub(crate) fn restart(&self) {
        let mut input = self.script.stdin.as_ref().expect("its input");
        input.write_all(b"restart\n").expect("the script reads");
    }

    pub(crate) fn get(&self, key: &str) -> &str {
        self.env.get(key).unwrap_or_else(|| panic!("{key} is not in the control plane's environment"))
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.get("KUBECONFIG").into()
    }

    /// Its main etcd.
    pub(crate) fn etcd(&self) -> Etcd {
        Etcd::at(self.get("ETCD"))
    }

    /// The second etcd, of the kind that has its own.
    pub(crate) fn own_etcd(&self) -> Etcd {
        Etcd::at(self.get("OWN_ETCD"))
    }

    /// A client of its administrator, made by the engine's own code.
    pub(crate) async fn client(&self) -> kube::Client {
        let options = ConnectOptions { kubeconfig: Some(self.kubeconfig()), ..ConnectOptions::default() };
        from_kubeconfig(&options).await.expect("a kubeconfig").cluster.client().clone()
    }

    pub(crate) async fn api(&self) -> Api {
        Api(self.client().await)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        self.script.wait().expect("the script of the control plane ends");
    }
}
