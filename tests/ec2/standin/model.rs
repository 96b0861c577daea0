//! What EC2 has: volumes, snapshots, instances; and how it writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// The account of whoever doesn't say another.
pub(crate) const ACCOUNT: &str = "123456789012";

/// The key that EBS has for an account in a region by itself: its alias is `aws/ebs`.
pub(crate) fn default_key(region: &str, account: &str) -> String {
    format!("arn:aws:kms:{region}:{account}:key/aws-ebs")
}

#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) gib: u64,
    pub(crate) kind: String,
    pub(crate) iops: Option<u64>,
    pub(crate) throughput: Option<u64>,
    pub(crate) kms: Option<String>,
    pub(crate) zone: String,
    pub(crate) snapshot: Option<String>,
    /// Instance and device.
    pub(crate) attached: Option<(String, String)>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) available_at: Duration,
    /// What a snapshot of it ends with, instead of `completed`.
    pub(crate) breaks_snapshots: Option<String>,
}

impl Volume {
    /// A gp3 volume of 4 GiB with its default speed.
    pub(crate) fn gp3(id: &str, zone: &str) -> Self {
        Self {
            id: id.to_owned(),
            account: ACCOUNT.to_owned(),
            gib: 4,
            kind: "gp3".to_owned(),
            iops: Some(3000),
            throughput: Some(125),
            kms: None,
            zone: zone.to_owned(),
            snapshot: None,
            attached: None,
            tags: BTreeMap::new(),
            available_at: Duration::ZERO,
            breaks_snapshots: None,
        }
    }

    pub(crate) fn attached_to(self, instance: &str, device: &str) -> Self {
        Self { attached: Some((instance.to_owned(), device.to_owned())), ..self }
    }

    /// Pending snapshots that it may have.
    pub(crate) fn most_pending(&self) -> usize {
        if matches!(self.kind.as_str(), "st1" | "sc1") { 1 } else { 5 }
    }

    pub(crate) fn status(&self, now: Duration) -> &'static str {
        match () {
            () if self.attached.is_some() => "in-use",
            () if now < self.available_at => "creating",
            () => "available",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: String,
    /// The account that owns it.
    pub(crate) account: String,
    /// Other accounts that may make volumes of it.
    pub(crate) shared_with: BTreeSet<String>,
    pub(crate) volume: String,
    pub(crate) gib: u64,
    pub(crate) kms: Option<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) started: Duration,
    /// The same by the calendar.
    pub(crate) started_at: jiff::Timestamp,
    pub(crate) takes: Duration,
    pub(crate) visible_at: Duration,
    pub(crate) ends_in_error: Option<String>,
    pub(crate) locked: bool,
    /// The image that is made of it.
    pub(crate) image: Option<String>,
}

impl Snapshot {
    pub(crate) fn status(&self, now: Duration) -> &'static str {
        match &self.ends_in_error {
            _ if now < self.started + self.takes => "pending",
            Some(_) => "error",
            None => "completed",
        }
    }

    pub(crate) fn is_visible_to(&self, account: &str) -> bool {
        self.account == account || self.shared_with.contains(account)
    }

    /// Its tags, which only the account sees that made them.
    pub(crate) fn tags_for(&self, account: &str) -> BTreeMap<String, String> {
        if self.account == account { self.tags.clone() } else { BTreeMap::new() }
    }

    /// `""` at first, then steps, as EC2 reports it.
    fn progress(&self, now: Duration) -> String {
        let share = (now - self.started.min(now)).as_secs_f64() / self.takes.as_secs_f64().max(1e-9);
        let percent = [0.0, 13.0, 37.0, 78.0, 99.0].into_iter().rev().find(|step| share * 100.0 >= *step);
        match (self.status(now), percent) {
            ("completed", _) => "100%".to_owned(),
            (_, None | Some(0.0)) => String::new(),
            (_, Some(percent)) => format!("{percent}%"),
        }
    }

    pub(crate) fn xml(&self, now: Duration, state_tag: &str, viewer: &str) -> String {
        let mut xml = format!(
            "<snapshotId>{}</snapshotId><volumeId>{}</volumeId><{state_tag}>{}</{state_tag}><startTime>{}</startTime>\
             <progress>{}</progress><ownerId>{}</ownerId><volumeSize>{}</volumeSize><storageTier>standard</storageTier>",
            self.id,
            self.volume,
            self.status(now),
            time(self.started_at),
            self.progress(now),
            self.account,
            self.gib
        );
        if let (Some(message), "error") = (&self.ends_in_error, self.status(now)) {
            _ = write!(xml, "<statusMessage>{}</statusMessage>", escape(message));
        }
        if self.status(now) == "completed" {
            _ = write!(xml, "<fullSnapshotSizeInBytes>{}</fullSnapshotSizeInBytes>", self.gib << 29);
        }
        encryption(&mut xml, self.kms.as_deref());
        xml + &tag_set(&self.tags_for(viewer))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) root_device: String,
}

/// One region: nothing in it is known in another.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) volumes: BTreeMap<String, Volume>,
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Name and id.
    pub(crate) zones: Vec<(String, String)>,
    /// By volume: when its last snapshot was begun.
    pub(crate) last_snapshot: BTreeMap<String, Duration>,
    /// By key: accounts that may use it besides the one that its ARN names.
    pub(crate) key_users: BTreeMap<String, BTreeSet<String>>,
    /// By client token: the parameters and the volume that was made.
    pub(crate) tokens: BTreeMap<String, (String, String)>,
}

impl Region {
    pub(crate) fn new(name: &str) -> Self {
        let zones = ["a", "b", "c"].into_iter().zip(["az1", "az2", "az3"]);
        let short: String = name.split('-').map(|part| part.get(..1).unwrap_or_default()).collect();
        Self {
            volumes: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            instances: BTreeMap::new(),
            zones: zones.map(|(letter, id)| (format!("{name}{letter}"), format!("{short}-{id}"))).collect(),
            last_snapshot: BTreeMap::new(),
            key_users: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }

    pub(crate) fn zone_id(&self, name: &str) -> Option<&str> {
        self.zones.iter().find(|(zone, _)| zone == name).map(|(_, id)| id.as_str())
    }

    /// Whether an account may use a key. One that isn't an ARN with an account anybody may.
    pub(crate) fn may_use(&self, key: &str, account: &str) -> bool {
        let owner = key.split(':').nth(4).filter(|owner| !owner.is_empty());
        owner.is_none_or(|owner| owner == account)
            || self.key_users.get(key).is_some_and(|users| users.contains(account))
    }

    /// Adds an instance, with its root device.
    pub(crate) fn add_instance(&mut self, id: &str, root_device: &str) {
        self.instances.insert(id.to_owned(), Instance { root_device: root_device.to_owned() });
    }

    pub(crate) fn volume_xml(&self, volume: &Volume, now: Duration) -> String {
        let mut xml = format!(
            "<volumeId>{}</volumeId><size>{}</size><snapshotId>{}</snapshotId><availabilityZone>{}</availabilityZone>\
             <availabilityZoneId>{}</availabilityZoneId><status>{}</status><createTime>{}</createTime>\
             <volumeType>{}</volumeType><multiAttachEnabled>false</multiAttachEnabled>",
            volume.id,
            volume.gib,
            volume.snapshot.as_deref().unwrap_or_default(),
            volume.zone,
            self.zone_id(&volume.zone).unwrap_or_default(),
            volume.status(now),
            "2026-11-20T10:00:00.000Z",
            volume.kind
        );
        if let Some(iops) = volume.iops {
            _ = write!(xml, "<iops>{iops}</iops>");
        }
        if let Some(throughput) = volume.throughput {
            _ = write!(xml, "<throughput>{throughput}</throughput>");
        }
        encryption(&mut xml, volume.kms.as_deref());
        xml += "<attachmentSet>";
        if let Some((instance, device)) = &volume.attached {
            _ = write!(
                xml,
                "<item><volumeId>{}</volumeId><instanceId>{instance}</instanceId><device>{device}</device>\
                 <status>attached</status></item>",
                volume.id
            );
        }
        xml + "</attachmentSet>" + &tag_set(&volume.tags)
    }
}

fn encryption(xml: &mut String, kms: Option<&str>) {
    _ = write!(xml, "<encrypted>{}</encrypted>", kms.is_some());
    if let Some(kms) = kms {
        _ = write!(xml, "<kmsKeyId>{}</kmsKeyId>", escape(kms));
    }
}

fn tag_set(tags: &BTreeMap<String, String>) -> String {
    let item = |(key, value): (&String, &String)| {
        format!("<item><key>{}</key><value>{}</value></item>", escape(key), escape(value))
    };
    format!("<tagSet>{}</tagSet>", tags.iter().map(item).collect::<String>())
}

/// A time as EC2 writes it.
fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
