//! The parts of objects that name cluster-scoped ones, and what each notes.

use super::super::Labels;
use super::super::json::Text;
use super::Needs;
use serde::Deserialize;

const ATTRIBUTES_CLASSES: &str = "volumeattributesclasses.storage.k8s.io";
const STORAGE_CLASSES: &str = "storageclasses.storage.k8s.io";

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OfSpec<T> {
    pub(super) spec: T,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OfTemplate<'a> {
    #[serde(borrow)]
    pub(super) template: OfSpec<PodSpec<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OfMetadata<'a> {
    #[serde(borrow)]
    pub(super) metadata: Metadata<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Metadata<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) namespace: Text<'a>,
    #[serde(borrow)]
    pub(super) annotations: Labels<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec<'a> {
    #[serde(borrow)]
    priority_class_name: Text<'a>,
    #[serde(borrow)]
    runtime_class_name: Text<'a>,
    #[serde(borrow)]
    volumes: Option<Vec<Volume<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Volume<'a> {
    #[serde(borrow)]
    ephemeral: Option<Ephemeral<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Ephemeral<'a> {
    #[serde(borrow)]
    volume_claim_template: Claim<'a>,
}

impl PodSpec<'_> {
    pub(super) fn note(&self, into: &mut Needs) {
        into.want("priorityclasses.scheduling.k8s.io", &self.priority_class_name);
        into.want("runtimeclasses.node.k8s.io", &self.runtime_class_name);
        for ephemeral in self.volumes.iter().flatten().filter_map(|volume| volume.ephemeral.as_ref()) {
            ephemeral.volume_claim_template.note(into);
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Workload<'a> {
    #[serde(borrow)]
    template: OfSpec<PodSpec<'a>>,
    #[serde(borrow)]
    volume_claim_templates: Option<Vec<Claim<'a>>>,
}

impl Workload<'_> {
    pub(super) fn note(&self, into: &mut Needs) {
        self.template.spec.note(into);
        self.volume_claim_templates.iter().flatten().for_each(|claim| claim.note(into));
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct CronJob<'a> {
    #[serde(borrow)]
    pub(super) job_template: OfSpec<Workload<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Claim<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: ClaimSpec<'a>,
}

impl Claim<'_> {
    pub(super) fn note(&self, into: &mut Needs) {
        self.spec.note(into);
        into.want(
            STORAGE_CLASSES,
            self.metadata.annotations.get("volume.beta.kubernetes.io/storage-class").unwrap_or(""),
        );
    }
}

/// The spec of a claim, and as far as it names others that of a volume.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClaimSpec<'a> {
    #[serde(borrow)]
    volume_name: Text<'a>,
    #[serde(borrow)]
    storage_class_name: Text<'a>,
    #[serde(borrow)]
    volume_attributes_class_name: Text<'a>,
}

impl ClaimSpec<'_> {
    pub(super) fn note(&self, into: &mut Needs) {
        into.want("persistentvolumes", &self.volume_name);
        into.want(STORAGE_CLASSES, &self.storage_class_name);
        into.want(ATTRIBUTES_CLASSES, &self.volume_attributes_class_name);
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Ingress<'a> {
    #[serde(borrow)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow)]
    pub(super) spec: IngressSpec<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct IngressSpec<'a> {
    #[serde(borrow)]
    pub(super) ingress_class_name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Binding<'a> {
    #[serde(borrow)]
    pub(super) role_ref: Subject<'a>,
    #[serde(borrow)]
    pub(super) subjects: Option<Vec<Subject<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Subject<'a> {
    #[serde(borrow)]
    pub(super) kind: Text<'a>,
    #[serde(borrow)]
    pub(super) namespace: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClusterRole {
    pub(super) aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct AggregationRule {
    pub(super) cluster_role_selectors: Option<Vec<Selector>>,
}

/// A label selector, owned: it outlives the ClusterRole that holds it.
#[derive(Debug, Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Selector {
    match_labels: std::collections::BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Selector {
    /// As `metav1.LabelSelectorAsSelector` decides: an empty selector takes everything, and `NotIn` what lacks the key.
    pub(super) fn matches(&self, labels: &Labels<'_>) -> bool {
        let meets = |expression: &Expression| {
            let value = labels.get(&expression.key);
            let listed = value.is_some_and(|value| expression.values.iter().any(|v| v == value));
            match expression.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.has(key, value)) && self.match_expressions.iter().all(meets)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Snapshot<'a> {
    #[serde(borrow)]
    spec: SnapshotSpec<'a>,
    #[serde(borrow)]
    status: Option<SnapshotStatus<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SnapshotSpec<'a> {
    #[serde(borrow)]
    volume_snapshot_class_name: Text<'a>,
    #[serde(borrow)]
    source: SnapshotSource<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SnapshotSource<'a> {
    #[serde(borrow)]
    volume_snapshot_content_name: Text<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SnapshotStatus<'a> {
    #[serde(borrow)]
    bound_volume_snapshot_content_name: Text<'a>,
}

impl Snapshot<'_> {
    pub(super) fn note(&self, into: &mut Needs) {
        const CONTENTS: &str = "volumesnapshotcontents.snapshot.storage.k8s.io";
        into.want("volumesnapshotclasses.snapshot.storage.k8s.io", &self.spec.volume_snapshot_class_name);
        into.want(CONTENTS, &self.spec.source.volume_snapshot_content_name);
        if let Some(status) = &self.status {
            into.want(CONTENTS, &status.bound_volume_snapshot_content_name);
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Gateway<'a> {
    #[serde(borrow)]
    pub(super) gateway_class_name: Text<'a>,
}

/// What a ResourceClaim asks of devices. `v1beta1` has the class in the request, later versions in `exactly`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct DeviceClaim<'a> {
    #[serde(borrow)]
    devices: Devices<'a>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Devices<'a> {
    #[serde(borrow)]
    requests: Option<Vec<DeviceRequest<'a>>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct DeviceRequest<'a> {
    #[serde(borrow)]
    device_class_name: Text<'a>,
    #[serde(borrow)]
    exactly: Option<Box<DeviceRequest<'a>>>,
    #[serde(borrow)]
    first_available: Option<Vec<DeviceRequest<'a>>>,
}

impl DeviceRequest<'_> {
    fn note(&self, into: &mut Needs) {
        into.want("deviceclasses.resource.k8s.io", &self.device_class_name);
        self.exactly.iter().for_each(|exact| exact.note(into));
        self.first_available.iter().flatten().for_each(|request| request.note(into));
    }
}

impl DeviceClaim<'_> {
    pub(super) fn note(&self, into: &mut Needs) {
        self.devices.requests.iter().flatten().for_each(|request| request.note(into));
    }
}
