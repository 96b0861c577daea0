//! Whether the CSI driver fills a claim by itself, from a snapshot that is imported as a VolumeSnapshot, or a volume is made
//! for it. The driver makes volumes as a storage class says, and not as the one was that was saved: where both are the same
//! the import is the better way, since the driver puts the volume where the pod goes and gives it all tags that its own IAM
//! policy asks for. Everywhere else the volume is made, with the reason.

use super::EBS_DRIVERS;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A volume as it was when it was saved.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// `gp3`, `io2`, …
    pub kind: &'a str,
    /// GiB.
    pub gib: u64,
    /// Operations a second, where the type lets one choose.
    pub iops: Option<u32>,
    /// MiB a second, where the type lets one choose.
    pub throughput: Option<u32>,
    /// The key it is encrypted with.
    pub kms_key: Option<&'a str>,
    /// Whether several machines may attach it.
    pub multi_attach: bool,
    /// Its PersistentVolume; `None` where the backup doesn't hold it.
    pub volume: Option<&'a Value>,
}

/// What the target has.
#[derive(Clone, Debug, Default)]
pub struct Offer {
    /// Its CSIDrivers.
    pub drivers: BTreeSet<String>,
    /// Its storage classes by name, those among them that the restore is about to create.
    pub classes: BTreeMap<String, Value>,
}

/// How a claim is filled by the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The CSI driver.
    pub driver: String,
    /// The claim's storage class in the target.
    pub class: String,
    /// `Filesystem` or `Block`.
    pub mode: String,
}

/// Decides for a claim, given as it is written into the target.
///
/// # Errors
/// Why the driver wouldn't give it the volume that was saved, for the plan.
pub fn import(claim: &Value, saved: &Saved<'_>, offer: &Offer) -> Result<Import, String> {
    let name = text(claim, "/spec/storageClassName").filter(|name| !name.is_empty());
    let name = name.ok_or("it has no storage class")?;
    let class = offer.classes.get(name).ok_or_else(|| format!("storage class `{name}` is not there"))?;
    let driver = text(class, "/provisioner").unwrap_or_default();
    if !EBS_DRIVERS.contains(&driver) {
        return Err(format!("storage class `{name}` is of `{driver}`, which is no CSI driver of EBS volumes"));
    }
    if !offer.drivers.contains(driver) {
        return Err(format!("there is no CSIDriver `{driver}`"));
    }
    let volume = saved.volume.ok_or("the backup doesn't hold its PersistentVolume")?;
    let mode = text(volume, "/spec/volumeMode").unwrap_or("Filesystem");
    let checks = [
        particular(claim, volume, saved),
        speed(class, saved).map(|how| format!("storage class `{name}` {how}")),
        encryption(class, saved).map(|how| format!("storage class `{name}` {how}")),
        handling(class, volume, mode).map(|how| format!("storage class `{name}` {how}")),
    ];
    match checks.into_iter().flatten().next() {
        Some(why) => Err(why),
        None => Ok(Import { driver: driver.to_owned(), class: name.to_owned(), mode: mode.to_owned() }),
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

/// What of the claim or the volume no class can say.
fn particular(claim: &Value, volume: &Value, saved: &Saved<'_>) -> Option<String> {
    let partition = text(volume, "/spec/csi/volumeAttributes/partition").is_some_and(|partition| partition != "0")
        || volume.pointer("/spec/awsElasticBlockStore/partition").and_then(Value::as_u64).is_some_and(|one| one > 0);
    let found = [
        (saved.multi_attach, "several machines may attach the volume"),
        (partition, "the volume has partitions"),
        (claim.pointer("/spec/selector").is_some(), "it selects its volume by labels"),
        (claim.pointer("/spec/volumeAttributesClassName").is_some(), "a VolumeAttributesClass changes its volume"),
    ];
    found.into_iter().find(|(is_so, _)| *is_so).map(|(_, why)| why.to_owned())
}

/// A parameter of a class. The driver takes their names in any case (aws-ebs-csi-driver, docs/parameters.md).
fn parameter<'a>(class: &'a Value, name: &str) -> Option<&'a str> {
    let parameters = class.get("parameters")?.as_object()?;
    parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
}

/// How the speed of the class' volumes differs. Defaults are the driver's for the type and EC2's for gp3.
fn speed(class: &Value, saved: &Saved<'_>) -> Option<String> {
    let kind = parameter(class, "type").unwrap_or("gp3");
    if !kind.eq_ignore_ascii_case(saved.kind) {
        return Some(format!("makes {kind} volumes, and the saved one is {}", saved.kind));
    }
    if !matches!(saved.kind, "gp3" | "io1" | "io2") {
        return None;
    }
    let number = |name: &str| parameter(class, name).map(|text| text.parse::<u64>().ok());
    // beyond what a type can have the driver takes the most or least of it: no such number is equal to what was saved
    let iops = match (number("iops"), number("iopsPerGB")) {
        (Some(iops), _) => iops,
        (None, Some(each)) => each.map(|each| each.saturating_mul(saved.gib)),
        (None, None) => (saved.kind == "gp3").then_some(3000),
    };
    let was = u64::from(saved.iops.unwrap_or(3000));
    if iops != Some(was) {
        let makes = iops.map_or_else(|| "no number that can be read".to_owned(), |iops| iops.to_string());
        return Some(format!("sets {makes} of IOPS, and the saved volume has {was}"));
    }
    let throughput = number("throughput").unwrap_or(Some(125));
    let was = u64::from(saved.throughput.unwrap_or(125));
    (saved.kind == "gp3" && throughput != Some(was))
        .then(|| format!("sets another throughput than the {was} MiB/s of the saved volume"))
}

/// How the encryption differs. A volume of an encrypted snapshot gets its key, unless another is said (EBS User Guide,
/// Amazon EBS encryption).
fn encryption(class: &Value, saved: &Saved<'_>) -> Option<String> {
    let encrypts = parameter(class, "encrypted").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    match (saved.kms_key, parameter(class, "kmsKeyId").filter(|key| !key.is_empty())) {
        (Some(was), Some(key)) if was != key => {
            Some(format!("encrypts with key `{key}`, and the saved volume has `{was}`"))
        }
        (None, Some(_)) => Some("encrypts, and the saved volume isn't encrypted".to_owned()),
        (None, None) if encrypts => Some("encrypts, and the saved volume isn't encrypted".to_owned()),
        _ => None,
    }
}

/// How what Kubernetes does with the volume differs.
fn handling(class: &Value, volume: &Value, mode: &str) -> Option<String> {
    let system = parameter(class, "csi.storage.k8s.io/fstype").or_else(|| parameter(class, "fstype")).unwrap_or("ext4");
    let was = text(volume, "/spec/csi/fsType").or_else(|| text(volume, "/spec/awsElasticBlockStore/fsType"));
    let was = was.filter(|was| !was.is_empty()).unwrap_or("ext4");
    if mode == "Filesystem" && was != system {
        return Some(format!("mounts {system}, and the saved volume has {was}"));
    }
    let policy = text(class, "/reclaimPolicy").unwrap_or("Delete");
    let was = text(volume, "/spec/persistentVolumeReclaimPolicy").unwrap_or("Retain");
    if policy != was {
        return Some(format!("has the reclaim policy {policy}, and the saved volume {was}"));
    }
    let options = |object: &Value, pointer: &str| {
        let list = object.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.iter().map(ToString::to_string).collect::<BTreeSet<_>>()
    };
    (options(class, "/mountOptions") != options(volume, "/spec/mountOptions"))
        .then(|| "has other mount options than the saved volume".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A claim of a class whose volumes are as the one that was saved.
    struct Case {
        claim: Value,
        volume: Value,
        class: Value,
        drivers: &'static [&'static str],
        saved: Saved<'static>,
    }

    fn case() -> Case {
        Case {
            claim: json!({"spec": {"storageClassName": "fast"}}),
            volume: json!({"spec": {"csi": {"driver": "ebs.csi.aws.com"}, "persistentVolumeReclaimPolicy": "Delete"}}),
            class: json!({"provisioner": "ebs.csi.aws.com"}),
            drivers: &["ebs.csi.aws.com"],
            saved: Saved {
                kind: "gp3",
                gib: 100,
                iops: Some(3000),
                throughput: Some(125),
                kms_key: None,
                multi_attach: false,
                volume: None,
            },
        }
    }

    fn decide(change: impl FnOnce(&mut Case)) -> Result<Import, String> {
        let mut case = case();
        change(&mut case);
        let offer = Offer {
            drivers: case.drivers.iter().map(|name| (*name).to_owned()).collect(),
            classes: [("fast".to_owned(), case.class)].into(),
        };
        import(&case.claim, &Saved { volume: Some(&case.volume), ..case.saved }, &offer)
    }

    fn with(parameters: Value, saved: Saved<'static>) -> Result<Import, String> {
        decide(|case| {
            case.class["parameters"] = parameters;
            case.saved = saved;
        })
    }

    #[test]
    fn a_class_that_makes_the_same_volume_fills_the_claim() {
        let filled = Import { driver: "ebs.csi.aws.com".into(), class: "fast".into(), mode: "Filesystem".into() };
        assert_eq!(decide(|_| ()), Ok(filled.clone()));
        let gp3 = case().saved;
        let io2 = Saved { kind: "io2", iops: Some(5000), throughput: None, ..gp3 };
        let keyed = Saved { kms_key: Some("arn:key/1"), ..gp3 };
        for (parameters, saved) in [
            (json!({"type": "gp3"}), gp3),
            (json!({"TYPE": "GP3", "encrypted": "false"}), gp3),
            (
                json!({"type": "gp3", "iops": "6000", "throughput": "250"}),
                Saved { iops: Some(6000), throughput: Some(250), ..gp3 },
            ),
            (json!({"type": "gp3", "iopsPerGB": "40"}), Saved { iops: Some(4000), ..gp3 }),
            (json!({"type": "io2", "iopspergb": "50"}), io2),
            (json!({"type": "io2", "iops": "5000"}), io2),
            // IOPS of gp2 follow its size: nobody chooses them
            (json!({"type": "gp2"}), Saved { kind: "gp2", iops: Some(300), throughput: None, ..gp3 }),
            (json!({"type": "st1"}), Saved { kind: "st1", iops: None, throughput: None, ..gp3 }),
            // an encrypted snapshot gives its own key
            (json!({}), keyed),
            (json!({"encrypted": "true"}), keyed),
            (json!({"encrypted": "true", "kmsKeyId": "arn:key/1"}), keyed),
        ] {
            assert_eq!(with(parameters.clone(), saved), Ok(filled.clone()), "{parameters}");
        }
        let block = decide(|case| case.volume["spec"]["volumeMode"] = json!("Block"));
        assert_eq!(block.map(|import| import.mode), Ok("Block".to_owned()));
        let auto = decide(|case| {
            case.class["provisioner"] = json!("ebs.csi.eks.amazonaws.com");
            case.drivers = &["ebs.csi.eks.amazonaws.com"];
        });
        assert_eq!(auto.map(|import| import.driver), Ok("ebs.csi.eks.amazonaws.com".to_owned()));
    }

    #[test]
    fn a_class_that_makes_another_volume_does_not() {
        let gp3 = case().saved;
        let keyed = Saved { kms_key: Some("arn:key/1"), ..gp3 };
        for (parameters, saved, why) in [
            (json!({"type": "gp2"}), gp3, "makes gp2 volumes, and the saved one is gp3"),
            (json!({}), Saved { kind: "io2", ..gp3 }, "makes gp3 volumes, and the saved one is io2"),
            (json!({}), Saved { iops: Some(6000), ..gp3 }, "sets 3000 of IOPS, and the saved volume has 6000"),
            (json!({"iops": "6000"}), gp3, "sets 6000 of IOPS, and the saved volume has 3000"),
            (json!({"iopsPerGB": "1000"}), Saved { iops: Some(80000), ..gp3 }, "sets 100000 of IOPS"),
            (json!({"iops": "many"}), gp3, "sets no number that can be read of IOPS"),
            (json!({"type": "io1"}), Saved { kind: "io1", ..gp3 }, "sets no number that can be read of IOPS"),
            (json!({}), Saved { throughput: Some(250), ..gp3 }, "another throughput than the 250 MiB/s"),
            (json!({"throughput": "250"}), gp3, "another throughput than the 125 MiB/s"),
            (json!({"encrypted": "true"}), gp3, "encrypts, and the saved volume isn't"),
            (json!({"kmsKeyId": "arn:key/1"}), gp3, "encrypts, and the saved volume isn't"),
            (
                json!({"kmsKeyId": "arn:key/2"}),
                keyed,
                "encrypts with key `arn:key/2`, and the saved volume has `arn:key/1`",
            ),
            (json!({"csi.storage.k8s.io/fstype": "xfs"}), gp3, "mounts xfs, and the saved volume has ext4"),
        ] {
            let found = with(parameters.clone(), saved).unwrap_err();
            assert!(found.starts_with("storage class `fast` ") && found.contains(why), "{parameters}: {found}");
        }
    }

    type Change = fn(&mut Case);

    #[test]
    fn what_no_class_can_say_is_made() {
        let cases: [(Change, &str); 12] = [
            (|case| case.claim = json!({"spec": {"storageClassName": ""}}), "it has no storage class"),
            (|case| case.claim = json!({"spec": {}}), "it has no storage class"),
            (|case| case.claim["spec"]["storageClassName"] = json!("slow"), "storage class `slow` is not there"),
            (|case| case.class["provisioner"] = json!("kubernetes.io/aws-ebs"), "no CSI driver of EBS"),
            (|case| case.drivers = &[], "there is no CSIDriver `ebs.csi.aws.com`"),
            (|case| case.claim["spec"]["selector"] = json!({}), "selects its volume by labels"),
            (|case| case.claim["spec"]["volumeAttributesClassName"] = json!("gold"), "VolumeAttributesClass"),
            (|case| case.saved.multi_attach = true, "several machines"),
            (|case| case.volume["spec"]["csi"]["volumeAttributes"] = json!({"partition": "1"}), "partitions"),
            (
                |case| case.class["reclaimPolicy"] = json!("Retain"),
                "reclaim policy Retain, and the saved volume Delete",
            ),
            (|case| case.class["mountOptions"] = json!(["noatime"]), "other mount options"),
            (|case| case.volume["spec"]["csi"]["fsType"] = json!("xfs"), "mounts ext4, and the saved volume has xfs"),
        ];
        for (change, why) in cases {
            let found = decide(change).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
    }
}
