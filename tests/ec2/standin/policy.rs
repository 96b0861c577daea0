//! IAM, as far as our own policies go: statements that allow, `StringEquals`, tags of resources (of the caller's own account) and of
//! requests, owners of snapshots, and that a call needs every resource it touches allowed ("Actions, resources, and condition keys for Amazon EC2", Service
//! Authorization Reference; for the snapshot in CreateVolume since January 2025 too).

use super::model::Snapshot;
use super::query::Query;
use super::{Asked, Refusal, State};
use serde_json::Value;
use std::collections::BTreeMap;

type Tags = BTreeMap<String, String>;

/// Something that a call does to one resource.
struct Deed {
    action: String,
    resource: String,
    context: BTreeMap<String, String>,
}

impl Deed {
    fn new(action: &str, resource: impl Into<String>) -> Self {
        Self { action: format!("ec2:{action}"), resource: resource.into(), context: BTreeMap::new() }
    }

    fn on(mut self, tags: Option<&Tags>) -> Self {
        for (key, value) in tags.into_iter().flatten() {
            for prefix in ["ec2:ResourceTag/", "aws:ResourceTag/"] {
                self.context.insert(format!("{prefix}{key}"), value.clone());
            }
        }
        self
    }

    /// On a snapshot, of whose tags IAM knows only those of the caller's own account.
    fn on_snapshot(self, snapshot: Option<&Snapshot>, caller: &str) -> Self {
        let mut deed = self.on(snapshot.map(|snapshot| snapshot.tags_for(caller)).as_ref());
        if let Some(snapshot) = snapshot {
            deed.context.insert("ec2:Owner".to_owned(), snapshot.account.clone());
        }
        deed
    }

    fn asking(mut self, tags: &Tags) -> Self {
        self.context.extend(tags.iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), value.clone())));
        self
    }

    /// The tagging within a call that makes something.
    fn tagging(resource: &str, within: &str, tags: &Tags) -> Option<Self> {
        let mut deed = Self::new("CreateTags", resource).asking(tags);
        deed.context.insert("ec2:CreateAction".to_owned(), within.to_owned());
        (!tags.is_empty()).then_some(deed)
    }
}

impl State {
    /// Whether the policy allows a call; with no policy everything is.
    pub(crate) fn authorize(&mut self, asked: Asked<'_>, action: &str, query: &Query) -> Result<(), Refusal> {
        let Some(policy) = self.policies.get(asked.account).cloned() else { return Ok(()) };
        for deed in self.deeds(asked, action, query) {
            if !policy["Statement"].as_array().expect("statements").iter().any(|statement| allows(statement, &deed)) {
                let said = format!(
                    "You are not authorized to perform this operation. {} on {}. Encoded authorization failure message: x",
                    deed.action, deed.resource
                );
                return Err(Refusal(403, "UnauthorizedOperation", said));
            }
        }
        Ok(())
    }

    fn deeds(&mut self, asked: Asked<'_>, action: &str, query: &Query) -> Vec<Deed> {
        let Asked { account, region, .. } = asked;
        let volume_arn = |id: &str| format!("arn:aws:ec2:{region}:{account}:volume/{id}");
        let snapshot_arn = |id: &str| format!("arn:aws:ec2:{region}::snapshot/{id}");
        let (volume, snapshot) = (query.get("VolumeId").unwrap_or("new"), query.get("SnapshotId").unwrap_or("new"));
        let source = (query.get("SourceRegion").unwrap_or_default(), query.get("SourceSnapshotId").unwrap_or_default());
        let copied = self.region(source.0).snapshots.get(source.1).cloned();
        let (for_snapshot, for_volume) = (query.tags("snapshot"), query.tags("volume"));
        let here = self.region(region);
        let volume_tags = |id: &str| here.volumes.get(id).map(|volume| &volume.tags);
        let on_snapshot = |deed: Deed| deed.on_snapshot(here.snapshots.get(snapshot), account);
        let mut deeds = Vec::new();
        match action {
            "CreateSnapshot" => deeds.push(Deed::new(action, volume_arn(volume)).on(volume_tags(volume))),
            "CreateSnapshots" => {
                let machine = query.get("InstanceSpecification.InstanceId").unwrap_or_default();
                let excluded = query.list("InstanceSpecification.ExcludeDataVolumeId");
                let root = here.instances.get(machine).map(|instance| instance.root_device.clone());
                deeds.push(Deed::new(action, format!("arn:aws:ec2:{region}:{account}:instance/{machine}")));
                for one in here.volumes.values() {
                    let Some((on, device)) = &one.attached else { continue };
                    if on == machine && Some(device) != root.as_ref() && !excluded.contains(&one.id.as_str()) {
                        deeds.push(Deed::new(action, volume_arn(&one.id)).on(Some(&one.tags)));
                    }
                }
            }
            "CopySnapshot" => {
                let arn = format!("arn:aws:ec2:{}::snapshot/{}", source.0, source.1);
                deeds.push(Deed::new(action, arn).on_snapshot(copied.as_ref(), account));
            }
            "DeleteSnapshot" | "ModifySnapshotAttribute" | "DescribeSnapshotAttribute" => {
                deeds.push(on_snapshot(Deed::new(action, snapshot_arn(snapshot))));
            }
            "DeleteVolume" => deeds.push(Deed::new(action, volume_arn(volume)).on(volume_tags(volume))),
            "CreateVolume" => {
                deeds.push(on_snapshot(Deed::new(action, snapshot_arn(snapshot))));
                deeds.push(Deed::new(action, volume_arn("new")).asking(&for_volume));
                deeds.extend(Deed::tagging(&volume_arn("new"), action, &for_volume));
            }
            _ => deeds.push(Deed::new(action, "*")),
        }
        if action.starts_with("CreateSnapshot") || action == "CopySnapshot" {
            deeds.push(Deed::new(action, snapshot_arn("new")).asking(&for_snapshot));
            deeds.extend(Deed::tagging(&snapshot_arn("new"), action, &for_snapshot));
        }
        deeds
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn allows(statement: &Value, deed: &Deed) -> bool {
    let matching = |field: &str, text: &str| texts(&statement[field]).iter().any(|pattern| is_like(text, pattern));
    let conditions = statement["Condition"].as_object().into_iter().flatten();
    let mut holds = conditions.map(|(operator, keys)| {
        assert!(
            operator == "StringEquals" || statement["Sid"].as_str().is_some_and(|sid| sid.starts_with("List")),
            "{statement}"
        );
        keys.as_object()
            .expect("keys")
            .iter()
            .all(|(key, values)| deed.context.get(key).is_some_and(|value| texts(values).contains(&value.as_str())))
    });
    statement["Effect"] == "Allow"
        && matching("Action", &deed.action)
        && matching("Resource", &deed.resource)
        && holds.all(|is| is)
}

/// Whether a text matches a pattern, in which `*` stands for anything.
fn is_like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((before, rest)) => {
            let Some(left) = text.strip_prefix(before) else { return false };
            (0..=left.len()).any(|from| left.is_char_boundary(from) && is_like(&left[from..], rest))
        }
    }
}
