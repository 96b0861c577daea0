use super::*;
use crate::rules::adapt::AdaptOptions;
use crate::rules::head::Head;
use crate::rules::mapping::NamespaceMapping;
use crate::rules::testing::kind;
use serde_json::json;

fn adapt(options: AdaptOptions, mapping: &[&str]) -> Arc<Adapt> {
    Arc::new(Adapt::new(&options, NamespaceMapping::parse(mapping).unwrap()).unwrap())
}

/// Looks at an object of which no more is known than its kind, and notes what it shows.
fn look(survey: &mut Survey<'_>, adapt: &Arc<Adapt>, number: u32, kind: &Kind, object: &Value) {
    let (lookout, raw) = (Lookout::new(adapt.clone(), false), object.to_string());
    survey.note(number, lookout.look(kind, &Facts::default(), &Head::of(&raw).unwrap()).unwrap());
}

/// The notes on some objects, each named by its number.
fn notes(adapt: &Arc<Adapt>, other_cluster: bool, objects: &[(&str, Value)]) -> Vec<String> {
    let (lookout, mut survey) = (Lookout::new(adapt.clone(), other_cluster), Survey::new(adapt));
    for (number, (key, object)) in objects.iter().enumerate() {
        let (kind, raw) = (kind(key, "X"), object.to_string());
        let facts = Facts::of(&kind, &raw).unwrap();
        survey.note(u32::try_from(number).unwrap(), lookout.look(&kind, &facts, &Head::of(&raw).unwrap()).unwrap());
    }
    survey.notes(|_| true, |number| format!("#{number}"))
}

fn annotated(key: &str, value: &str) -> Value {
    json!({"metadata": {"name": "x", "namespace": "shop", "annotations": {key: value}}})
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"template": {"spec": spec}}})
}

#[test]
fn what_asks_for_power_is_named() {
    let none = adapt(AdaptOptions::default(), &[]);
    for (key, object, says) in [
        ("rolebindings.rbac.authorization.k8s.io", json!({}), "1 role or binding (#0): look whether"),
        (
            "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            json!({}),
            "1 webhook, admission policy or API service (#0)",
        ),
        ("apiservices.apiregistration.k8s.io", json!({}), "1 webhook, admission policy or API service (#0)"),
        ("customresourcedefinitions.apiextensions.k8s.io", json!({}), "1 custom resource definition (#0)"),
        (
            "deployments.apps",
            pod(json!({"containers": [{"securityContext": {"privileged": true}}]})),
            "1 object makes pods with power over their node",
        ),
        (
            "deployments.apps",
            pod(json!({"initContainers": [{"securityContext": {"privileged": true}}]})),
            "power over their node",
        ),
        ("daemonsets.apps", pod(json!({"hostNetwork": true})), "power over their node"),
        ("jobs.batch", pod(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})), "power over their node"),
        (
            "deployments.apps",
            pod(json!({"hostNetwork": false, "containers": [{"securityContext": {"privileged": false}}]})),
            "",
        ),
        ("secrets", json!({"metadata": {"name": "x"}}), ""),
    ] {
        let found = notes(&none, false, &[(key, object.clone())]).join("\n");
        assert!(found.contains(says) && found.is_empty() == says.is_empty(), "{key} {object}: {found}");
    }
    let admin = json!({"roleRef": {"name": "cluster-admin"}});
    let found = notes(&none, false, &[("clusterrolebindings.rbac.authorization.k8s.io", admin)]);
    assert!(found[0].starts_with("1 binding gives the rights of cluster-admin (#0): "), "{found:?}");
}

#[test]
fn what_binds_to_the_old_cluster_is_named_elsewhere_only() {
    let (same, mapped) = (adapt(AdaptOptions::default(), &[]), adapt(AdaptOptions::default(), &["shop=test"]));
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]}]}]}}});
    for (key, object, says, in_mapped) in [
        ("serviceaccounts", annotated("eks.amazonaws.com/role-arn", "arn"), "1 service account has an AWS role", true),
        (
            "services",
            annotated("service.beta.kubernetes.io/aws-load-balancer-name", "a"),
            "1 object names a load balancer",
            true,
        ),
        (
            "ingresses.networking.k8s.io",
            annotated("alb.ingress.kubernetes.io/certificate-arn", "a"),
            "names a load balancer",
            true,
        ),
        (
            "services",
            json!({"metadata": {"namespace": "shop"}, "spec": {"loadBalancerIP": "1.2.3.4"}}),
            "names a load balancer",
            true,
        ),
        ("services", annotated("external-dns.alpha.kubernetes.io/hostname", "a"), "1 object has a DNS name", true),
        ("targetgroupbindings.elbv2.k8s.aws", annotated("a", "b"), "1 TargetGroupBinding", true),
        ("persistentvolumes", json!({"spec": {"csi": {"volumeHandle": "vol-1"}}}), "1 volume names a disk", false),
        (
            "deployments.apps",
            pod(json!({"nodeSelector": {"kubernetes.io/hostname": "a"}})),
            "1 object wants a node by its name",
            false,
        ),
        ("deployments.apps", pod(json!({"affinity": affinity})), "wants a node by its name", false),
        (
            "deployments.apps",
            pod(json!({"topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}]})),
            "",
            false,
        ),
        ("services", annotated("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"), "", false),
    ] {
        let objects = [(key, object.clone())];
        assert_eq!(notes(&same, false, &objects), [""; 0], "{key} {object} where it was");
        let there = notes(&same, true, &objects).join("\n");
        assert!(there.contains(says) && there.is_empty() == says.is_empty(), "{key} {object}: {there}");
        assert_eq!(
            notes(&mapped, false, &objects).join("\n").contains(says),
            in_mapped || says.is_empty(),
            "{key} {object} mapped"
        );
    }
}

#[test]
fn what_belongs_to_others_is_counted_for_each() {
    let none = adapt(AdaptOptions::default(), &["other=test"]);
    let argo = |namespace: &str, app: &str| json!({"metadata": {"name": "x", "namespace": namespace, "labels": {"argocd.argoproj.io/instance": app}}});
    let objects = [
        ("configmaps", argo("shop", "shop")),
        ("secrets", argo("shop", "shop")),
        ("secrets", argo("shop", "db")),
        ("configmaps", argo("other", "shop")),
        ("configmaps", annotated("meta.helm.sh/release-name", "web")),
    ];
    let found = notes(&none, false, &objects);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("3 objects belong to Argo CD (db, shop): it puts back"), "{found:?}");
    assert!(found[1].starts_with("1 object belongs to Argo CD (shop): its tracking marks are taken off"), "{found:?}");
    assert!(found[2].starts_with("1 object belongs to Helm (web): "), "{found:?}");
}

#[test]
fn hosts_in_mapped_namespaces_are_named() {
    let mapped = adapt(AdaptOptions::default(), &["shop=test"]);
    for (text, is_named) in [
        ("db.shop.svc.cluster.local", true),
        ("db.shop.svc", true),
        ("http://db.shop:80/", true),
        ("db.shop", true),
        ("db.shop,x", true),
        ("shop", false),
        ("www.shop.example.com", false),
        ("db.shops", false),
        (".shop", false),
    ] {
        let object = json!({"metadata": {"name": "x", "namespace": "shop"}, "data": {"host": text}});
        assert_eq!(notes(&mapped, false, &[("configmaps", object)]).len(), usize::from(is_named), "{text}");
    }
}

#[test]
fn what_flags_change_is_counted_and_what_they_miss_is_told() {
    let modifiers = "version: v1\nresourceModifierRules:\n- conditions: {groupResource: services}\n  patches: [{operation: remove, path: /spec/x}]\n";
    let options = AdaptOptions {
        map_image: vec!["old=new".into(), "none=x".into()],
        modifiers: Some(modifiers.into()),
        ..AdaptOptions::default()
    };
    let adapt = adapt(options, &[]);
    let web = pod(json!({"containers": [{"image": "old/a"}, {"image": "old/b"}]}));
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {}});
    let found = notes(&adapt, false, &[("deployments.apps", web.clone()), ("services", service.clone())]);
    let expected = [
        "`--map-image old=new` changes 1 object",
        "`--map-image none=x` changes nothing of what is to be created",
        "`--modifiers, rule 1` changes nothing of what is to be created",
    ];
    assert_eq!(found, expected);
    let mut survey = Survey::new(&adapt);
    look(&mut survey, &adapt, 7, &kind("services", "Service"), &service);
    let refused = survey.refused(7).unwrap();
    assert!(refused.contains("modifier rule 1") && !refused.contains('\n'), "{refused}");
    assert_eq!(survey.refused(8), None);
}

#[test]
fn autoscalers_are_named_where_all_is_scaled_to_zero() {
    for (scale_to_zero, expected) in [(false, 0), (true, 1)] {
        let adapt = adapt(AdaptOptions { scale_to_zero, ..AdaptOptions::default() }, &[]);
        let found =
            notes(&adapt, false, &[("horizontalpodautoscalers.autoscaling", json!({"metadata": {"name": "a"}}))]);
        let told = found.iter().filter(|note| note.starts_with("1 autoscaler (#0): they leave alone")).count();
        assert_eq!(told, expected, "{found:?}");
    }
}

#[test]
fn a_find_takes_little_memory() {
    assert!(size_of::<(u32, Find)>() <= 12, "{}", size_of::<(u32, Find)>());
}

#[test]
fn only_a_few_are_named_and_only_those_that_count() {
    let none = adapt(AdaptOptions::default(), &[]);
    let mut survey = Survey::new(&none);
    for number in 0..6 {
        look(&mut survey, &none, number, &kind("roles.rbac.authorization.k8s.io", "Role"), &json!({}));
    }
    let found = survey.notes(|number| number > 0, |number| format!("#{number}"));
    assert!(found[0].starts_with("5 roles and bindings (#1, #2, #3 and 2 more): "), "{found:?}");
    assert!(survey.notes(|_| false, |_| String::new()).is_empty());
}

#[test]
fn definitions_without_a_status_subresource_are_known() {
    let none = adapt(AdaptOptions::default(), &[]);
    let mut survey = Survey::new(&none);
    let definitions = kind("customresourcedefinitions.apiextensions.k8s.io", "CustomResourceDefinition");
    for (name, subresources) in [("a.x.io", json!({})), ("b.x.io", json!({"status": {}}))] {
        let versions = json!([{"name": "v1", "subresources": subresources}]);
        let definition = json!({"metadata": {"name": name}, "spec": {"versions": versions}});
        look(&mut survey, &none, 0, &definitions, &definition);
    }
    assert_eq!(survey.plain_status().iter().collect::<Vec<_>>(), ["a.x.io"]);
}
