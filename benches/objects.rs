//! What a cluster is filled with: the kinds of a real one, in about its proportions and sizes. Every object follows from
//! its number alone, so that filling up again makes the same ones.

use crate::client::Post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

/// Objects in one namespace.
pub(crate) const PER_NAMESPACE: usize = 1000;

/// The custom kinds: plural and kind.
const CUSTOM: [(&str, &str); 3] = [("widgets", "Widget"), ("gadgets", "Gadget"), ("gizmos", "Gizmo")];
const GROUP: &str = "bench.kubectl-backup.io";

const WORDS: &[&str] = &[
    "server",
    "port",
    "timeout",
    "enabled",
    "true",
    "false",
    "replicas",
    "database",
    "url",
    "http",
    "localhost",
    "cache",
    "size",
    "limit",
    "memory",
    "level",
    "info",
    "debug",
    "metrics",
    "path",
    "token",
    "issuer",
    "queue",
    "retry",
    "backoff",
    "interval",
    "region",
    "bucket",
    "prefix",
    "schema",
    "version",
    "listener",
    "cluster",
    "upstream",
    "route",
    "match",
    "header",
    "value",
    "policy",
    "namespace",
];

/// The name of a namespace of the load.
pub(crate) fn namespace(number: usize) -> String {
    format!("bench-{number:04}")
}

pub(crate) fn namespace_post(name: &str) -> Post {
    post("/api/v1/namespaces", &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
}

/// The definitions of the custom kinds.
pub(crate) fn definitions() -> impl Iterator<Item = Post> {
    CUSTOM.into_iter().map(|(plural, kind)| {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
        post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{GROUP}")},
            "spec": {
                "group": GROUP, "scope": "Namespaced",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema}}]}}))
    })
}

/// A Secret as large as the API server takes, of bytes that no compressor makes smaller.
pub(crate) fn large_secret(number: usize) -> Post {
    let mut random = Random::new(number as u64 ^ 0x5ec2_e700);
    let name = format!("large-{number:05}");
    let data = random.base64(1 << 20);
    let mut object = object("v1", "Secret", &name, &mut random);
    object["data"] = json!({"blob": data});
    post(&format!("/api/v1/namespaces/{}/secrets", namespace(number / 100)), &object)
}

/// A Secret of 4 KiB, one of very many of its kind.
pub(crate) fn small_secret(number: usize) -> Post {
    let mut random = Random::new(number as u64 ^ 0x5aa1_15ec);
    let mut secret = object("v1", "Secret", &format!("small-{number:06}"), &mut random);
    secret["data"] = json!({"key": random.base64(4096)});
    post(&format!("/api/v1/namespaces/{}/secrets", namespace(number / PER_NAMESPACE)), &secret)
}

/// A ConfigMap, one of few in one of many namespaces.
pub(crate) fn spread(number: usize, per_namespace: usize) -> Post {
    let mut random = Random::new(number as u64 ^ 0x59_2ead);
    let mut config = object("v1", "ConfigMap", &format!("spread-{number:06}"), &mut random);
    config["data"] = config_data(&mut random);
    post(&format!("/api/v1/namespaces/{}/configmaps", namespace(number / per_namespace)), &config)
}

/// The object of this number.
pub(crate) fn mixed(number: usize) -> Post {
    let mut random = Random::new(number as u64);
    let (slot, name) = (number % 100, format!("o-{number:06}"));
    let in_namespace = namespace(number / PER_NAMESPACE);
    let path = |root: &str, plural: &str| format!("{root}/namespaces/{in_namespace}/{plural}");
    let rbac = ("/apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io/v1");
    let r = &mut random;
    match slot {
        0..=30 => {
            let mut config = object("v1", "ConfigMap", &name, r);
            config["data"] = config_data(r);
            post(&path("/api/v1", "configmaps"), &config)
        }
        31..=38 => {
            let mut secret = object("v1", "Secret", &name, r);
            secret["type"] = json!("Opaque");
            secret["data"] = json!({"key": r.base64(4096)});
            post(&path("/api/v1", "secrets"), &secret)
        }
        39..=48 => post(&path("/api/v1", "serviceaccounts"), &object("v1", "ServiceAccount", &name, r)),
        49..=56 => {
            let mut role = object(rbac.1, "Role", &name, r);
            role["rules"] = json!([
                {"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "patch"], "resourceNames": [r.word()]}]);
            post(&path(rbac.0, "roles"), &role)
        }
        57..=64 => {
            let mut binding = object(rbac.1, "RoleBinding", &name, r);
            // the role is the one that the same hundred of objects has
            binding["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": format!("o-{:06}", number - 8)});
            binding["subjects"] =
                json!([{"kind": "ServiceAccount", "name": format!("o-{:06}", number - 16), "namespace": in_namespace}]);
            post(&path(rbac.0, "rolebindings"), &binding)
        }
        65..=68 => {
            let mut deployment = object("apps/v1", "Deployment", &name, r);
            let labels = json!({"app": name});
            deployment["spec"] = json!({"replicas": 0, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod_spec(r, number - 26)}});
            post(&path("/apis/apps/v1", "deployments"), &deployment)
        }
        // headless, without selector: no address is allotted and no controller follows it
        69..=72 => {
            let mut service = object("v1", "Service", &name, r);
            service["spec"] = json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
            post(&path("/api/v1", "services"), &service)
        }
        73..=74 => {
            let mut policy = object("networking.k8s.io/v1", "NetworkPolicy", &name, r);
            policy["spec"] = json!({"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": r.word()}}}], "ports": [{"port": 8080}]}]});
            post(&path("/apis/networking.k8s.io/v1", "networkpolicies"), &policy)
        }
        75 => {
            let mut ingress = object("networking.k8s.io/v1", "Ingress", &name, r);
            let backend = json!({"service": {"name": format!("o-{:06}", number - 5), "port": {"number": 80}}});
            ingress["spec"] = json!({"rules": [{"host": format!("{name}.example.com"),
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]});
            post(&path("/apis/networking.k8s.io/v1", "ingresses"), &ingress)
        }
        76 => {
            let mut cron = object("batch/v1", "CronJob", &name, r);
            let mut pod = pod_spec(r, number - 37);
            pod["restartPolicy"] = json!("Never");
            cron["spec"] = json!({"schedule": "0 3 * * *", "suspend": true,
                "jobTemplate": {"spec": {"template": {"spec": pod}}}});
            post(&path("/apis/batch/v1", "cronjobs"), &cron)
        }
        // pods that no scheduler looks at
        77..=78 => {
            let mut pod = object("v1", "Pod", &name, r);
            pod["spec"] = pod_spec(r, number - 38);
            pod["spec"]["schedulerName"] = json!("nobody");
            post(&path("/api/v1", "pods"), &pod)
        }
        79 => {
            let mut template = object("v1", "PodTemplate", &name, r);
            template["template"] = json!({"metadata": {"labels": {"app": name}}, "spec": pod_spec(r, number - 38)});
            post(&path("/api/v1", "podtemplates"), &template)
        }
        _ => {
            let (plural, kind) = CUSTOM[match slot {
                80..=89 => 0,
                90..=95 => 1,
                _ => 2,
            }];
            let mut custom = object(&format!("{GROUP}/v1"), kind, &name, r);
            let steps: Vec<Value> = (0..r.below(12))
                .map(|step| {
                    json!({"name": format!("step-{step}"), "uses": r.word(),
                "with": {r.word(): r.text(40), "timeoutSeconds": r.below(600)}})
                })
                .collect();
            custom["spec"] = json!({"description": r.text(120), "steps": steps, "weights": [1.0, 2.5, r.below(100)]});
            post(&path(&format!("/apis/{GROUP}/v1"), plural), &custom)
        }
    }
}

fn post(path: &str, object: &Value) -> Post {
    Post { path: path.to_owned(), body: Bytes::from(object.to_string()) }
}

fn object(api_version: &str, kind: &str, name: &str, random: &mut Random) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name,
        "labels": {"app.kubernetes.io/name": random.word(), "app.kubernetes.io/instance": name,
            "app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": format!("{}-1.{}.0", random.word(), random.below(40))},
        "annotations": {"meta.helm.sh/release-name": random.word(), "example.com/note": random.text(60)}}})
}

fn config_data(random: &mut Random) -> Value {
    let size = match random.below(10) {
        0..=5 => 300 + random.below(900),
        6..=8 => 2000 + random.below(2000),
        _ => 12_000,
    };
    json!({"application.yaml": random.text(size), "LOG_LEVEL": random.word()})
}

fn pod_spec(random: &mut Random, account: usize) -> Value {
    let env: Vec<Value> = (0..8)
        .map(|n| json!({"name": format!("{}_{n}", random.word().to_uppercase()), "value": random.text(30)}))
        .collect();
    json!({
        "serviceAccountName": format!("o-{account:06}"), "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": format!("registry.example.com/{}:v1.{}", random.word(), random.below(90)),
            "env": env, "ports": [{"containerPort": 8080}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}]}],
        "volumes": [{"name": "config", "configMap": {"name": random.word()}}]})
}

/// SplitMix64: all that is needed of randomness here, the same on every machine.
struct Random(u64);

impl Random {
    /// Mixed first, since the states of neighbouring seeds would be a step apart and their numbers the same ones.
    fn new(seed: u64) -> Self {
        Self(Self(seed).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or_default()
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    /// Settings as people write them: words, numbers, lines.
    fn text(&mut self, size: usize) -> String {
        let mut text = String::with_capacity(size + 32);
        while text.len() < size {
            text.push_str(self.word());
            match self.below(4) {
                0 => text.push_str(&format!(": {}\n", self.below(100_000))),
                1 => text.push_str(".\n"),
                _ => text.push(' '),
            }
        }
        text
    }

    fn base64(&mut self, bytes: usize) -> String {
        let data: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(bytes).collect();
        BASE64_STANDARD.encode(data)
    }
}
