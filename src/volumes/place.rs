//! Where the cluster's machines are: which region's EC2 to ask, and in which zones volumes can be used.

use super::{Ec2, Error};
use crate::cluster::Cluster;
use crate::rules::volumes::Zone;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Nodes that are asked at once.
const PAGE: u32 = 500;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Where the cluster's machines are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The region; `None` where no node says it, as outside of AWS.
    pub region: Option<String>,
    /// The zones with nodes.
    pub zones: BTreeSet<Zone>,
}

impl Place {
    /// Asks the nodes.
    ///
    /// # Errors
    /// [`Error::Setting`] where they can't be listed.
    pub async fn of(cluster: &Cluster) -> Result<Self, Error> {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            plural: "nodes".to_owned(),
        };
        let nodes: Api<DynamicObject> = Api::all_with(cluster.client().clone(), &resource);
        let mut place = Self::default();
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let failed =
                |why: String| Error::Setting(format!("the nodes can't be listed, to know their region: {why}"));
            let list = tokio::time::timeout(ANSWER, nodes.list_metadata(&params)).await;
            let list = list.map_err(|_| failed(format!("no answer within {} s", ANSWER.as_secs())))?;
            let list = list.map_err(|error| failed(error.to_string()))?;
            for node in &list.items {
                place.add(node.metadata.labels.as_ref().unwrap_or(&BTreeMap::new()));
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(place),
            }
        }
    }

    fn add(&mut self, labels: &BTreeMap<String, String>) {
        let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).cloned();
        self.region = self.region.take().or_else(|| first(&["topology.kubernetes.io/region"]));
        let zone = first(&[
            "topology.kubernetes.io/zone",
            "topology.ebs.csi.aws.com/zone",
            "topology.ebs.csi.eks.amazonaws.com/zone",
        ]);
        if let Some(name) = zone {
            self.zones.insert(Zone { name, id: first(&["topology.k8s.aws/zone-id"]).unwrap_or_default() });
        }
    }

    /// The client for the region that the nodes say, or else the environment.
    ///
    /// # Errors
    /// [`Error::Setting`] where nobody says it.
    pub async fn ec2(&self) -> Result<Ec2, Error> {
        let region = match &self.region {
            Some(region) => Some(region.clone()),
            None => Ec2::told_region().await,
        };
        let nobody = || {
            Error::Setting(
                "no node has the label topology.kubernetes.io/region, and AWS_REGION is not set, so the region of the \
                 volumes is not known\nhint: set AWS_REGION (in a Job: `job.env` of the configuration)"
                    .to_owned(),
            )
        };
        Ec2::open(&region.ok_or_else(nobody)?).await
    }
}
