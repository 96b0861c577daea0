//! The closure of a backup of namespaces: which cluster-scoped objects the namespaced ones need. Each object is shown to
//! [`needs_of`] as the API server sent it; [`Needs`] collects names, hands each out once, and remembers service accounts,
//! so that the ClusterRoleBindings about them can be picked from their list.
//!
//! A need that turns out not to exist is nobody's fault (a claim of a class that was deleted): whoever fetches it passes
//! it over. RBAC objects that the API server makes for itself are told by `restorable::Facts::is_bootstrap`.

mod shapes;

use super::json::parse;
use super::{Error, Labels, builtin};
use crate::resource::Kind;
use shapes::{
    Binding, Claim, ClaimSpec, ClusterRole, CronJob, DeviceClaim, Gateway, Ingress, OfMetadata, OfSpec, PodSpec,
};
use shapes::{OfTemplate, Selector, Snapshot, Subject, Workload};
use std::collections::{BTreeMap, BTreeSet};

const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// The cluster-scoped objects that a backup still has to fetch.
#[derive(Debug, Default)]
pub struct Needs {
    /// By kind key and name; true once handed out.
    names: BTreeMap<String, BTreeMap<String, bool>>,
    /// Service accounts by namespace.
    accounts: BTreeMap<String, BTreeSet<String>>,
    /// What the aggregated ClusterRoles that are needed are made of.
    selectors: Vec<Selector>,
}

impl Needs {
    /// Notes that an object is needed, by its kind's key.
    pub fn want(&mut self, key: &str, name: &str) {
        self.note(key, name, false);
    }

    /// Notes that the backup holds an object already, so that it isn't handed out.
    pub fn have(&mut self, key: &str, name: &str) {
        self.note(key, name, true);
    }

    fn note(&mut self, key: &str, name: &str, handed_out: bool) {
        if name.is_empty() {
            return; // as in `storageClassName: ""`, which says "no class"
        }
        // looked up before it is inserted: the same class is needed a thousand times, and its name copied once
        match self.names.get_mut(key) {
            Some(names) => match names.get_mut(name) {
                Some(done) => *done |= handed_out,
                None => _ = names.insert(name.to_owned(), handed_out),
            },
            None => _ = self.names.insert(key.to_owned(), BTreeMap::from([(name.to_owned(), handed_out)])),
        }
    }

    /// Notes that a kind's CustomResourceDefinition is needed, where the kind can have one. (An aggregated API has none:
    /// then it isn't found.)
    pub fn need_crd(&mut self, kind: &Kind) {
        if !builtin::is_built_in(&kind.group) {
            self.want("customresourcedefinitions.apiextensions.k8s.io", &kind.key());
        }
    }

    /// The names not handed out before, by kind key. Fetched objects have needs of their own: show them to [`needs_of`]
    /// and take again, until nothing comes.
    pub fn take(&mut self) -> BTreeMap<String, BTreeSet<String>> {
        let mut taken = BTreeMap::new();
        for (key, names) in &mut self.names {
            let fresh = |(name, done): (&String, &mut bool)| (!std::mem::replace(done, true)).then(|| name.clone());
            let fresh: BTreeSet<String> = names.iter_mut().filter_map(fresh).collect();
            if !fresh.is_empty() {
                taken.insert(key.clone(), fresh);
            }
        }
        taken
    }

    /// Whether a ClusterRoleBinding is about one of the service accounts seen, by name or through its namespace's group.
    /// Bindings for all service accounts of the cluster, or for everyone who is authenticated, are the cluster's and not
    /// a namespace's. One that matches is saved, and shown to [`needs_of`] for its role.
    pub fn binding_matches(&self, raw: &str) -> Result<bool, Error> {
        let binding: Binding<'_> = parse(raw)?;
        Ok(binding.subjects.unwrap_or_default().iter().any(|subject| self.is_about_account(subject)))
    }

    fn is_about_account(&self, subject: &Subject<'_>) -> bool {
        let known =
            |namespace: &str, name: &str| self.accounts.get(namespace).is_some_and(|names| names.contains(name));
        let name = &*subject.name;
        match &*subject.kind {
            "ServiceAccount" => known(&subject.namespace, name),
            "Group" => name.strip_prefix("system:serviceaccounts:").is_some_and(|ns| self.accounts.contains_key(ns)),
            "User" => name
                .strip_prefix("system:serviceaccount:")
                .and_then(|rest| rest.split_once(':'))
                .is_some_and(|(namespace, name)| known(namespace, name)),
            _ => false,
        }
    }

    /// Whether a needed ClusterRole is aggregated, so that the list of ClusterRoles has to be gone through.
    pub fn aggregates(&self) -> bool {
        !self.selectors.is_empty()
    }

    /// Whether a ClusterRole with these labels is part of an aggregated one that is needed: without it the controller
    /// would take its rules out of the restored one.
    pub fn is_aggregated(&self, labels: &Labels<'_>) -> bool {
        self.selectors.iter().any(|selector| selector.matches(labels))
    }
}

/// Notes what an object needs. Kinds that need nothing aren't parsed.
pub fn needs_of(kind: &Kind, raw: &str, into: &mut Needs) -> Result<(), Error> {
    match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "pods") => parse::<OfSpec<PodSpec<'_>>>(raw)?.spec.note(into),
        ("", "podtemplates") => parse::<OfTemplate<'_>>(raw)?.template.spec.note(into),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "daemonsets" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => parse::<OfSpec<Workload<'_>>>(raw)?.spec.note(into),
        ("batch", "cronjobs") => parse::<OfSpec<CronJob<'_>>>(raw)?.spec.job_template.spec.note(into),
        ("", "persistentvolumeclaims") => parse::<Claim<'_>>(raw)?.note(into),
        ("", "persistentvolumes") => parse::<OfSpec<ClaimSpec<'_>>>(raw)?.spec.note(into),
        ("", "serviceaccounts") => {
            let metadata = parse::<OfMetadata<'_>>(raw)?.metadata;
            let names = into.accounts.entry(metadata.namespace.to_string()).or_default();
            names.insert(metadata.name.to_string());
        }
        ("networking.k8s.io", "ingresses") => {
            let ingress = parse::<Ingress<'_>>(raw)?;
            let legacy = ingress.metadata.annotations.get("kubernetes.io/ingress.class");
            for class in [Some(&*ingress.spec.ingress_class_name), legacy].into_iter().flatten() {
                into.want("ingressclasses.networking.k8s.io", class);
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            let role = parse::<Binding<'_>>(raw)?.role_ref;
            if &*role.kind == "ClusterRole" {
                into.want(ROLES, &role.name);
            }
        }
        ("rbac.authorization.k8s.io", "clusterroles") => {
            let rule = parse::<ClusterRole>(raw)?.aggregation_rule.unwrap_or_default();
            into.selectors.extend(rule.cluster_role_selectors.unwrap_or_default());
        }
        ("snapshot.storage.k8s.io", "volumesnapshots" | "volumesnapshotcontents") => {
            parse::<Snapshot<'_>>(raw)?.note(into)
        }
        ("gateway.networking.k8s.io", "gateways") => {
            let gateway = parse::<OfSpec<Gateway<'_>>>(raw)?.spec;
            into.want("gatewayclasses.gateway.networking.k8s.io", &gateway.gateway_class_name);
        }
        ("resource.k8s.io", "resourceclaims") => parse::<OfSpec<DeviceClaim<'_>>>(raw)?.spec.note(into),
        ("resource.k8s.io", "resourceclaimtemplates") => {
            parse::<OfSpec<OfSpec<DeviceClaim<'_>>>>(raw)?.spec.spec.note(into);
        }
        _ => (),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
