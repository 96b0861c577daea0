//! What becomes of the data behind each claim: one method, chosen by what serves the volume and by the person's policy,
//! whose first matching rule decides. And where a restored volume goes.

use super::Error;
use super::json::{Text, parse};
use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

pub mod import;
pub mod mounts;
pub mod restored;

/// A claim that has a volume, with what rules look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The PersistentVolume it is bound to.
    pub volume: String,
    /// Its storage class; empty where it has none.
    pub class: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Claim {
    /// Reads a claim; `None` for one that has no volume, and so no data: it waits for its first consumer.
    ///
    /// # Errors
    /// When the object isn't shaped as a claim.
    pub fn of(namespace: &str, name: &str, raw: &str) -> Result<Option<Self>, Error> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Wire<'a> {
            #[serde(borrow)]
            metadata: Meta<'a>,
            #[serde(borrow)]
            spec: Spec<'a>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Meta<'a> {
            #[serde(borrow)]
            labels: Option<BTreeMap<&'a str, Text<'a>>>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default, rename_all = "camelCase")]
        struct Spec<'a> {
            #[serde(borrow)]
            volume_name: Text<'a>,
            #[serde(borrow)]
            storage_class_name: Text<'a>,
        }
        let claim: Wire<'_> = parse(raw)?;
        if claim.spec.volume_name.is_empty() {
            return Ok(None);
        }
        let labels = claim.metadata.labels.unwrap_or_default();
        Ok(Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            volume: claim.spec.volume_name.to_string(),
            class: claim.spec.storage_class_name.to_string(),
            labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect(),
        }))
    }

    /// As problems and omissions name it.
    pub fn subject(&self) -> String {
        format!("persistentvolumeclaims {}/{}", self.namespace, self.name)
    }
}

/// What a PersistentVolume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The CSI driver, or the kind of the in-tree volume, such as `hostPath`.
    pub driver: String,
    /// The EBS volume's id, where it is one.
    pub ebs: Option<String>,
    /// Bytes that it can hold.
    pub bytes: u64,
}

/// The drivers of EBS volumes: the one that EKS users install, and EKS Auto Mode's.
const EBS_DRIVERS: [&str; 2] = ["ebs.csi.aws.com", "ebs.csi.eks.amazonaws.com"];
/// How tags begin that mean something to AWS, a CSI driver or us (aws-ebs-csi-driver, docs/install.md: its policies allow it to delete
/// snapshots with such).
const OTHERS_TAGS: [&str; 7] =
    ["aws:", "ebs.csi.aws.com/", "CSIVolume", "kubernetes.io/cluster/", "eks:", "red-hat", "kubectl-backup/"];
/// What stands in a PersistentVolume's spec beside its source.
const NOT_SOURCES: [&str; 10] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
    "persistentVolumeSource",
];

impl Source {
    /// Reads a PersistentVolume.
    ///
    /// # Errors
    /// When the object isn't JSON.
    pub fn of(raw: &[u8]) -> Result<Self, Error> {
        let volume: Value = serde_json::from_slice(raw).map_err(|error| Error::object(&error))?;
        let text = |pointer: &str| volume.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let bytes = quantity(text("/spec/capacity/storage")).unwrap_or_default();
        if let Some(id) = volume.pointer("/spec/awsElasticBlockStore/volumeID").and_then(Value::as_str) {
            // `aws://eu-central-1a/vol-…`, or the id alone
            let id = id.rsplit('/').next().unwrap_or_default();
            return Ok(Self { driver: "awsElasticBlockStore".to_owned(), ebs: volume_id(id), bytes });
        }
        let driver = text("/spec/csi/driver");
        if !driver.is_empty() {
            let id = EBS_DRIVERS.contains(&driver).then(|| volume_id(text("/spec/csi/volumeHandle"))).flatten();
            return Ok(Self { driver: driver.to_owned(), ebs: id, bytes });
        }
        let fields = volume.pointer("/spec").and_then(Value::as_object).into_iter().flat_map(|spec| spec.keys());
        let kind = fields.map(String::as_str).find(|field| !NOT_SOURCES.contains(field));
        Ok(Self { driver: kind.unwrap_or("unknown").to_owned(), ebs: None, bytes })
    }
}

/// An EBS volume's id; `local-ebs://…` and the like are none.
fn volume_id(text: &str) -> Option<String> {
    let hex = text.strip_prefix("vol-")?;
    (!hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| text.to_owned())
}

/// Which volumes to save, as a person's file says: the first rule that matches decides, and what none matches is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Policy {
    /// The rules, in their order.
    pub rules: Vec<Rule>,
    /// Tags of volumes that their snapshots get, too: keys, or globs of such.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshot_tags: Vec<String>,
}

/// Conditions, all of which must hold, and what then happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// `NAMESPACE/NAME` of the claim; globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claim: Vec<String>,
    /// Storage classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class: Vec<String>,
    /// CSI drivers, or kinds of in-tree volumes such as `hostPath`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub driver: Vec<String>,
    /// Labels of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The volume's capacity, `MIN..MAX` with either end left out: `100Gi..`. Both ends belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// What to do.
    pub action: Action,
}

/// What a policy can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Save it by a snapshot.
    Snapshot,
    /// Leave it out, which is meant.
    Skip,
}

/// What becomes of a claim's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// A snapshot of this EBS volume.
    EbsSnapshot(String),
    /// It is left out, by this rule.
    Skip(String),
    /// Nothing can save it, for this reason.
    Unsaved(String),
}

impl Policy {
    /// Checks what the types can't: globs and sizes.
    ///
    /// # Errors
    /// [`Error::VolumePolicy`], naming the rule; [`Error::SnapshotTags`].
    pub fn check(&self) -> Result<(), Error> {
        if let Some(wrong) = self.snapshot_tags.iter().find(|pattern| glob(pattern).is_none()) {
            return Err(Error::SnapshotTags(wrong.clone()));
        }
        for (number, rule) in self.rules.iter().enumerate() {
            let wrong = |why: String| Error::VolumePolicy { rule: number + 1, why };
            for pattern in &rule.claim {
                if !pattern.contains('/') {
                    return Err(wrong(format!("`claim: {pattern}` is not NAMESPACE/NAME")));
                }
                glob(pattern).ok_or_else(|| wrong(format!("`claim: {pattern}` is not a glob")))?;
            }
            if let Some(size) = &rule.size {
                range(size).ok_or_else(|| wrong(format!("`size: {size}` is not a range such as `10Gi..100Gi`")))?;
            }
            let Rule { claim, class, driver, labels, size, .. } = rule;
            let lists = [claim, class, driver];
            if lists.iter().all(|list| list.is_empty()) && labels.is_empty() && size.is_none() {
                return Err(wrong("it has no condition; give one of claim, class, driver, labels, size".to_owned()));
            }
        }
        Ok(())
    }

    /// Whether a volume's tag goes on its snapshots. Never one by which a CSI driver, EKS or we ourselves know what is theirs:
    /// they might delete it.
    pub fn takes_tag(&self, key: &str) -> bool {
        !OTHERS_TAGS.iter().any(|begins| key.starts_with(begins))
            && self.snapshot_tags.iter().filter_map(|pattern| glob(pattern)).any(|glob| glob.is_match(key))
    }

    /// Chooses the method for a claim.
    pub fn choose(&self, claim: &Claim, source: &Source) -> Method {
        let rule = self.rules.iter().position(|rule| rule.matches(claim, source));
        if let Some(number) = rule
            && self.rules[number].action == Action::Skip
        {
            return Method::Skip(format!(
                "rule {} of the volume policy: the data on the volume is not saved",
                number + 1
            ));
        }
        match &source.ebs {
            Some(id) => Method::EbsSnapshot(id.clone()),
            None => Method::Unsaved(format!("no method of this version saves a `{}` volume", source.driver)),
        }
    }
}

impl Rule {
    fn matches(&self, claim: &Claim, source: &Source) -> bool {
        let among = |list: &[String], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        let name = format!("{}/{}", claim.namespace, claim.name);
        let named = |pattern: &String| glob(pattern).is_some_and(|glob| glob.is_match(&name));
        let sized =
            |size: &String| range(size).is_some_and(|(least, most)| least <= source.bytes && source.bytes <= most);
        among(&self.class, &claim.class)
            && among(&self.driver, &source.driver)
            && self.labels.iter().all(|(key, value)| claim.labels.get(key) == Some(value))
            && (self.claim.is_empty() || self.claim.iter().any(named))
            && self.size.as_ref().is_none_or(sized)
    }
}

fn glob(pattern: &str) -> Option<GlobMatcher> {
    Glob::new(pattern).ok().map(|glob| glob.compile_matcher())
}

/// Both ends of a range of sizes, in bytes.
fn range(text: &str) -> Option<(u64, u64)> {
    let (least, most) = text.split_once("..")?;
    let end = |text: &str, open: u64| if text.trim().is_empty() { Some(open) } else { quantity(text.trim()) };
    let (least, most) = (end(least, 0)?, end(most, u64::MAX)?);
    (least <= most).then_some((least, most))
}

/// A Kubernetes quantity of bytes: `10Gi`, `5G`, `1e9`, `1.5Ti` (k8s.io/apimachinery, pkg/api/resource).
pub fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    // `1E` is exa, `1E3` a thousand
    let (number, suffix) =
        if suffix.len() > 1 && suffix.starts_with('E') && suffix != "Ei" { (text, "") } else { (number, suffix) };
    let factor = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        "m" => 1e-3,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: finite, not negative")]
    (bytes.is_finite() && bytes >= 0.0).then(|| bytes.ceil() as u64)
}

/// An availability zone. The name means something within one account only, the id everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Zone {
    /// Such as `eu-central-1a`.
    pub name: String,
    /// Such as `euc1-az2`; empty where nobody said it.
    pub id: String,
}

/// The zone for a volume that was in `source`, and what a person should know of that choice. `with_nodes` are the zones
/// in which the target has nodes, `mapped` what the person said (`--map-zone`).
///
/// The zone is kept, by its id: a volume can be attached in its own zone only, and so pods that use several volumes of one
/// zone still find them together. Where the target has no node there, all volumes of a zone go to one other.
///
/// # Errors
/// Words for a zone without nodes that the person asked for, and for a target without zones.
pub fn zone_for(
    source: &Zone,
    with_nodes: &[Zone],
    mapped: &BTreeMap<String, String>,
) -> Result<(String, Option<String>), String> {
    let known = || with_nodes.iter().map(|zone| format!("`{}`", zone.name)).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = mapped.get(&source.name) {
        return match with_nodes.iter().any(|zone| zone.name == *wanted) {
            true => Ok((wanted.clone(), None)),
            false => Err(format!("the target has no node in zone `{wanted}`\nhint: it has some in {}", known())),
        };
    }
    let same_id = with_nodes.iter().find(|zone| !zone.id.is_empty() && zone.id == source.id);
    let same_name =
        || with_nodes.iter().find(|zone| zone.name == source.name && (zone.id.is_empty() || source.id.is_empty()));
    if let Some(same) = same_id.or_else(same_name) {
        return Ok((same.name.clone(), None));
    }
    let Some(other) = with_nodes.iter().min() else {
        let hint = "label its nodes topology.kubernetes.io/zone, as AWS' cloud controller does";
        return Err(format!("no node of the target says in which zone it is\nhint: {hint}"));
    };
    let note = format!("the target has no node in zone `{}`: its volumes go to `{}`", source.name, other.name);
    Ok((other.name.clone(), Some(note)))
}

#[cfg(test)]
mod tests;
