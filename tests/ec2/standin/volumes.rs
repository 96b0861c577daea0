//! Volumes and tags.

use super::model::{Volume, default_key};
use super::query::{Query, passes};
use super::{Asked, Refusal, State, refuse, snapshots};

impl State {
    pub(crate) fn describe_volumes(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let (now, ids) = (asked.now, query.list("VolumeId"));
        let here = self.region(asked.region);
        let is_ours = |volume: &&Volume| volume.account == asked.account;
        if let Some(missing) = ids.iter().find(|id| here.volumes.get(**id).filter(is_ours).is_none()) {
            return refuse("InvalidVolume.NotFound", format!("The volume '{missing}' does not exist."));
        }
        let mut found = Vec::new();
        for volume in here.volumes.values().filter(is_ours) {
            let field = |name: &str| match name {
                "volume-id" => Some(vec![volume.id.clone()]),
                "status" => Some(vec![volume.status(now).to_owned()]),
                "attachment.instance-id" => {
                    Some(volume.attached.iter().map(|(instance, _)| instance.clone()).collect())
                }
                _ => None,
            };
            if (ids.is_empty() || ids.contains(&volume.id.as_str())) && passes(query, &volume.tags, field)? {
                found.push(format!("<item>{}</item>", here.volume_xml(volume, now)));
            }
        }
        let (page, token) = query.page("VolumeId", found)?;
        Ok(format!("<volumeSet>{}</volumeSet>{token}", page.concat()))
    }

    pub(crate) fn create_volume(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let Asked { now, region, .. } = asked;
        let zone = match (query.get("AvailabilityZone"), query.get("AvailabilityZoneId")) {
            (Some(zone), None) => zone.to_owned(),
            (None, Some(id)) => match self.region(region).zones.iter().find(|(_, of)| of == id) {
                Some((name, _)) => name.clone(),
                None => return refuse("InvalidParameterValue", format!("Invalid availability zone id: [{id}]")),
            },
            _ => return refuse("MissingParameter", "The request must contain the parameter zone"),
        };
        if self.region(region).zone_id(&zone).is_none() {
            return refuse("InvalidZone.NotFound", format!("The zone '{zone}' does not exist."));
        }
        let told = format!("{query:?}");
        if let Some(token) = query.get("ClientToken")
            && let Some((before, id)) = self.region(region).tokens.get(token).cloned()
        {
            if before != told {
                return refuse("IdempotentParameterMismatch", "The client token was used with other parameters.");
            }
            let here = self.region(region);
            return match here.volumes.get(&id) {
                Some(volume) => Ok(here.volume_xml(volume, now)),
                None => refuse("InvalidVolume.NotFound", format!("The volume '{id}' does not exist.")),
            };
        }
        let (volume, usable) = self.made(asked, zone, query)?;
        if let Some(folder) = self.settings.folder.clone() {
            let file = |id: &str| folder.join(format!("{id}.img"));
            match &volume.snapshot {
                Some(snapshot) => snapshots::copy(&file(snapshot), &file(&volume.id)),
                None => _ = std::fs::File::create(file(&volume.id)).expect("a file"),
            }
            let opened = std::fs::OpenOptions::new().write(true).open(file(&volume.id)).expect("the file");
            opened.set_len(volume.gib << 30).expect("a length");
        }
        self.note_tags(&volume);
        let here = self.region(region);
        if let Some(token) = query.get("ClientToken") {
            here.tokens.insert(token.to_owned(), (told, volume.id.clone()));
        }
        let xml = here.volume_xml(&volume, now);
        // EC2 asks for the key after it has answered, and then the volume is gone
        if usable {
            here.volumes.insert(volume.id.clone(), volume);
        }
        Ok(xml)
    }

    /// A volume as CreateVolume makes it: of a snapshot it takes the data and the encryption, and nothing else. And whether its
    /// keys can be used.
    fn made(&mut self, asked: Asked<'_>, zone: String, query: &Query) -> Result<(Volume, bool), Refusal> {
        let Asked { now, account, region } = asked;
        let snapshot = match query.get("SnapshotId") {
            None => None,
            Some(id) => match self.region(region).snapshots.get(id).cloned() {
                Some(snapshot) if !snapshot.is_visible_to(account) => return snapshots::unknown(id),
                None => return snapshots::unknown(id),
                Some(snapshot) if snapshot.status(now) != "completed" => {
                    return refuse("IncorrectState", format!("Snapshot '{id}' is not 'completed'"));
                }
                found => found,
            },
        };
        let least = snapshot.as_ref().map_or(1, |snapshot| snapshot.gib);
        let gib = query.number("Size")?.unwrap_or(least);
        if gib < least {
            return refuse(
                "InvalidParameterValue",
                format!("The specified volume size is smaller than the size of snapshot ({least} GiB)."),
            );
        }
        let kind = query.get("VolumeType").unwrap_or("gp2").to_owned();
        let (iops, throughput) = speed(&kind, gib, query.number("Iops")?, query.number("Throughput")?)?;
        let key = query.get("KmsKeyId").map(str::to_owned);
        let by_default = (query.get("Encrypted") == Some("true")).then(|| default_key(region, account));
        let of_snapshot = snapshot.as_ref().and_then(|snapshot| snapshot.kms.clone());
        let kms = key.or_else(|| of_snapshot.clone()).or(by_default);
        let here = self.region(region);
        let usable = [&of_snapshot, &kms].into_iter().flatten().all(|key| here.may_use(key, account));
        let volume = Volume {
            id: self.new_id("vol"),
            account: account.to_owned(),
            gib,
            kind,
            iops,
            throughput,
            kms,
            zone,
            snapshot: snapshot.map(|snapshot| snapshot.id),
            attached: None,
            tags: query.tags("volume"),
            available_at: now + self.settings.volume_takes,
            breaks_snapshots: None,
        };
        Ok((volume, usable))
    }

    pub(crate) fn delete_volume(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let now = asked.now;
        let id = query.required("VolumeId")?.to_owned();
        let here = self.region(asked.region);
        match here.volumes.get(&id).filter(|volume| volume.account == asked.account) {
            None => return refuse("InvalidVolume.NotFound", format!("The volume '{id}' does not exist.")),
            Some(volume) if volume.attached.is_some() => {
                return refuse("VolumeInUse", format!("Volume {id} is currently attached"));
            }
            Some(volume) if volume.status(now) == "creating" => {
                return refuse("IncorrectState", format!("The volume '{id}' is not 'available'"));
            }
            Some(_) => (),
        }
        here.volumes.remove(&id);
        if let Some(folder) = &self.settings.folder {
            for file in ["img", "tags"] {
                std::fs::remove_file(folder.join(format!("{id}.{file}"))).ok();
            }
        }
        Ok("<return>true</return>".to_owned())
    }

    pub(crate) fn create_tags(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let tags = query.pairs("Tag");
        let here = self.region(asked.region);
        for id in query.list("ResourceId") {
            let of = match id.split_once('-') {
                Some(("vol", _)) => here
                    .volumes
                    .get_mut(id)
                    .filter(|volume| volume.account == asked.account)
                    .map(|volume| &mut volume.tags),
                _ => {
                    let snapshot = here.snapshots.get_mut(id).filter(|snapshot| snapshot.account == asked.account);
                    snapshot.map(|snapshot| &mut snapshot.tags)
                }
            };
            match of {
                Some(of) => of.extend(tags.clone()),
                None => return refuse("InvalidID", format!("The ID '{id}' is not valid")),
            }
        }
        Ok("<return>true</return>".to_owned())
    }
}

/// Checks the speed that a type can have, and fills in what it has by itself.
fn speed(
    kind: &str,
    gib: u64,
    iops: Option<u64>,
    throughput: Option<u64>,
) -> Result<(Option<u64>, Option<u64>), Refusal> {
    let wrong = |what: &str| {
        refuse("InvalidParameterCombination", format!("The parameter {what} is not supported for {kind} volumes."))
    };
    match (kind, iops, throughput) {
        ("gp3", iops, throughput) => {
            let (iops, throughput) = (iops.unwrap_or(3000), throughput.unwrap_or(125));
            if !(3000..=80_000).contains(&iops) || !(125..=2000).contains(&throughput) {
                return refuse("InvalidParameterValue", "iops or throughput is out of range for gp3");
            }
            Ok((Some(iops), Some(throughput)))
        }
        ("io1" | "io2", None, _) => refuse("MissingParameter", "The request must contain the parameter iops"),
        ("io1" | "io2", iops, None) => Ok((iops, None)),
        ("gp2", None, None) => Ok((Some((gib * 3).clamp(100, 16_000)), None)),
        ("st1" | "sc1" | "standard", None, None) => Ok((None, None)),
        (_, Some(_), _) => wrong("iops"),
        (_, _, Some(_)) => wrong("throughput"),
        _ => refuse("InvalidParameterValue", format!("Invalid volume type: {kind}")),
    }
}
