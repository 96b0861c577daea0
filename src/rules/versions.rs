//! The version in which an object is written whose own the target doesn't serve. Objects can't be converted here, only by
//! an API server: so another version is taken only where both have the same shape, or where the API server would do no
//! more either.

use crate::resource::Kind;

/// Kinds with versions of the same shape: an object of one is one of the others once it says so. Where an API server of
/// today serves several of them, `tests/consistency/versions.rs` compares what it says of their fields; the older ones
/// (`v1beta1` of CronJob, IngressClass, PriorityClass and RuntimeClass, `v2beta2`, `v1beta3`) were compared by their types in
/// `k8s.io/api`.
pub const ALIKE: &[(&str, &[&str])] = &[
    ("cronjobs.batch", &["v1", "v1beta1"]),
    ("deviceclasses.resource.k8s.io", &["v1", "v1beta2"]),
    ("horizontalpodautoscalers.autoscaling", &["v2", "v2beta2"]),
    ("flowschemas.flowcontrol.apiserver.k8s.io", &["v1", "v1beta3"]),
    ("ingressclasses.networking.k8s.io", &["v1", "v1beta1"]),
    ("mutatingadmissionpolicies.admissionregistration.k8s.io", &["v1", "v1beta1", "v1alpha1"]),
    ("mutatingadmissionpolicybindings.admissionregistration.k8s.io", &["v1", "v1beta1", "v1alpha1"]),
    ("priorityclasses.scheduling.k8s.io", &["v1", "v1beta1"]),
    ("resourceclaims.resource.k8s.io", &["v1", "v1beta2"]),
    ("resourceclaimtemplates.resource.k8s.io", &["v1", "v1beta2"]),
    ("runtimeclasses.node.k8s.io", &["v1", "v1beta1"]),
    ("servicecidrs.networking.k8s.io", &["v1", "v1beta1"]),
    ("validatingadmissionpolicies.admissionregistration.k8s.io", &["v1", "v1beta1"]),
    ("validatingadmissionpolicybindings.admissionregistration.k8s.io", &["v1", "v1beta1"]),
    ("volumeattributesclasses.storage.k8s.io", &["v1", "v1beta1", "v1alpha1"]),
];

/// The version in which objects of a kind are written, where their own is not among the `served` ones (the preferred first).
/// `unconverted` says that the kind's definition has no conversion: then its API server changes nothing but the version's
/// name either.
pub fn written_as<'a>(kind: &Kind, served: &'a [String], unconverted: bool) -> Option<&'a str> {
    if unconverted {
        return served.first().map(String::as_str);
    }
    let (_, alike) = ALIKE.iter().find(|(key, _)| kind.is(key))?;
    let is_alike = |version: &&String| alike.contains(&version.as_str());
    alike.contains(&kind.version.as_str()).then(|| served.iter().find(is_alike).map(String::as_str))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing;

    #[test]
    fn only_versions_of_one_shape_are_exchanged() {
        for (key, version, served, unconverted, expected) in [
            ("cronjobs.batch", "v1beta1", &["v1"][..], false, Some("v1")),
            ("horizontalpodautoscalers.autoscaling", "v2beta2", &["v2", "v1"], false, Some("v2")),
            ("horizontalpodautoscalers.autoscaling", "v2beta2", &["v1"], false, None),
            ("horizontalpodautoscalers.autoscaling", "v2beta1", &["v2"], false, None),
            ("ingresses.networking.k8s.io", "v1beta1", &["v1"], false, None),
            ("endpointslices.discovery.k8s.io", "v1beta1", &["v1"], false, None), // `topology` became `zone`
            ("volumeattributesclasses.storage.k8s.io", "v1", &["v1beta1"], false, Some("v1beta1")),
            ("widgets.example.com", "v1", &["v2", "v3"], true, Some("v2")),
            ("widgets.example.com", "v1", &["v2"], false, None),
            ("widgets.example.com", "v1", &[], true, None),
        ] {
            let kind = Kind { version: version.into(), ..testing::kind(key, "X") };
            let served: Vec<String> = served.iter().map(|&version| version.to_owned()).collect();
            assert_eq!(written_as(&kind, &served, unconverted), expected, "{key} {version} {served:?}");
        }
    }
}
