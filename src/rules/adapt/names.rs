//! `--map-storage-class`, `--map-image` and `--map-host`: names of the old place and what they are called in the new one.

use super::Change;
use crate::resource::Kind;
use crate::rules::Error;
use crate::rules::walk::{CONTAINERS, each, each_pod_spec};
use serde_json::{Map, Value};

/// `FROM=TO` pairs of one flag, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(Vec<(String, String)>);

impl Names {
    /// Reads `FROM=TO` texts; `flag` is for the error.
    pub(super) fn parse(flag: &'static str, texts: &[String]) -> Result<Self, Error> {
        let mut names: Vec<(String, String)> = Vec::new();
        for text in texts {
            let invalid = |why: &str| Error::Name { flag, text: text.clone(), why: why.to_owned() };
            let (from, to) = text.split_once('=').ok_or_else(|| invalid("there is no `=` in it"))?;
            if from.is_empty() || to.is_empty() || to.contains('=') {
                return Err(invalid("one name stands before the `=`, and one behind it"));
            }
            if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(invalid("names hold no spaces"));
            }
            if names.iter().any(|(other, _)| other == from) {
                return Err(invalid(&format!("`{from}` is mapped already")));
            }
            names.push((from.to_owned(), to.to_owned()));
        }
        Ok(Self(names))
    }

    /// The numbers of the pairs.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u16> {
        (0..=u16::MAX).take(self.0.len())
    }

    /// What stands behind the `=`.
    pub(super) fn new_ones(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(_, to)| to.as_str())
    }

    fn pairs(&self) -> impl Iterator<Item = (u16, &str, &str)> {
        self.numbers().zip(&self.0).map(|(number, (from, to))| (number, from.as_str(), to.as_str()))
    }

    /// The pair as it was typed.
    pub(super) fn text(&self, number: u16) -> String {
        self.0.get(usize::from(number)).map(|(from, to)| format!("{from}={to}")).unwrap_or_default()
    }

    fn exact(&self, name: &str) -> Option<(u16, String)> {
        self.pairs().find(|(_, from, _)| *from == name).map(|(number, _, to)| (number, to.to_owned()))
    }

    /// The new name by the longest `FROM` for which `rename` finds one.
    fn longest(&self, rename: impl Fn(&str, &str) -> Option<String>) -> Option<(u16, String)> {
        let found = self.pairs().filter_map(|(number, from, to)| rename(from, to).map(|new| (from.len(), number, new)));
        found.max_by_key(|(length, ..)| *length).map(|(_, number, new)| (number, new))
    }
}

/// Replaces a text where `rename` knows a new one.
fn rename(value: &mut Value, to: impl Fn(&str) -> Option<(u16, String)>, changed: &mut impl FnMut(u16)) {
    if let Some((at, new)) = value.as_str().and_then(to) {
        *value = new.into();
        changed(at);
    }
}

/// The class of storage, older objects' annotation included.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// What a quota of one class begins its keys with, behind the class's name (`ResourceQuota`, storage resources).
const QUOTA_OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Renames storage classes: in claims, volumes, claim templates and in quotas of a class.
pub(super) fn storage_classes(names: &Names, kind: &Kind, object: &mut Value, changes: &mut Vec<Change>) {
    let mut changed = |at| changes.push(Change::StorageClass(at));
    let mut of_claim = |claim: &mut Value| {
        each(claim, "spec/storageClassName", &mut |class| rename(class, |class| names.exact(class), &mut changed));
        each(claim, "metadata/annotations", &mut |all| {
            if let Some(class) = all.get_mut(OLD_CLASS) {
                rename(class, |class| names.exact(class), &mut changed);
            }
        });
    };
    match (kind.group.as_str(), kind.resource.as_str()) {
        ("", "persistentvolumeclaims" | "persistentvolumes") => of_claim(object),
        ("apps", "statefulsets") => each(object, "spec/volumeClaimTemplates/*", &mut of_claim),
        _ => (),
    }
    each_pod_spec(kind, object, &mut |spec| each(spec, "volumes/*/ephemeral/volumeClaimTemplate", &mut of_claim));
    if kind.is("resourcequotas") {
        each(object, "spec/hard", &mut |hard| {
            if let Value::Object(map) = hard {
                rename_keys(map, |key| {
                    let (class, rest) = key.split_once(QUOTA_OF_CLASS)?;
                    names.exact(class).map(|(at, to)| (at, format!("{to}{QUOTA_OF_CLASS}{rest}")))
                })
                .into_iter()
                .for_each(&mut changed);
            }
        });
    }
}

fn rename_keys(map: &mut Map<String, Value>, to: impl Fn(&str) -> Option<(u16, String)>) -> Vec<u16> {
    let renamed: Vec<_> = map.keys().filter_map(|key| to(key).map(|(at, new)| (key.clone(), at, new))).collect();
    // taken out first: names may be swapped
    let values: Vec<_> = renamed.into_iter().map(|(key, at, new)| (map.remove(&key), at, new)).collect();
    let insert = |(value, at, new): (Option<Value>, u16, String)| {
        map.insert(new, value.unwrap_or_default());
        at
    };
    values.into_iter().map(insert).collect()
}

/// Renames images, in all that makes pods.
pub(super) fn images(names: &Names, kind: &Kind, object: &mut Value, changes: &mut Vec<Change>) {
    let mut changed = |at| changes.push(Change::Image(at));
    let mut of_image = |image: &mut Value| rename(image, |image| image_name(names, image), &mut changed);
    each_pod_spec(kind, object, &mut |spec| {
        for list in CONTAINERS {
            each(spec, &format!("{list}/*/image"), &mut of_image);
        }
        each(spec, "volumes/*/image/reference", &mut of_image);
    });
}

/// What an image is called now. Where no `FROM` fits it as it is written, its full name is tried: `nginx` is
/// `docker.io/library/nginx`.
fn image_name(names: &Names, image: &str) -> Option<(u16, String)> {
    let rename = |image: &str| {
        names.longest(|from, to| {
            let rest = image.strip_prefix(from)?;
            let whole = rest.is_empty() || from.ends_with('/') || rest.starts_with(['/', ':', '@']);
            whole.then(|| format!("{to}{rest}"))
        })
    };
    rename(image).or_else(|| rename(&full_image_name(image)?))
}

/// The name with the registry that is meant where none is written (`github.com/distribution/reference`, normalize).
fn full_image_name(image: &str) -> Option<String> {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => None,
        Some(_) => Some(format!("docker.io/{image}")),
        None => Some(format!("docker.io/library/{image}")),
    }
}

const EXTERNAL_DNS: &str = "external-dns.alpha.kubernetes.io/hostname";

/// Renames hosts, and the hosts below them: in Ingresses, Gateways and their routes, OpenShift's Routes, and what
/// external-dns is told.
pub(super) fn hosts(names: &Names, kind: &Kind, object: &mut Value, changes: &mut Vec<Change>) {
    let mut changed = |at| changes.push(Change::Host(at));
    let paths: &[&str] = match (kind.group.as_str(), kind.resource.as_str()) {
        ("networking.k8s.io" | "extensions", "ingresses") => &["spec/rules/*/host", "spec/tls/*/hosts/*"],
        ("gateway.networking.k8s.io", _) => &["spec/listeners/*/hostname", "spec/hostnames/*"],
        ("route.openshift.io", "routes") => &["spec/host"],
        _ => &[],
    };
    for path in paths {
        each(object, path, &mut |host| rename(host, |host| host_name(names, host), &mut changed));
    }
    each(object, "metadata/annotations", &mut |all| {
        let Some(text) = all.get_mut(EXTERNAL_DNS) else { return };
        let mut hosts: Vec<String> =
            text.as_str().unwrap_or("").split(',').map(|host| host.trim().to_owned()).collect();
        let mut any = false;
        for host in &mut hosts {
            if let Some((at, new)) = host_name(names, host) {
                *host = new;
                any = true;
                changed(at);
            }
        }
        if any {
            *text = hosts.join(",").into();
        }
    });
}

fn host_name(names: &Names, host: &str) -> Option<(u16, String)> {
    names.longest(|from, to| match host.strip_suffix(from)? {
        "" => Some(to.to_owned()),
        above if above.ends_with('.') => Some(format!("{above}{to}")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::kind;
    use serde_json::json;

    fn names(texts: &[&str]) -> Names {
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        Names::parse("--map-x", &texts).unwrap()
    }

    type Rule = fn(&Names, &Kind, &mut Value, &mut Vec<Change>);

    #[track_caller]
    fn check(rule: Rule, names: &Names, key: &str, object: Value, expected: Value, changes: usize) {
        let (mut adapted, mut made) = (object.clone(), Vec::new());
        rule(names, &kind(key, "X"), &mut adapted, &mut made);
        assert_eq!((adapted, made.len()), (expected, changes), "{key} {object}");
    }

    #[test]
    fn pairs_are_read() {
        assert_eq!(names(&[]).numbers().count(), 0);
        assert_eq!(names(&["a=b", "c=d"]).text(1), "c=d");
        for bad in [&["a"][..], &["a="], &["=b"], &["a=b=c"], &["a=b", "a=c"], &["a b=c"], &["a=b\n"]] {
            let texts: Vec<String> = bad.iter().map(|&text| text.to_owned()).collect();
            let error = Names::parse("--map-image", &texts).unwrap_err().to_string();
            assert!(error.starts_with("`--map-image ") && error.contains("\nhint: "), "{error}");
        }
    }

    #[test]
    fn storage_classes_are_renamed() {
        let names = names(&["gp2=gp3", "gp3=gp2"]);
        let claim =
            |class: &str| json!({"metadata": {"annotations": {OLD_CLASS: class}}, "spec": {"storageClassName": class}});
        for key in ["persistentvolumeclaims", "persistentvolumes"] {
            check(storage_classes, &names, key, claim("gp2"), claim("gp3"), 2);
            check(storage_classes, &names, key, claim("io2"), claim("io2"), 0);
        }
        let set = |class| json!({"spec": {"volumeClaimTemplates": [claim(class), {"spec": {}}]}});
        check(storage_classes, &names, "statefulsets.apps", set("gp3"), set("gp2"), 2);
        let pod = |class| json!({"spec": {"template": {"spec": {"volumes": [{"ephemeral": {"volumeClaimTemplate": claim(class)}}]}}}});
        check(storage_classes, &names, "deployments.apps", pod("gp2"), pod("gp3"), 2);
        let quota = |one: &str, other: &str| {
            json!({"spec": {"hard": {
                format!("{one}.storageclass.storage.k8s.io/requests.storage"): "1Gi",
                format!("{other}.storageclass.storage.k8s.io/requests.storage"): "2Gi", "pods": "3"}}})
        };
        check(storage_classes, &names, "resourcequotas", quota("gp2", "gp3"), quota("gp3", "gp2"), 2);
        check(storage_classes, &names, "persistentvolumeclaims", json!({"spec": {}}), json!({"spec": {}}), 0);
        check(storage_classes, &names, "widgets.example.com", claim("gp2"), claim("gp2"), 0);
    }

    #[test]
    fn images_are_renamed_wherever_pods_are_made() {
        let names = names(&["old.io=new.io", "docker.io=hub.new.io"]);
        let spec = |old: &str, hub: &str| {
            json!({"containers": [{"image": format!("{old}/a:1")}, {"image": format!("{hub}x/b")}, {"name": "none"}],
                "initContainers": [{"image": format!("{old}/i@sha256:00")}], "ephemeralContainers": [{"image": format!("{old}/e")}],
                "volumes": [{"image": {"reference": format!("{old}/v")}}, {"emptyDir": {}}]})
        };
        let (before, after) = (spec("old.io", "quay.io/"), spec("new.io", "quay.io/"));
        let template = |spec: &Value| json!({"spec": {"template": {"spec": spec}}});
        for key in [
            "deployments.apps",
            "statefulsets.apps",
            "daemonsets.apps",
            "replicasets.apps",
            "jobs.batch",
            "replicationcontrollers",
        ] {
            check(images, &names, key, template(&before), template(&after), 4);
        }
        check(images, &names, "pods", json!({"spec": before}), json!({"spec": after}), 4);
        check(
            images,
            &names,
            "podtemplates",
            json!({"template": {"spec": before}}),
            json!({"template": {"spec": after}}),
            4,
        );
        let cron = |spec: &Value| json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}});
        check(images, &names, "cronjobs.batch", cron(&before), cron(&after), 4);
        check(images, &names, "rollouts.argoproj.io", template(&before), template(&before), 0);
    }

    #[test]
    fn an_images_name_begins_with_whole_parts() {
        let names = names(&[
            "old.io=new.io",
            "old.io/team=new.io/squad",
            "docker.io=hub.io",
            "docker.io/library=hub.io/official",
            "app=app2",
            "r.io/=s.io/",
        ]);
        for (image, expected) in [
            ("old.io/a:1", Some("new.io/a:1")),
            ("old.io/team/a", Some("new.io/squad/a")),
            ("old.io/teams/a", Some("new.io/teams/a")),
            ("old.io.example/a", None),
            ("older.io/a", None),
            ("nginx", Some("hub.io/official/nginx")),
            ("nginx:1@sha256:00", Some("hub.io/official/nginx:1@sha256:00")),
            ("bitnami/redis:7", Some("hub.io/bitnami/redis:7")),
            ("docker.io/bitnami/redis", Some("hub.io/bitnami/redis")),
            ("localhost/nginx", None),
            ("quay.io:443/nginx", None),
            ("app:1", Some("app2:1")),
            ("apple:1", Some("hub.io/official/apple:1")),
            ("r.io/x", Some("s.io/x")),
            ("", None),
        ] {
            let found = if image.is_empty() { None } else { image_name(&names, image).map(|(_, new)| new) };
            assert_eq!(found.as_deref(), expected, "{image}");
        }
    }

    #[test]
    fn hosts_are_renamed_with_those_below_them() {
        let names = names(&["old.example=new.example", "api.old.example=gate.new.example"]);
        let ingress = |host: &str, api: &str| {
            json!({"metadata": {"annotations": {EXTERNAL_DNS: format!("{host},{api}")}},
                "spec": {"rules": [{"host": format!("shop.{host}")}, {"http": {}}], "tls": [{"hosts": [format!("*.{host}"), api]}]}})
        };
        let (old, new) = (ingress("old.example", "api.old.example"), ingress("new.example", "gate.new.example"));
        check(hosts, &names, "ingresses.networking.k8s.io", old, new, 5);
        let gateway = |host: &str| json!({"spec": {"listeners": [{"hostname": host}, {"port": 80}]}});
        check(hosts, &names, "gateways.gateway.networking.k8s.io", gateway("old.example"), gateway("new.example"), 1);
        let route = |host: &str| json!({"spec": {"hostnames": [host], "host": "old.example"}});
        check(hosts, &names, "httproutes.gateway.networking.k8s.io", route("a.old.example"), route("a.new.example"), 1);
        let openshift = |host: &str| json!({"spec": {"host": host}});
        check(hosts, &names, "routes.route.openshift.io", openshift("old.example"), openshift("new.example"), 1);
        let other = ingress("gold.example", "example");
        check(hosts, &names, "ingresses.networking.k8s.io", other.clone(), other, 0);
        check(hosts, &names, "configmaps", openshift("old.example"), openshift("old.example"), 0);
    }
}
