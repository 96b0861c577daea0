//! One snapshot for each volume, whatever happens between us and EC2.

use crate::standin::{Fault, Settings, Volume};
use crate::world::{MACHINE, REGION, World, at, volumes_kind};
use kubectl_backup::id::Attempt;
use kubectl_backup::report::{Counts, Events};
use kubectl_backup::volumes::record::VolumeCopy;
use kubectl_backup::volumes::snapshot::Snapshots;
use std::collections::BTreeSet;
use std::time::Duration;

fn one_volume() -> World {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    world
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_whose_answer_is_lost_is_found_and_not_made_twice() {
    let world = one_volume();
    world.ec2.fault("CreateSnapshot", 1, Fault::LoseAnswer);
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (1, 0), "{ended:?}");
    assert_eq!((world.ec2.calls("CreateSnapshot").len(), world.ec2.snapshots(REGION).len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_machines_snapshots_whose_answer_is_lost_are_found_too() {
    let mut world = World::new();
    world.ebs_claim("db-0", Volume::gp3("vol-01", "eu-central-1a").attached_to(MACHINE, "/dev/xvdb"));
    world.ebs_claim("db-1", Volume::gp3("vol-02", "eu-central-1a").attached_to(MACHINE, "/dev/xvdc"));
    world.ec2.fault("CreateSnapshots", 1, Fault::LoseAnswer);
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (2, 0), "{ended:?}");
    assert_eq!((world.ec2.calls("CreateSnapshots").len(), world.ec2.snapshots(REGION).len()), (1, 2));
    assert!(ended.copies.iter().all(|copy| copy.snapshot.together_on.as_deref() == Some(MACHINE)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_ec2_lists_too_late_is_made_twice_and_one_is_removed() {
    let mut world = World::with(Settings { hidden_for: Duration::from_secs(25), ..Settings::default() });
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    world.ec2.fault("CreateSnapshot", 1, Fault::LoseAnswer);
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (1, 0), "{ended:?}");
    assert_eq!(world.ec2.calls("DeleteSnapshot").len(), 1);
    let left: Vec<String> = world.ec2.snapshots(REGION).into_iter().map(|snapshot| snapshot.id).collect();
    assert_eq!(left, [ended.copies[0].snapshot.id.clone()]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_goes_on_after_a_killed_one_uses_its_snapshots() {
    let world = one_volume();
    begin(&world, "a1").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ended = world.backup("a2").await;
    let snapshots = world.ec2.snapshots(REGION);
    assert_eq!((snapshots.len(), snapshots[0].tags["kubectl-backup/attempt"].as_str()), (1, "a1"));
    assert_eq!(ended.copies[0].snapshot.id, snapshots[0].id);
}

#[tokio::test(start_paused = true)]
async fn a_killed_workers_snapshot_that_was_not_listed_is_used_in_the_end_and_the_second_one_removed_before_the_commit()
{
    let world = one_volume();
    begin(&world, "a1").await;
    let (attempt, kind, events) = (Attempt::parse("a2").unwrap(), volumes_kind(), Events::ignored());
    let mut snapshots = Snapshots::new(world.asked(&attempt, &kind, &events)).with_client(world.client());
    snapshots.start(world.listed()).await;
    assert_eq!(world.ec2.snapshots(REGION).len(), 2, "EC2 didn't list the first one yet");
    snapshots.wait(Counts::default()).await;
    let left = world.ec2.snapshots(REGION);
    assert_eq!((left.len(), left[0].tags["kubectl-backup/attempt"].as_str()), (1, "a1"), "{left:?}");
    assert_eq!(snapshots.ended().copies[0].snapshot.id, left[0].id);
}

#[tokio::test(start_paused = true)]
async fn two_workers_that_live_at_once_keep_the_same_snapshots_and_remove_none_of_the_others() {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-0aa", "eu-central-1a"));
    let broken = Volume { breaks_snapshots: Some("no key".into()), ..Volume::gp3("vol-0bb", "eu-central-1a") };
    world.ebs_claim("bad", broken);
    let (one, two) = (Attempt::parse("a1").unwrap(), Attempt::parse("a2").unwrap());
    let (kind, events) = (volumes_kind(), Events::ignored());
    let mut first = Snapshots::new(world.asked(&one, &kind, &events)).with_client(world.client());
    let mut second = Snapshots::new(world.asked(&two, &kind, &events)).with_client(world.client());
    let both = async |snapshots: &mut Snapshots<'_>| {
        snapshots.start(world.listed()).await;
        snapshots.wait(Counts::default()).await;
    };
    tokio::join!(both(&mut first), both(&mut second));
    assert_eq!(world.ec2.calls("CreateSnapshot").iter().filter(|call| call.refused.is_none()).count(), 4);
    let copies = |snapshots: &Snapshots<'_>| snapshots.ended().copies;
    let of_data = |copies: Vec<VolumeCopy>| copies.into_iter().find(|copy| copy.claim == "data").unwrap().snapshot.id;
    let kept = |snapshots: &Snapshots<'_>| of_data(copies(snapshots));
    assert_eq!(kept(&first), kept(&second));
    let left: Vec<String> = world.ec2.snapshots(REGION).into_iter().map(|snapshot| snapshot.id).collect();
    assert!(left.contains(&kept(&first)), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_backup_takes_its_own_snapshots_back_and_no_others() {
    let world = one_volume();
    let foreign = World::new().ec2; // another region's, or account's, is never seen
    let (attempt, kind, events) = (Attempt::parse("a1").unwrap(), volumes_kind(), Events::ignored());
    let mut snapshots = Snapshots::new(world.asked(&attempt, &kind, &events)).with_client(world.client());
    snapshots.start(world.listed()).await;
    assert_eq!(world.ec2.snapshots(REGION).len(), 1);
    snapshots.discard().await; // at once: EC2 doesn't list it yet
    assert!(world.ec2.snapshots(REGION).is_empty() && foreign.calls("DeleteSnapshot").is_empty());
}

#[tokio::test(start_paused = true)]
async fn lists_that_start_again_go_on_with_the_snapshots_there_are() {
    let world = one_volume();
    let (attempt, kind, events) = (Attempt::parse("a1").unwrap(), volumes_kind(), Events::ignored());
    let mut snapshots = Snapshots::new(world.asked(&attempt, &kind, &events)).with_client(world.client());
    snapshots.start(world.listed()).await;
    snapshots.start(world.listed()).await;
    assert_eq!((world.ec2.snapshots(REGION).len(), snapshots.ended().copies.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_ec2_puts_off_is_tried_again_and_what_it_forbids_is_a_problem() {
    let world = one_volume();
    let busy = Fault::Refuse { status: 503, code: "RequestLimitExceeded", message: "Request limit exceeded." };
    for action in ["CreateSnapshot", "DescribeVolumes", "DescribeSnapshots"] {
        world.ec2.fault(action, 3, busy.clone());
    }
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (1, 0), "{ended:?}");

    let world = one_volume();
    let message = "You are not authorized to perform this operation. Encoded authorization failure message: AQ0x";
    world.ec2.fault("CreateSnapshot", 9, Fault::Refuse { status: 403, code: "UnauthorizedOperation", message });
    let ended = world.backup("a1").await;
    assert_eq!(world.ec2.calls("CreateSnapshot").len(), 1, "a refusal is not tried again");
    let said = &ended.problems[0].message;
    assert!(said.contains("`CreateSnapshot` in region `eu-central-1` is forbidden: You are not authorized"), "{said}");
    assert!(said.contains("hint: `ec2:CreateSnapshot` is needed") && !said.contains("AQ0x"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn without_the_right_for_several_at_once_each_is_taken_by_itself() {
    let mut world = World::new();
    world.ebs_claim("db-0", Volume::gp3("vol-01", "eu-central-1a").attached_to(MACHINE, "/dev/xvdb"));
    world.ebs_claim("db-1", Volume::gp3("vol-02", "eu-central-1a").attached_to(MACHINE, "/dev/xvdc"));
    world.ec2.fault("CreateSnapshots", 9, Fault::Refuse { status: 403, code: "UnauthorizedOperation", message: "no" });
    let ended = world.backup("a1").await;
    assert_eq!((ended.copies.len(), ended.problems.len()), (2, 0), "{ended:?}");
}

/// A worker that is killed when its snapshots are begun.
async fn begin(world: &World, attempt: &str) {
    let (attempt, kind, events) = (Attempt::parse(attempt).unwrap(), volumes_kind(), Events::ignored());
    let mut snapshots = Snapshots::new(world.asked(&attempt, &kind, &events)).with_client(world.client());
    snapshots.start(world.listed()).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_run_left_is_swept_a_day_later_and_no_sooner() {
    let world = one_volume();
    begin(&world, "a1").await; // and never tried again
    let (attempt, kind, events) = (Attempt::parse("a2").unwrap(), volumes_kind(), Events::ignored());
    let (elsewhere, here) = (BTreeSet::new(), BTreeSet::from([world.id.clone()]));
    let mut later = world.asked(&attempt, &kind, &events);
    later.location = "s3://bucket/prefix".into();
    let snapshots = Snapshots::new(later.clone()).with_client(world.client());
    tokio::time::sleep(Duration::from_secs(23 * 3600)).await;
    snapshots.sweep(&elsewhere, at(world.elapsed())).await;
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    snapshots.sweep(&here, at(world.elapsed())).await;
    later.location = "s3://other".into();
    Snapshots::new(later).with_client(world.client()).sweep(&elsewhere, at(world.elapsed())).await;
    assert_eq!(world.ec2.snapshots(REGION).len(), 1, "too young, in a backup, of another location");
    snapshots.sweep(&elsewhere, at(world.elapsed())).await;
    assert!(world.ec2.snapshots(REGION).is_empty());
}
