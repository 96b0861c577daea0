//! Volumes made of snapshots.

use crate::standin::{Fault, Settings, Volume};
use crate::world::{REGION, World};
use kubectl_backup::id::BackupId;
use kubectl_backup::report::Events;
use kubectl_backup::rules::volumes::Zone;
use kubectl_backup::volumes::record::VolumeCopy;
use kubectl_backup::volumes::restore::{Examined, Options, Request, Volumes, Way, Wish, examine_with, make};
use kubectl_backup::volumes::{Error, Place};
use std::time::Duration;

/// A backup of two volumes, one of them with a speed and a key of its own.
async fn saved() -> (World, Vec<VolumeCopy>) {
    let mut world = World::new();
    let mut fast = Volume::gp3("vol-0fa57", "eu-central-1b");
    (fast.iops, fast.throughput, fast.gib, fast.kms) = (Some(6000), Some(500), 20, Some("arn:key/1".into()));
    fast.tags.insert("kubernetes.io/cluster/prod".into(), "owned".into());
    world.ebs_claim("data", fast);
    let mut slow = Volume::gp3("vol-0510", "eu-central-1b");
    (slow.kind, slow.iops, slow.throughput, slow.gib) = ("gp2".into(), Some(100), None, 8);
    world.ebs_claim("logs", slow);
    let ended = world.backup("a1").await;
    assert!(ended.problems.is_empty(), "{ended:?}");
    (world, ended.copies)
}

fn place(zones: &[&str]) -> Place {
    let zones = zones.iter().map(|name| Zone { name: (*name).to_owned(), id: String::new() });
    Place { region: Some(REGION.into()), zones: zones.collect() }
}

async fn restored(
    world: &World,
    copies: &[VolumeCopy],
    place: &Place,
    options: &Options,
    uid: &str,
) -> Result<Volumes, Error> {
    restored_as("restore-20261120-110000-abcd", world, copies, place, options, uid).await
}

async fn restored_as(
    id: &str,
    world: &World,
    copies: &[VolumeCopy],
    place: &Place,
    options: &Options,
    uid: &str,
) -> Result<Volumes, Error> {
    let (id, backup) = (BackupId::parse(id).unwrap(), backup_id());
    let events = Events::ignored();
    let request = Request { id: &id, backup: (&backup, "cluster-uid"), cluster_uid: uid, options, events: &events };
    let Examined { ec2, wishes, unusable, .. } = examined(world, copies, place, options).await?;
    assert!(unusable.is_empty(), "{unusable:?}");
    make(ec2, &request, wishes, std::future::pending()).await
}

fn backup_id() -> BackupId {
    BackupId::parse("shop-20261120-100000-k3fa").unwrap()
}

/// What a plan says of volumes.
async fn examined(world: &World, copies: &[VolumeCopy], place: &Place, options: &Options) -> Result<Examined, Error> {
    examined_as(&Way::Made(String::new()), world, copies, place, options).await
}

async fn examined_as(
    way: &Way,
    world: &World,
    copies: &[VolumeCopy],
    place: &Place,
    options: &Options,
) -> Result<Examined, Error> {
    examine_with(world.client(), place, &backup_id(), options, wishes(copies, way)).await
}

fn wishes(copies: &[VolumeCopy], way: &Way) -> Vec<Wish> {
    let wish = |copy: &VolumeCopy| Wish {
        copy: copy.clone(),
        namespace: "shop".into(),
        volume: copy.volume.clone(),
        there: None,
        zone: String::new(),
        way: way.clone(),
    };
    copies.iter().map(wish).collect()
}

/// How many snapshots can be used in this way.
pub(crate) async fn usable(world: &World, copies: &[VolumeCopy], way: &Way) -> Result<usize, Error> {
    let found = examined_as(way, world, copies, &place(&["eu-central-1a"]), &Options::default()).await?;
    assert!(found.wishes.iter().all(|wish| wish.zone.is_empty() == matches!(way, Way::Filled(_))));
    Ok(found.wishes.len())
}

/// Restores into the same cluster, as things were.
pub(crate) async fn restored_all(id: &str, world: &World, copies: &[VolumeCopy]) -> Result<Volumes, Error> {
    restored_as(id, world, copies, &place(&["eu-central-1a"]), &Options::default(), "cluster-uid").await
}

/// The same by another account, in another cluster.
pub(crate) async fn restored_by(account: &str, world: &World, copies: &[VolumeCopy]) -> Result<Volumes, Error> {
    let (id, backup) = (BackupId::parse("restore-20261120-110000-cccc").unwrap(), backup_id());
    let (options, events) = (Options::default(), Events::ignored());
    let uid = "other-uid";
    let request =
        Request { id: &id, backup: (&backup, "cluster-uid"), cluster_uid: uid, options: &options, events: &events };
    let ec2 = world.client_of(account, REGION);
    let examined =
        examine_with(ec2, &place(&["eu-central-1a"]), &backup, &options, wishes(copies, &Way::Made(String::new())))
            .await?;
    assert!(examined.unusable.is_empty(), "{:?}", examined.unusable);
    make(examined.ec2, &request, examined.wishes, std::future::pending()).await
}

/// The volumes that a restore has made.
fn new_volumes(world: &World) -> Vec<Volume> {
    world.ec2.volumes(REGION).into_iter().filter(|volume| volume.snapshot.is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_volume_comes_back_as_it_was_with_the_tags_that_the_driver_needs() {
    let (world, copies) = saved().await;
    let volumes =
        restored(&world, &copies, &place(&["eu-central-1a", "eu-central-1b"]), &Options::default(), "cluster-uid")
            .await
            .unwrap();
    assert_eq!(volumes.made.len(), 2);
    let made = new_volumes(&world);
    let fast = made.iter().find(|volume| volume.gib == 20).unwrap();
    assert_eq!(
        (fast.kind.as_str(), fast.iops, fast.throughput, fast.zone.as_str()),
        ("gp3", Some(6000), Some(500), "eu-central-1b")
    );
    assert_eq!(fast.kms.as_deref(), Some("arn:key/1"));
    let expected = [
        ("ebs.csi.aws.com/cluster", "true"),
        ("CSIVolumeName", "pv-data"),
        ("kubernetes.io/cluster/prod", "owned"),
        ("kubernetes.io/created-for/pvc/namespace", "shop"),
        ("kubernetes.io/created-for/pvc/name", "data"),
        ("kubectl-backup/managed", "true"),
        ("kubectl-backup/id", "shop-20261120-100000-k3fa"),
        ("kubectl-backup/restore", "restore-20261120-110000-abcd"),
    ];
    for (key, value) in expected {
        assert_eq!(fast.tags.get(key).map(String::as_str), Some(value), "{key}");
    }
    let slow = made.iter().find(|volume| volume.gib == 8).unwrap();
    assert_eq!((slow.kind.as_str(), slow.iops), ("gp2", Some(100)));
    // in another cluster the old one's tags would let the old one's driver delete it
    let other = restored(
        &world,
        &copies,
        &place(&["eu-central-1b"]),
        &Options { iops: None, ..Options::default() },
        "other-uid",
    )
    .await;
    let error = other.unwrap_err();
    assert_eq!(error.code(), Some("IdempotentParameterMismatch"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_tried_again_makes_no_second_volume() {
    let (world, copies) = saved().await;
    world.ec2.fault("CreateVolume", 1, Fault::LoseAnswer);
    let place = place(&["eu-central-1b"]);
    let first = restored(&world, &copies, &place, &Options::default(), "cluster-uid").await.unwrap();
    let again = restored(&world, &copies, &place, &Options::default(), "cluster-uid").await.unwrap();
    let ids = |volumes: &Volumes| {
        let mut ids: Vec<String> = volumes.made.iter().map(|one| one.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(new_volumes(&world).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_an_earlier_try_has_bound_is_used_and_anothers_is_not() {
    let (world, copies) = saved().await;
    let place = place(&["eu-central-1b"]);
    let first = restored(&world, &copies, &place, &Options::default(), "cluster-uid").await.unwrap();
    let (id, backup, events, options) =
        (BackupId::parse("restore-20261120-110000-abcd").unwrap(), backup_id(), Events::ignored(), Options::default());
    let request = Request {
        id: &id,
        backup: (&backup, "cluster-uid"),
        cluster_uid: "cluster-uid",
        options: &options,
        events: &events,
    };
    let bound = first.made.iter().find(|one| one.wish.copy.claim == "data").unwrap();
    let wish = Wish { volume: "restored-1".into(), there: Some(bound.id.clone()), ..bound.wish.clone() };
    let again = make(world.client(), &request, vec![wish.clone()], std::future::pending()).await.unwrap();
    assert_eq!((&again.made[0].id, again.made[0].wish.volume.as_str()), (&bound.id, "pv-data"));
    assert_eq!(new_volumes(&world).len(), 2);
    // the volume that was saved lives on: it is not this restore's
    let id = BackupId::parse("restore-20261120-120000-bbbb").unwrap();
    let wish = Wish { there: Some("vol-0fa57".into()), ..wish };
    let beside =
        make(world.client(), &Request { id: &id, ..request }, vec![wish], std::future::pending()).await.unwrap();
    assert_eq!(beside.made[0].wish.volume, "restored-1");
    assert_eq!(new_volumes(&world).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn when_one_volume_cannot_be_made_none_is_left() {
    let (world, copies) = saved().await;
    world.ec2.fault("CreateVolume", 1, Fault::Refuse { status: 400, code: "VolumeLimitExceeded", message: "too many" });
    let error =
        restored(&world, &copies, &place(&["eu-central-1b"]), &Options::default(), "cluster-uid").await.unwrap_err();
    assert!(error.to_string().contains("VolumeLimitExceeded: too many"), "{error}");
    assert!(new_volumes(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_was_made_without_an_answer_is_found_and_removed_too() {
    let (world, copies) = saved().await;
    let begun = copies.len() as u32 * 1000;
    world.ec2.fault("CreateVolume", begun, Fault::LoseAnswer);
    let error =
        restored(&world, &copies, &place(&["eu-central-1b"]), &Options::default(), "cluster-uid").await.unwrap_err();
    assert!(error.to_string().contains("`CreateVolume` in region"), "{error}");
    assert!(new_volumes(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_is_cancelled_on_the_way_leaves_no_volume() {
    let (world, copies) = saved().await;
    let (id, backup, events, options) =
        (BackupId::parse("restore-20261120-110000-abcd").unwrap(), backup_id(), Events::ignored(), Options::default());
    let request = Request {
        id: &id,
        backup: (&backup, "cluster-uid"),
        cluster_uid: "cluster-uid",
        options: &options,
        events: &events,
    };
    let Examined { ec2, wishes, .. } = examined(&world, &copies, &place(&["eu-central-1b"]), &options).await.unwrap();
    // both are made by then, and are on their way
    let error = make(ec2, &request, wishes, tokio::time::sleep(Duration::from_secs(1))).await.unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(world.ec2.calls("CreateVolume").len(), 2);
    assert!(new_volumes(&world).is_empty());
}

#[tokio::test(start_paused = true)]
async fn volumes_that_nothing_refers_to_are_removed_again() {
    let (world, copies) = saved().await;
    let volumes =
        restored(&world, &copies, &place(&["eu-central-1b"]), &Options::default(), "cluster-uid").await.unwrap();
    volumes.remove_unused(|one| one.wish.copy.claim == "data", &Events::ignored()).await;
    assert_eq!(new_volumes(&world).iter().map(|volume| volume.gib).collect::<Vec<_>>(), [20]);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_differs_and_the_rest_stays() {
    let (world, copies) = saved().await;
    let options = Options {
        volume_type: Some("gp3".into()),
        kms_key: Some("arn:key/2".into()),
        map_zone: [("eu-central-1b".to_owned(), "eu-central-1c".to_owned())].into(),
        ..Options::default()
    };
    restored(&world, &copies, &place(&["eu-central-1a", "eu-central-1c"]), &options, "cluster-uid").await.unwrap();
    let mut made = new_volumes(&world);
    made.sort_by_key(|volume| volume.gib);
    let told: Vec<_> =
        made.iter().map(|v| (v.kind.as_str(), v.iops, v.throughput, v.kms.as_deref(), v.zone.as_str())).collect();
    let (key, zone) = (Some("arn:key/2"), "eu-central-1c");
    assert_eq!(told, [("gp3", Some(3000), Some(125), key, zone), ("gp3", Some(6000), Some(500), key, zone)]);
}

#[tokio::test(start_paused = true)]
async fn a_zone_without_nodes_is_left_and_one_that_was_asked_for_is_refused() {
    let (world, copies) = saved().await;
    restored(&world, &copies, &place(&["eu-central-1c"]), &Options::default(), "cluster-uid").await.unwrap();
    assert!(new_volumes(&world).iter().all(|volume| volume.zone == "eu-central-1c"));
    let map_zone = [("eu-central-1b".to_owned(), "eu-central-1x".to_owned())].into();
    let options = Options { map_zone, ..Options::default() };
    let error = restored(&world, &copies, &place(&["eu-central-1c"]), &options, "cluster-uid").await.unwrap_err();
    assert!(
        error.to_string().contains("no node in zone `eu-central-1x`\nhint: it has some in `eu-central-1c`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_used_is_told_with_the_reason_and_the_others_are_usable() {
    let mut world = World::with(Settings { snapshot_takes: Duration::from_secs(600), ..Settings::default() });
    for name in ["vol-0aa", "vol-0bb", "vol-0cc", "vol-0dd", "vol-0ee"] {
        world.ebs_claim(&name[4..], Volume::gp3(name, "eu-central-1a"));
    }
    world.options.wait = false;
    let mut copies = world.backup("a1").await.copies;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let ids: Vec<String> = copies.iter().map(|copy| copy.snapshot.id.clone()).collect();
    world.ec2.in_region(REGION, |region| {
        region.snapshots.remove(&ids[1]);
        let mut shift =
            |id: &str, change: fn(&mut crate::standin::Snapshot)| change(region.snapshots.get_mut(id).unwrap());
        shift(&ids[2], |one| one.takes = Duration::ZERO);
        shift(&ids[3], |one| (one.takes, one.ends_in_error) = (Duration::ZERO, Some("no key".into())));
        // one that was copied here has other tags
        shift(&ids[4], |one| (one.takes, _) = (Duration::ZERO, one.tags.clear()));
    });
    copies.push(copies[2].clone());
    copies[5].snapshot.region = "us-east-1".into();
    let found = examined(&world, &copies, &place(&["eu-central-1a"]), &Options::default()).await.unwrap();
    let told: Vec<String> = found.unusable.into_iter().map(|(_, why)| why.replace("snap-", "")).collect();
    let ids: Vec<&str> = ids.iter().map(|id| id.trim_start_matches("snap-")).collect();
    let expected = [
        format!("its snapshot `{}` is still pending (37%)", ids[0]),
        format!(
            "its snapshot `{}` is not in EC2 any more: somebody has removed it, or account `123456789012` doesn't share it any more",
            ids[1]
        ),
        format!("its snapshot `{}` ended in error, and holds nothing", ids[3]),
        format!(
            "its snapshot `{}` is in region `us-east-1`, and the cluster in `eu-central-1`; `kubectl backup copy --copy-to-region eu-central-1` takes it there",
            ids[2]
        ),
    ];
    assert_eq!(told, expected);
    let usable: Vec<_> = found.wishes.iter().map(|wish| (wish.copy.claim.as_str(), wish.zone.as_str())).collect();
    assert_eq!(usable, [("0cc", "eu-central-1a"), ("0ee", "eu-central-1a")]);
    assert!(world.ec2.calls("CreateVolume").is_empty());
}
