//! EC2's limits are kept, and time isn't wasted on them. All times are EC2's.

use crate::standin::{Settings, Volume};
use crate::world::{REGION, World};
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn two_hundred_volumes_are_begun_in_the_time_that_the_limits_allow() {
    let mut world = World::new();
    for number in 0..200 {
        world.ebs_claim(&format!("data-{number}"), Volume::gp3(&format!("vol-0{number:03}"), "eu-central-1a"));
    }
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (200, 0));
    let calls = world.ec2.calls("CreateSnapshot");
    // 100 at once, then 5 a second: 20 s
    let last = calls.iter().map(|call| call.at).max().unwrap();
    assert!((19..=21).contains(&last.as_secs()), "{last:?}");
    assert!(calls.iter().all(|call| call.refused.is_none()), "no call was too many");
    let polls = world.ec2.calls("DescribeSnapshots").len();
    assert!(polls < 20, "one call asks for all: {polls}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_somebody_has_just_snapshotted_is_left_alone_for_its_time() {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    world.ec2.in_region(REGION, |region| region.last_snapshot.insert("vol-0aa".into(), Duration::ZERO));
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (1, 0), "{ended:?}");
    let calls = world.ec2.calls("CreateSnapshot");
    assert_eq!((calls.len(), calls[0].refused.as_deref()), (2, Some("SnapshotCreationPerVolumeRateExceeded")));
    assert!((15..=18).contains(&calls[1].at.as_secs()), "{:?}", calls[1].at);
}

#[tokio::test(start_paused = true)]
async fn a_volume_with_one_pending_snapshot_at_most_waits_for_its_turn() {
    let mut world = World::with(Settings { snapshot_takes: Duration::from_secs(300), ..Settings::default() });
    let mut slow = Volume::gp3("vol-0aa", "eu-central-1a");
    (slow.kind, slow.iops, slow.throughput) = ("st1".into(), None, None);
    world.ebs_claim("logs", slow);
    // another tool's snapshot of the same volume
    let foreign = world.client();
    drop(foreign);
    let body = "Action=CreateSnapshot&VolumeId=vol-0aa";
    world.ec2.answer(REGION, body.as_bytes());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (1, 0), "{ended:?}");
    assert_eq!(ended.copies[0].source.iops, None);
    let ours = world.ec2.calls("CreateSnapshot").pop().unwrap();
    assert!(ours.refused.is_none() && (300..345).contains(&ours.at.as_secs()), "{:?}", ours.at);
}
