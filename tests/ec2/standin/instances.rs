//! Instances and zones, as far as snapshots of several volumes need them.

use super::query::{Query, passes};
use super::{Asked, Refusal, State};
use std::collections::BTreeMap;

impl State {
    pub(crate) fn describe_instances(&mut self, asked: Asked<'_>, query: &Query) -> Result<String, Refusal> {
        let here = self.region(asked.region);
        let mut found = String::new();
        for (id, instance) in &here.instances {
            let field = |name: &str| (name == "instance-id").then(|| vec![id.clone()]);
            if !passes(query, &BTreeMap::new(), field)? {
                continue;
            }
            let on_it = here.volumes.values().filter_map(|volume| Some((volume, volume.attached.as_ref()?)));
            let devices: String = on_it
                .filter(|(_, (on, _))| on == id)
                .map(|(volume, (_, device))| {
                    format!(
                        "<item><deviceName>{device}</deviceName><ebs><volumeId>{}</volumeId></ebs></item>",
                        volume.id
                    )
                })
                .collect();
            found += &format!(
                "<item><instancesSet><item><instanceId>{id}</instanceId><rootDeviceName>{}</rootDeviceName>\
                 <blockDeviceMapping>{devices}</blockDeviceMapping></item></instancesSet></item>",
                instance.root_device
            );
        }
        Ok(format!("<reservationSet>{found}</reservationSet>"))
    }

    pub(crate) fn describe_zones(&mut self, region: &str) -> Result<String, Refusal> {
        let item = |(name, id): &(String, String)| {
            format!(
                "<item><zoneName>{name}</zoneName><zoneId>{id}</zoneId><zoneState>available</zoneState>\
                 <regionName>{region}</regionName><zoneType>availability-zone</zoneType></item>"
            )
        };
        let zones: String = self.region(region).zones.iter().map(item).collect();
        Ok(format!("<availabilityZoneInfo>{zones}</availabilityZoneInfo>"))
    }
}
