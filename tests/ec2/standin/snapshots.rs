//! Snapshots.

use super::model::{Region, Snapshot, default_key};
use super::query::{Query, passes};
use super::{Asked, Refusal, State, refuse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two snapshots of one volume (`SnapshotCreationPerVolumeRateExceeded`).
const SPACING: Duration = Duration::from_secs(15);
/// Volumes that CreateSnapshots can leave out.
const MOST_EXCLUDED: usize = 40;
/// Copies into a region that may run at once.
const MOST_COPIES: usize = 20;

impl Region {
    fn may_begin(&self, now: Duration, volume: &str) -> Result<(), Refusal> {
        if self.last_snapshot.get(volume).is_some_and(|last| now < *last + SPACING) {
            return refuse(
                "SnapshotCreationPerVolumeRateExceeded",
                "The maximum per volume CreateSnapshot request rate has been exceeded. Use an increasing or variable \
                 sleep interval between requests.",
            );
        }
        // also those that end in error, and those deleted while pending: only time frees their places
        let pending = self.snapshots.values().filter(|snapshot| snapshot.volume == volume);
        let pending = pending.filter(|snapshot| snapshot.status(now) == "pending").count();
        let most = self.volumes[volume].most_pending();
        if pending >= most {
            return refuse(
                "ConcurrentSnapshotLimitExceeded",
                format!("Maximum allowed in-progress snapshots for a single volume exceeded: {most}."),
            );
        }
        Ok(())
    }
}

/// What is said of a snapshot that isn't there, or that one may not see.
pub(super) fn unknown<T>(id: &str) -> Result<T, Refusal> {
    refuse("InvalidSnapshot.NotFound", format!("The snapshot '{id}' does not exist."))
}

impl State {
    fn begin(&mut self, asked: Asked<'_>, volume: &str, tags: BTreeMap<String, String>) -> Snapshot {
        let Asked { now, account, region } = asked;
        let id = self.new_id("snap");
        let settings = self.settings.clone();
        if let Some(folder) = &settings.folder {
            copy(&folder.join(format!("{volume}.img")), &folder.join(format!("{id}.img")));
        }
        let region = self.region(region);
        let of = &region.volumes[volume];
        let snapshot = Snapshot {
            id,
            account: account.to_owned(),
            shared_with: BTreeSet::new(),
            volume: volume.to_owned(),
            gib: of.gib,
            kms: of.kms.clone(),
            tags,
            started: now,
            started_at: settings.began + now,
            takes: settings.snapshot_takes,
            visible_at: now + settings.hidden_for,
            ends_in_error: of.breaks_snapshots.clone(),
            locked: false,
            image: None,
        };
        region.last_snapshot.insert(volume.to_owned(), now);
        region.snapshots.insert(snapshot.id.clone(), snapshot.clone());
        snapshot
    }

    pub(crate) fn create_snapshot(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let Asked { now, account, region } = asked;
        let volume = query.required("VolumeId")?.to_owned();
        if self.region(region).volumes.get(&volume).is_none_or(|volume| volume.account != account) {
            return refuse("InvalidVolume.NotFound", format!("The volume '{volume}' does not exist."));
        }
        self.region(region).may_begin(now, &volume)?;
        Ok(self.begin(asked, &volume, query.tags("snapshot")).xml(now, "status", account))
    }

    /// All volumes of one instance but those left out, with one set of tags.
    pub(crate) fn create_snapshots(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let Asked { now, account, region } = asked;
        let instance = query.required("InstanceSpecification.InstanceId")?.to_owned();
        let excluded = query.list("InstanceSpecification.ExcludeDataVolumeId");
        let without_boot = query.get("InstanceSpecification.ExcludeBootVolume") == Some("true");
        if excluded.len() > MOST_EXCLUDED {
            return refuse("InvalidParameterValue", "You can exclude up to 40 data volumes per request.");
        }
        let here = self.region(region);
        let Some(machine) = here.instances.get(&instance) else {
            return refuse("InvalidInstanceID.NotFound", format!("The instance ID '{instance}' does not exist"));
        };
        let root = machine.root_device.clone();
        let on_it: Vec<(String, bool)> = here
            .volumes
            .values()
            .filter_map(|volume| {
                let (on, device) = volume.attached.as_ref()?;
                (*on == instance).then(|| (volume.id.clone(), *device == root))
            })
            .collect();
        for id in &excluded {
            match on_it.iter().find(|(volume, _)| volume == id) {
                None => {
                    return refuse(
                        "InvalidParameterValue",
                        format!("The volume '{id}' is not attached to the instance"),
                    );
                }
                Some((_, true)) => {
                    return refuse("InvalidParameterValue", "Use ExcludeBootVolume to exclude the root volume");
                }
                Some(_) => (),
            }
        }
        let left_out = |(id, boot): &(String, bool)| excluded.contains(&id.as_str()) || (*boot && without_boot);
        let wanted: Vec<String> = on_it.iter().filter(|one| !left_out(one)).map(|(id, _)| id.clone()).collect();
        // all or nothing
        for volume in &wanted {
            here.may_begin(now, volume)?;
        }
        let tags = query.tags("snapshot");
        let made: String = wanted
            .iter()
            .map(|volume| {
                format!("<item>{}</item>", self.begin(asked, volume, tags.clone()).xml(now, "state", account))
            })
            .collect();
        Ok(format!("<snapshotSet>{made}</snapshotSet>"))
    }

    pub(crate) fn describe_snapshots(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let Asked { now, account, region } = asked;
        let (ids, owners, restorable) = (query.list("SnapshotId"), query.list("Owner"), query.list("RestorableBy"));
        let mut found = Vec::new();
        let here = self.region(region);
        for id in &ids {
            // by id too a new snapshot may be unknown for a moment
            if here.snapshots.get(*id).is_none_or(|snapshot| now < snapshot.visible_at) {
                return unknown(id);
            }
        }
        // what one may not see is left out, also when it is asked for by its id
        let seen = here.snapshots.values().filter(|one| now >= one.visible_at && one.is_visible_to(account));
        for snapshot in seen.filter(|one| is_of(one, account, &owners) && is_restorable(one, account, &restorable)) {
            let field = |name: &str| match name {
                "snapshot-id" => Some(vec![snapshot.id.clone()]),
                "volume-id" => Some(vec![snapshot.volume.clone()]),
                "status" => Some(vec![snapshot.status(now).to_owned()]),
                "owner-id" => Some(vec![snapshot.account.clone()]),
                _ => None,
            };
            let tags = snapshot.tags_for(account);
            if (ids.is_empty() || ids.contains(&snapshot.id.as_str())) && passes(query, &tags, field)? {
                found.push(format!("<item>{}</item>", snapshot.xml(now, "status", account)));
            }
        }
        if ids.is_empty() && owners.is_empty() && restorable.is_empty() {
            // everybody's public ones; one stands for thousands
            found.push("<item><snapshotId>snap-0pub11c</snapshotId><volumeId>vol-ffffffff</volumeId><status>completed</status><ownerId>1</ownerId></item>".to_owned());
        }
        let (page, token) = query.page("SnapshotId", found)?;
        Ok(format!("<snapshotSet>{}</snapshotSet>{token}", page.concat()))
    }

    pub(crate) fn copy_snapshot(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let Asked { now, account, region } = asked;
        let (from, id) = (query.required("SourceRegion")?.to_owned(), query.required("SourceSnapshotId")?.to_owned());
        let source = self.region(&from).snapshots.get(&id).filter(|source| source.is_visible_to(account)).cloned();
        let Some(source) = source else { return unknown(&id) };
        if source.status(now) != "completed" {
            return refuse("IncorrectState", format!("Snapshot '{id}' is not 'completed'"));
        }
        let running = |one: &&Snapshot| one.account == account && one.volume == COPIED && one.status(now) == "pending";
        if self.region(region).snapshots.values().filter(running).count() >= MOST_COPIES {
            return refuse(
                "ResourceLimitExceeded",
                "Too many snapshot copies in progress. The limit is 20 for this destination region.",
            );
        }
        let new = self.new_id("snap");
        if let Some(folder) = &self.settings.folder {
            copy(&folder.join(format!("{id}.img")), &folder.join(format!("{new}.img")));
        }
        // an encrypted one is encrypted anew, with the account's own key where none is given
        let encrypted = source.kms.is_some() || query.get("Encrypted") == Some("true");
        let key = query.get("KmsKeyId").map(str::to_owned);
        let key = key.or_else(|| encrypted.then(|| default_key(region, account)));
        let readable = source.kms.as_ref().is_none_or(|key| self.region(&from).may_use(key, account));
        let failure = match &key {
            Some(key) if key.contains("disabled") => Some("the key is disabled"),
            _ if !readable => Some("Given key ID is not accessible"),
            _ => None,
        };
        let made = Snapshot {
            id: new,
            account: account.to_owned(),
            shared_with: BTreeSet::new(),
            volume: COPIED.to_owned(),
            kms: key,
            tags: query.tags("snapshot"), // those of the source are not copied
            started: now,
            started_at: self.settings.began + now,
            visible_at: now + self.settings.hidden_for,
            takes: self.settings.snapshot_takes,
            // EC2 asks for the key after it has answered
            ends_in_error: failure.map(str::to_owned),
            locked: false,
            image: None,
            ..source
        };
        let id = made.id.clone();
        self.region(region).snapshots.insert(id.clone(), made);
        Ok(format!("<snapshotId>{id}</snapshotId>"))
    }

    pub(crate) fn delete_snapshot(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let id = query.required("SnapshotId")?.to_owned();
        self.owned(asked, &id)?;
        let here = self.region(asked.region);
        match here.snapshots.get(&id) {
            None => return unknown(&id),
            // that it is refused is documented, its code isn't
            Some(snapshot) if snapshot.locked => {
                return refuse("OperationNotPermitted", format!("The snapshot '{id}' is locked and can't be deleted."));
            }
            Some(Snapshot { image: Some(image), .. }) => {
                return refuse("InvalidSnapshot.InUse", format!("The snapshot {id} is currently in use by {image}"));
            }
            Some(_) => (),
        }
        here.snapshots.remove(&id);
        if let Some(folder) = &self.settings.folder {
            std::fs::remove_file(folder.join(format!("{id}.img"))).ok();
        }
        Ok("<return>true</return>".to_owned())
    }
}

impl State {
    pub(crate) fn describe_locks(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let mut found = Vec::new();
        let ours = self.region(asked.region).snapshots.values().filter(|one| one.account == asked.account);
        for snapshot in ours.filter(|one| one.locked) {
            let field = |name: &str| (name == "snapshot-id").then(|| vec![snapshot.id.clone()]);
            if passes(query, &BTreeMap::new(), field)? {
                found.push(format!(
                    "<item><ownerId>{}</ownerId><snapshotId>{}</snapshotId><lockState>compliance</lockState>\
                     <lockExpiresOn>2027-11-20T10:00:00.000Z</lockExpiresOn></item>",
                    snapshot.account, snapshot.id
                ));
            }
        }
        let (page, token) = query.page("SnapshotId", found)?;
        Ok(format!("<snapshotSet>{}</snapshotSet>{token}", page.concat()))
    }

    pub(crate) fn describe_images(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let mut found = Vec::new();
        for snapshot in self.region(asked.region).snapshots.values().filter(|one| one.account == asked.account) {
            let Some(image) = &snapshot.image else { continue };
            let field = |name: &str| (name == "block-device-mapping.snapshot-id").then(|| vec![snapshot.id.clone()]);
            if passes(query, &BTreeMap::new(), field)? {
                found.push(format!(
                    "<item><imageId>{image}</imageId><blockDeviceMapping><item><deviceName>/dev/xvda</deviceName><ebs>\
                     <snapshotId>{}</snapshotId></ebs></item></blockDeviceMapping></item>",
                    snapshot.id
                ));
            }
        }
        let (page, token) = query.page("ImageId", found)?;
        Ok(format!("<imagesSet>{}</imagesSet>{token}", page.concat()))
    }
}

/// Whether a snapshot is one of these owners'.
fn is_of(snapshot: &Snapshot, viewer: &str, owners: &[&str]) -> bool {
    owners.is_empty() || owners.iter().any(|owner| snapshot.account == if *owner == "self" { viewer } else { owner })
}

/// Whether these may make volumes of it. Of other accounts than one's own only the owner is told.
fn is_restorable(snapshot: &Snapshot, viewer: &str, by: &[&str]) -> bool {
    let may = |account: &&str| match *account {
        "self" => snapshot.is_visible_to(viewer),
        account => snapshot.account == viewer && snapshot.is_visible_to(account),
    };
    by.is_empty() || by.iter().any(may)
}

/// What a copy says its volume is: an id that means nothing.
const COPIED: &str = "vol-ffffffff";

/// Copies a volume's file, without its holes.
pub(crate) fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied =
        std::process::Command::new("cp").args(["--reflink=auto", "--sparse=always"]).arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success(), "copying {}", from.display());
}
