//! What becomes of PersistentVolumes and claims when their data was restored into new volumes.

use super::quantity;
use crate::resource::Kind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The API group of VolumeSnapshots.
const SNAPSHOTS: &str = "snapshot.storage.k8s.io";
/// The node label by which a volume finds machines of its zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Labels, of volumes and nodes, that say where a volume is.
const PLACES: [&str; 8] = [
    ZONE,
    "topology.kubernetes.io/region",
    "topology.ebs.csi.aws.com/zone",
    "topology.ebs.csi.eks.amazonaws.com/zone",
    "topology.k8s.aws/zone-id",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.ebs.csi.aws.com/outpost-id",
];

/// A volume that was made for a PersistentVolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// `vol-…`.
    pub id: String,
    /// The zone's name.
    pub zone: String,
}

/// A VolumeSnapshot that the CSI driver fills a claim from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Its name; it is in the claim's namespace.
    pub snapshot: String,
    /// What the volume must have at least.
    pub gib: u64,
}

/// New volumes behind restored objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// By PersistentVolume.
    pub volumes: BTreeMap<String, NewVolume>,
    /// By the claim's namespace and name in the target: the PersistentVolume it gets.
    pub claims: BTreeMap<(String, String), String>,
    /// By the claim's namespace and name in the target: what it is filled from.
    pub fillings: BTreeMap<(String, String), Filling>,
}

impl Restored {
    /// Lets an object refer to the new volume behind it, where there is one.
    pub fn apply(&self, kind: &Kind, object: &mut Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        if kind.is("persistentvolumes") {
            if let Some(volume) = self.volumes.get(&name) {
                refer(object, volume);
            }
        } else if kind.is("persistentvolumeclaims") {
            let claim = (namespace, name);
            if let Some(volume) = self.claims.get(&claim) {
                object["spec"]["volumeName"] = json!(volume);
            }
            if let Some(filling) = self.fillings.get(&claim) {
                fill(object, filling);
            }
        }
    }
}

/// Has the CSI driver make a claim's volume from a snapshot: as large as the snapshot's at least, which it refuses otherwise.
fn fill(claim: &mut Value, filling: &Filling) {
    let Some(spec) = claim.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.remove("volumeName");
    let source = json!({"apiGroup": SNAPSHOTS, "kind": "VolumeSnapshot", "name": filling.snapshot});
    spec.insert("dataSource".to_owned(), source.clone());
    spec.insert("dataSourceRef".to_owned(), source);
    let asked = spec.get("resources").and_then(|resources| resources.pointer("/requests/storage"));
    let asked = asked.and_then(Value::as_str).and_then(quantity).unwrap_or_default();
    if asked < filling.gib << 30 {
        let resources = spec.entry("resources").or_insert_with(|| json!({}));
        resources["requests"]["storage"] = json!(format!("{}Gi", filling.gib));
    }
}

/// A PersistentVolume of its own for a claim, made after the one that was saved, whose name is another's.
pub fn another(saved: &Value, name: &str, namespace: &str, claim: &str, volume: &NewVolume) -> Value {
    let mut object = saved.clone();
    object["metadata"]["name"] = json!(name);
    object["spec"]["claimRef"] =
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim});
    refer(&mut object, volume);
    object
}

/// Lets a PersistentVolume refer to another EBS volume: its id, its zone, and the CSI driver instead of the in-tree one.
fn refer(object: &mut Value, volume: &NewVolume) {
    if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !PLACES.contains(&key.as_str()));
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if let Some(in_tree) = spec.remove("awsElasticBlockStore") {
        spec.insert("csi".to_owned(), csi_of(&in_tree));
    }
    if let Some(csi) = spec.get_mut("csi").and_then(Value::as_object_mut) {
        csi.insert("volumeHandle".to_owned(), json!(volume.id));
    }
    spec.insert("nodeAffinity".to_owned(), affinity(spec, &volume.zone));
}

/// An in-tree EBS volume as the driver has it that Kubernetes migrates those to.
fn csi_of(in_tree: &Value) -> Value {
    let mut csi = json!({"driver": "ebs.csi.aws.com"});
    for field in ["fsType", "readOnly"] {
        if let Some(value) = in_tree.get(field) {
            csi[field] = value.clone();
        }
    }
    if let Some(partition) = in_tree.get("partition").and_then(Value::as_u64).filter(|partition| *partition > 0) {
        csi["volumeAttributes"] = json!({"partition": partition.to_string()});
    }
    csi
}

/// What was asked of nodes, but for their place, and the zone.
fn affinity(spec: &Map<String, Value>, zone: &str) -> Value {
    let terms = spec
        .get("nodeAffinity")
        .and_then(|affinity| affinity.pointer("/required/nodeSelectorTerms/0/matchExpressions"));
    let of_place =
        |expression: &&Value| expression.get("key").and_then(Value::as_str).is_some_and(|key| PLACES.contains(&key));
    let mut expressions: Vec<Value> =
        terms.and_then(Value::as_array).into_iter().flatten().filter(|term| !of_place(term)).cloned().collect();
    expressions.push(json!({"key": ZONE, "operator": "In", "values": [zone]}));
    json!({"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(resource: &str, name: &str) -> Kind {
        let (group, version) = (String::new(), "v1".to_owned());
        Kind {
            group,
            version,
            kind: name.to_owned(),
            resource: resource.to_owned(),
            namespaced: resource != "persistentvolumes",
        }
    }

    fn restored() -> Restored {
        let volume = NewVolume { id: "vol-0new".into(), zone: "eu-1b".into() };
        Restored {
            volumes: BTreeMap::from([("pvc-1".to_owned(), volume)]),
            claims: BTreeMap::from([(("copy".to_owned(), "data".to_owned()), "restored-1".to_owned())]),
            fillings: BTreeMap::from([(
                ("shop".to_owned(), "data".to_owned()),
                Filling { snapshot: "kubectl-backup-1".into(), gib: 10 },
            )]),
        }
    }

    #[test]
    fn a_claim_that_the_driver_fills_names_the_snapshot_and_no_volume() {
        let source =
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "kubectl-backup-1"});
        for (asked, gets) in [("4Gi", "10Gi"), ("10Gi", "10Gi"), ("12G", "12G"), ("1Ti", "1Ti")] {
            let mut claim = json!({"metadata": {"namespace": "shop", "name": "data"}, "spec": {
                "storageClassName": "fast", "volumeName": "pvc-1", "resources": {"requests": {"storage": asked}}}});
            restored().apply(&kind("persistentvolumeclaims", "PersistentVolumeClaim"), &mut claim);
            let expected = json!({"storageClassName": "fast", "dataSource": source, "dataSourceRef": source,
                "resources": {"requests": {"storage": gets}}});
            assert_eq!(claim["spec"], expected);
        }
    }

    #[test]
    fn a_volume_refers_to_the_new_one_and_to_its_zone() {
        let mut volume = json!({
            "metadata": {"name": "pvc-1", "labels": {"team": "a", "topology.kubernetes.io/zone": "eu-1a"},
                         "annotations": {"pv.kubernetes.io/provisioned-by": "ebs.csi.aws.com"}},
            "spec": {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0old", "fsType": "xfs"},
                     "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "topology.ebs.csi.aws.com/zone", "operator": "In", "values": ["eu-1a"]},
                        {"key": "eks.amazonaws.com/compute-type", "operator": "In", "values": ["auto"]}]}]}}}
        });
        restored().apply(&kind("persistentvolumes", "PersistentVolume"), &mut volume);
        assert_eq!(
            volume,
            json!({
                "metadata": {"name": "pvc-1", "labels": {"team": "a"},
                             "annotations": {"pv.kubernetes.io/provisioned-by": "ebs.csi.aws.com"}},
                "spec": {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0new", "fsType": "xfs"},
                         "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                            {"key": "eks.amazonaws.com/compute-type", "operator": "In", "values": ["auto"]},
                            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["eu-1b"]}]}]}}}
            })
        );
    }

    #[test]
    fn an_in_tree_volume_becomes_one_of_the_driver() {
        let in_tree = json!({"volumeID": "aws://eu-1a/vol-0old", "fsType": "ext4", "partition": 2});
        let mut volume = json!({"metadata": {"name": "pvc-1"}, "spec": {"awsElasticBlockStore": in_tree}});
        restored().apply(&kind("persistentvolumes", "PersistentVolume"), &mut volume);
        let csi = json!({"driver": "ebs.csi.aws.com", "fsType": "ext4", "volumeHandle": "vol-0new", "volumeAttributes": {"partition": "2"}});
        assert_eq!((&volume["spec"]["csi"], volume["spec"].get("awsElasticBlockStore")), (&csi, None));
    }

    #[test]
    fn others_are_left_alone_and_claims_get_their_volume() {
        let mut other = json!({"metadata": {"name": "pvc-2"}, "spec": {"csi": {"volumeHandle": "vol-2"}}});
        let before = other.clone();
        restored().apply(&kind("persistentvolumes", "PersistentVolume"), &mut other);
        assert_eq!(other, before);
        let mut claim = json!({"metadata": {"namespace": "copy", "name": "data"}, "spec": {"volumeName": "pvc-9"}});
        restored().apply(&kind("persistentvolumeclaims", "PersistentVolumeClaim"), &mut claim);
        assert_eq!(claim["spec"]["volumeName"], "restored-1");
        let saved =
            json!({"metadata": {"name": "pvc-9"}, "spec": {"claimRef": {"namespace": "shop", "uid": "u"}, "csi": {}}});
        let volume = NewVolume { id: "vol-7".into(), zone: "z".into() };
        let made = another(&saved, "restored-1", "copy", "data", &volume);
        assert_eq!(
            (&made["metadata"]["name"], &made["spec"]["csi"]["volumeHandle"]),
            (&json!("restored-1"), &json!("vol-7"))
        );
        assert_eq!(made["spec"]["claimRef"]["namespace"], "copy");
        assert!(made["spec"]["claimRef"].get("uid").is_none());
    }
}
