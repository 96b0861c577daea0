//! The same calls to somebody else's EC2: moto, which knows neither limits nor lag but reads requests in its own way.

use crate::world::{REGION, World, volumes_kind};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification, VolumeType};
use kubectl_backup::id::{Attempt, BackupId};
use kubectl_backup::report::{Counts, Events};
use kubectl_backup::rules::volumes::Zone;
use kubectl_backup::volumes::record::State;
use kubectl_backup::volumes::restore::{Examined, Options, Request, Way, Wish, examine_with, make};
use kubectl_backup::volumes::snapshot::Snapshots;
use kubectl_backup::volumes::{Ec2, Place};
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Moto(Child, String);

impl Moto {
    /// Starts it; the first time it is installed.
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/moto");
        let mut command = Command::new(script);
        command.arg(free.port().to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut moto = Self(command.spawn().unwrap(), format!("http://{free}"));
        let deadline = Instant::now() + Duration::from_secs(300);
        while TcpStream::connect(free).is_err() {
            assert!(moto.0.try_wait().unwrap().is_none(), "moto ended: run tests/cluster/moto 5555 to see why");
            assert!(Instant::now() < deadline, "waited 300 s for moto, in vain");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        moto
    }

    async fn sdk(&self) -> SdkConfig {
        let keys = Credentials::new("AKIAEXAMPLE", "hunter2-secret", None, None, "test");
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).region(Region::new(REGION));
        config.credentials_provider(keys).endpoint_url(&self.1).load().await
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn moto_understands_a_backup_and_a_restore() {
    let moto = Moto::start();
    let sdk = moto.sdk().await;
    let (plain, ours) = (aws_sdk_ec2::Client::new(&sdk), Ec2::new(&sdk, REGION));
    let tag = Tag::builder().key("ebs.csi.aws.com/cluster").value("true").build();
    let made = plain.create_volume().availability_zone("eu-central-1b").size(7).volume_type(VolumeType::Gp3).iops(4000);
    let tags = TagSpecification::builder().resource_type(ResourceType::Volume).tags(tag).build();
    let made = made.tag_specifications(tags).send().await.unwrap();
    let mut world = World::new();
    let id = made.volume_id().unwrap().to_owned();
    world.claim("data", json!({"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": id}}));

    let (attempt, kind, events) = (Attempt::parse("a1").unwrap(), volumes_kind(), Events::ignored());
    let mut snapshots = Snapshots::new(world.asked(&attempt, &kind, &events)).with_client(ours.clone());
    snapshots.start(world.listed()).await;
    snapshots.wait(Counts::default()).await;
    let ended = snapshots.ended();
    assert!(ended.problems.is_empty(), "{ended:?}");
    let copy = ended.copies[0].clone();
    assert_eq!((copy.source.gib, copy.source.kind.as_str(), copy.source.iops), (7, "gp3", Some(4000)));
    assert_eq!(copy.snapshot.state, State::Completed);

    let zone = Zone { name: "eu-central-1b".to_owned(), id: String::new() };
    let place = Place { region: Some(REGION.into()), zones: [zone].into() };
    let (backup, restore) = (world.id.clone(), BackupId::parse("restore-20261120-110000-abcd").unwrap());
    let wish = Wish {
        volume: copy.volume.clone(),
        copy,
        namespace: "shop".into(),
        there: None,
        zone: String::new(),
        way: Way::Made(String::new()),
    };
    let options = Options::default();
    let found = examine_with(ours, &place, &backup, &options, vec![wish]).await.unwrap();
    let Examined { ec2, wishes, unusable, .. } = found;
    assert!(unusable.is_empty(), "{unusable:?}");
    let request = Request {
        id: &restore,
        backup: (&backup, "cluster-uid"),
        cluster_uid: "cluster-uid",
        options: &options,
        events: &events,
    };
    let volumes = make(ec2, &request, wishes, std::future::pending()).await.unwrap();
    let there = plain.describe_volumes().volume_ids(&volumes.made[0].id).send().await.unwrap();
    let there = &there.volumes()[0];
    assert_eq!((there.size(), there.iops(), there.availability_zone()), (Some(7), Some(4000), Some("eu-central-1b")));
    let tagged = |key: &str| there.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    assert_eq!(tagged("ebs.csi.aws.com/cluster"), Some("true"));
    assert_eq!(tagged("CSIVolumeName"), Some("pv-data"));

    volumes.remove_unused(|_| false, &events).await;
    let left = plain.describe_volumes().send().await.unwrap();
    assert!(left.volumes().iter().all(|one| one.volume_id() != Some(&volumes.made[0].id)));
    snapshots.discard().await;
    let left = plain.describe_snapshots().owner_ids("self").send().await.unwrap();
    assert!(left.snapshots().iter().all(|one| one.volume_id() != Some(&id)));
}
