//! Which pods have hooks that can be run: found by a list of metadata, each read whole, and the rights asked for.

use super::{AT_ONCE, Around, HookOutcome, Pod, Ran, report};
use crate::cluster::Error;
use crate::pipeline::save::Wanted;
use crate::report::Omission;
use crate::resource::{Kind, ObjectName};
use crate::rules::Labels;
use crate::rules::hooks::{self, PodHooks};
use crate::rules::lists::one_by_one;
use futures::{StreamExt, stream};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Pods that are named where they share a problem.
const NAMED: usize = 20;

impl Around<'_> {
    /// The pods with hooks that can be run, by namespace and name.
    pub(super) async fn chosen(&self, ran: &mut Ran) -> Vec<Pod> {
        let Some(kind) = self.pods else { return Vec::new() };
        if !self.enabled {
            ran.omissions.push(Omission { subject: "hooks".into(), rule: "--hooks=false".into(), objects: None });
            return Vec::new();
        }
        let mut names = match self.annotated(kind).await {
            Ok(names) => names,
            Err(error) => {
                self.problem(ran, "hooks", format!("which pods ask for them is not known: {error}"));
                return Vec::new();
            }
        };
        names.sort();
        let cluster = self.cluster;
        let read = stream::iter(names).map(|name| async move { (cluster.get(kind, &name).await, name) });
        let mut read = std::pin::pin!(read.buffered(AT_ONCE));
        let (mut pods, mut left_out) = (Vec::new(), BTreeMap::<&str, u64>::new());
        while let Some((bytes, name)) = read.next().await {
            let bytes = match bytes {
                Ok(Some(bytes)) => bytes,
                // it went away by itself
                Ok(None) => continue,
                Err(error) => {
                    self.problem(ran, format!("hooks of pod {}", name), error.to_string());
                    continue;
                }
            };
            match hooks::of_pod(&String::from_utf8_lossy(&bytes)) {
                Ok(PodHooks::LeftOut(rule)) => {
                    self.events.note(format!("no hooks of pod {}: {rule}", name));
                    *left_out.entry(rule).or_default() += 1;
                }
                Ok(found) => pods.extend(self.taken(name, found, ran)),
                Err(error) => self.problem(ran, format!("hooks of pod {}", name), error.to_string()),
            }
        }
        let omission = |(rule, pods): (&str, u64)| Omission {
            subject: "hooks".to_owned(),
            rule: rule.to_owned(),
            objects: Some(pods),
        };
        ran.omissions.extend(left_out.into_iter().map(omission));
        self.permitted(pods, ran).await
    }

    /// The pods that have annotations about hooks.
    async fn annotated(&self, kind: &Kind) -> Result<Vec<ObjectName>, Error> {
        let pick = |raw: &str| {
            let is_annotated = hooks::is_annotated(raw).unwrap_or(true);
            is_annotated.then(|| self.selected(kind, raw)).flatten()
        };
        match self.wanted {
            Wanted::Namespaces(namespaces) if self.is_each_listed(kind, namespaces.len()).await => {
                let mut names = Vec::new();
                for namespace in namespaces {
                    names.extend(self.cluster.pick(kind, Some(namespace), pick).await?);
                }
                Ok(names)
            }
            Wanted::Namespaces(namespaces) => {
                let wanted = |name: &ObjectName| name.namespace.as_ref().is_some_and(|one| namespaces.contains(one));
                self.cluster.pick(kind, None, |raw| pick(raw).filter(wanted)).await
            }
            Wanted::Cluster => self.cluster.pick(kind, None, pick).await,
        }
    }

    /// Whether namespaces are listed one by one: where that is less work, or all can't be counted.
    async fn is_each_listed(&self, kind: &Kind, namespaces: usize) -> bool {
        let is_one = namespaces <= 1;
        let pods = if is_one { None } else { self.cluster.newest(kind, None).await.ok().and_then(|all| all.objects()) };
        is_one || one_by_one(namespaces, pods, None)
    }

    /// The name of a pod that is selected: no other is asked to prepare.
    fn selected(&self, kind: &Kind, raw: &str) -> Option<ObjectName> {
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            metadata: Meta<'a>,
        }
        #[derive(Deserialize)]
        struct Meta<'a> {
            name: String,
            namespace: Option<String>,
            #[serde(borrow, default)]
            labels: Labels<'a>,
        }
        let Meta { name, namespace, labels } = serde_json::from_str::<Object<'_>>(raw).ok()?.metadata;
        let is_taken = self.chosen.takes(kind, namespace.as_deref(), &name, &labels);
        is_taken.then_some(ObjectName { namespace, name })
    }

    /// What a pod's annotations come to.
    fn taken(&self, name: ObjectName, found: PodHooks, ran: &mut Ran) -> Option<Pod> {
        let (pre, post, replaced) = match found {
            PodHooks::None | PodHooks::LeftOut(_) => return None,
            PodHooks::Invalid(invalid) => {
                let wrong: Vec<String> =
                    invalid.into_iter().map(|one| format!("annotation `{}`: {}", one.annotation, one.why)).collect();
                let message = format!("none is run: {}", wrong.join("; "));
                self.problem(ran, format!("hooks of pod {}", name), message);
                return None;
            }
            PodHooks::Run { pre, post, replaced } => (pre, post, replaced),
        };
        ran.omissions.extend(replaced.into_iter().map(|one| Omission {
            subject: format!("{} of pod {}", one.annotation, name),
            rule: format!("annotation {} takes its place", one.by),
            objects: Some(1),
        }));
        let begun = AtomicBool::new(pre.is_none());
        Some(Pod { namespace: name.namespace.unwrap_or_default(), name: name.name, pre, post, begun })
    }

    /// Leaves out the pods in which we may run nothing, and says how to change that. Asked beforehand, since servers before
    /// Kubernetes 1.35 take `get` for enough, which the reader has everywhere.
    async fn permitted(&self, pods: Vec<Pod>, ran: &mut Ran) -> Vec<Pod> {
        if pods.is_empty() {
            return pods;
        }
        let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.namespace.as_str()).collect();
        let allowed = match self.allowed(namespaces).await {
            Ok(allowed) => allowed,
            Err(error) => {
                self.not_run(&pods, &format!("whether they may be run is not known: {error}"), ran);
                return Vec::new();
            }
        };
        let (may, may_not): (Vec<Pod>, Vec<Pod>) = pods.into_iter().partition(|pod| allowed.contains(&pod.namespace));
        if !may_not.is_empty() {
            let message = format!("`create` on `pods/exec` is not allowed; {} grants it", self.way_out());
            self.not_run(&may_not, &message, ran);
        }
        may
    }

    /// The namespaces in whose pods we may run commands.
    async fn allowed(&self, namespaces: BTreeSet<&str>) -> Result<BTreeSet<String>, Error> {
        if self.cluster.may("create", "pods", "exec", None).await? {
            return Ok(namespaces.into_iter().map(str::to_owned).collect());
        }
        let mut allowed = BTreeSet::new();
        for namespace in namespaces {
            if self.cluster.may("create", "pods", "exec", Some(namespace)).await? {
                allowed.insert(namespace.to_owned());
            }
        }
        Ok(allowed)
    }

    /// Tells of hooks that share the reason why none of them is run.
    fn not_run(&self, pods: &[Pod], why: &str, ran: &mut Ran) {
        let mut names: Vec<String> = pods.iter().take(NAMED).map(|pod| format!("`{pod}`")).collect();
        if pods.len() > NAMED {
            names.push(format!("{} more", pods.len() - NAMED));
        }
        let noun = if pods.len() == 1 { "pod" } else { "pods" };
        let message = format!("those of {noun} {} are not run: {why}, `--hooks=false` does without", names.join(", "));
        self.problem(ran, "hooks", message);
        for pod in pods {
            for hook in pod.pre.iter().chain(&pod.post) {
                ran.reports.push(report(pod, hook, HookOutcome::NotRun, Duration::ZERO, Some(why.to_owned())));
            }
        }
    }
}
