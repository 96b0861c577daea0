//! A cluster with PersistentVolumes, EC2, and a backup of volumes between them.

use crate::standin::{ACCOUNT, Settings, Standin, Volume};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use http::{Request, Response};
use jiff::Timestamp;
use kube::client::Body;
use kubectl_backup::cluster::Cluster;
use kubectl_backup::id::{Attempt, BackupId};
use kubectl_backup::report::{Counts, Events};
use kubectl_backup::resource::Kind;
use kubectl_backup::rules::volumes::Claim;
use kubectl_backup::volumes::Ec2;
use kubectl_backup::volumes::snapshot::{Ended, Options, Request as Asked, Snapshots};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) const REGION: &str = "eu-central-1";
pub(crate) const MACHINE: &str = "i-0aaa";

pub(crate) struct World {
    pub(crate) ec2: Standin,
    pub(crate) cluster: Cluster,
    pub(crate) options: Options,
    claims: Vec<Claim>,
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    begun: Instant,
    pub(crate) id: BackupId,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let begun = Instant::now();
        let ec2 = Standin::new(settings, move || begun.elapsed());
        ec2.in_region(REGION, |region| region.add_instance(MACHINE, "/dev/xvda"));
        ec2.add_volume(REGION, Volume::gp3("vol-0b007", "eu-central-1a").attached_to(MACHINE, "/dev/xvda"));
        let objects = Arc::new(Mutex::new(BTreeMap::new()));
        let cluster = cluster(objects.clone());
        let id = BackupId::parse("shop-20261120-100000-k3fa").unwrap();
        let world = Self { ec2, cluster, options: Options::default(), claims: Vec::new(), objects, begun, id };
        let labels = json!({"topology.kubernetes.io/region": REGION, "topology.kubernetes.io/zone": "eu-central-1a",
                            "topology.k8s.aws/zone-id": "ec1-az1"});
        world.put(
            "/api/v1/nodes",
            json!({"apiVersion": "v1", "kind": "NodeList", "metadata": {},
            "items": [{"metadata": {"name": "node1", "labels": labels}}]}),
        );
        world
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    /// A claim whose volume is any PersistentVolume.
    pub(crate) fn claim(&mut self, name: &str, source: Value) {
        let pv = format!("pv-{name}");
        let mut spec = json!({"capacity": {"storage": "4Gi"}, "accessModes": ["ReadWriteOnce"]});
        spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let object = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": pv}, "spec": spec});
        self.put(&format!("/api/v1/persistentvolumes/{pv}"), object);
        let claim =
            Claim { namespace: "shop".into(), name: name.into(), volume: pv, class: "gp3".into(), ..Claim::default() };
        self.claims.push(claim);
    }

    /// A claim on an EBS volume that EC2 has.
    pub(crate) fn ebs_claim(&mut self, name: &str, volume: Volume) {
        self.claim(name, json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": volume.id}}));
        self.ec2.add_volume(REGION, volume);
    }

    pub(crate) fn client(&self) -> Ec2 {
        Ec2::new(&sdk(&self.ec2), REGION)
    }

    /// The client of another account, and of any region.
    pub(crate) fn client_of(&self, account: &str, region: &str) -> Ec2 {
        Ec2::new(&sdk_of(&self.ec2, account), region)
    }

    /// The client for another region.
    pub(crate) fn client_in(&self, region: &str) -> Ec2 {
        Ec2::new(&sdk(&self.ec2), region)
    }

    /// EC2's time so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What a worker asks for.
    pub(crate) fn asked<'a>(&'a self, attempt: &'a Attempt, kind: &'a Kind, events: &'a Events) -> Asked<'a> {
        Asked {
            id: &self.id,
            attempt,
            location: "s3://bucket/prefix".into(),
            cluster_uid: "cluster-uid",
            cluster: &self.cluster,
            volumes: Some(kind),
            install_namespace: "kubectl-backup",
            options: &self.options,
            events,
        }
    }

    /// All claims, as the lists of a backup hand them over.
    pub(crate) fn listed(&self) -> mpsc::UnboundedReceiver<Claim> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.claims.iter().for_each(|claim| sender.send(claim.clone()).unwrap());
        receiver
    }

    /// What a worker does of a backup: begins, waits, commits, cleans up.
    pub(crate) async fn backup(&self, attempt: &str) -> Ended {
        let (attempt, kind, events) = (Attempt::parse(attempt).unwrap(), volumes_kind(), Events::ignored());
        let mut snapshots = Snapshots::new(self.asked(&attempt, &kind, &events)).with_client(self.client());
        snapshots.start(self.listed()).await;
        snapshots.wait(Counts::default()).await;
        let ended = snapshots.ended();
        let standing: BTreeSet<String> = ended.copies.iter().map(|copy| copy.snapshot.id.clone()).collect();
        snapshots.remove_extras(&standing).await;
        ended
    }
}

/// When the stand-in's clock says so much.
pub(crate) fn at(elapsed: Duration) -> Timestamp {
    "2026-11-20T10:00:00Z".parse::<Timestamp>().unwrap() + elapsed
}

pub(crate) fn volumes_kind() -> Kind {
    Kind {
        group: String::new(),
        version: "v1".into(),
        kind: "PersistentVolume".into(),
        resource: "persistentvolumes".into(),
        namespaced: false,
    }
}

pub(crate) fn sdk(ec2: &Standin) -> SdkConfig {
    sdk_of(ec2, ACCOUNT)
}

fn sdk_of(ec2: &Standin, account: &str) -> SdkConfig {
    let keys = Credentials::new(format!("AKIA{account}"), "hunter2-secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .http_client(ec2.clone())
        .build()
}

/// An API server that has what was put there, and takes what is created.
fn cluster(objects: Arc<Mutex<BTreeMap<String, Value>>>) -> Cluster {
    let service = tower::service_fn(move |request: Request<Body>| {
        let objects = objects.clone();
        async move {
            let found = objects.lock().unwrap().get(request.uri().path()).cloned();
            let (status, body) = match found {
                Some(object) => (200, object),
                None => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "not found"}),
                ),
            };
            let response = Response::builder().status(status).header("content-type", "application/json");
            Ok::<_, std::convert::Infallible>(response.body(Body::from(body.to_string().into_bytes())).unwrap())
        }
    });
    let client = kube::Client::new(service, "default");
    Cluster::new(client.clone(), client)
}
