//! Snapshots copied into another region, for a copied backup.

use crate::rights::{and, of_ec2, policy, without};
use crate::standin::{Fault, Settings, Snapshot, Volume};
use crate::world::{REGION, World};
use kubectl_backup::id::Attempt;
use kubectl_backup::report::Events;
use kubectl_backup::volumes::Error;
use kubectl_backup::volumes::copy::{Request, to_region};
use kubectl_backup::volumes::record::VolumeCopy;
use std::time::Duration;

const OTHER: &str = "eu-west-1";

async fn saved(volumes: usize) -> (World, Vec<VolumeCopy>) {
    let mut world = World::with(Settings { snapshot_takes: Duration::from_secs(60), ..Settings::default() });
    for number in 0..volumes {
        let volume = Volume::gp3(&format!("vol-{number:03}"), "eu-central-1a");
        world.ebs_claim(&format!("data-{number}"), volume);
    }
    let copies = world.backup("a1").await.copies;
    assert_eq!(copies.len(), volumes);
    (world, copies)
}

async fn copied(
    world: &World,
    attempt: &str,
    key: Option<&str>,
    seconds: u64,
    volumes: &[VolumeCopy],
) -> Result<Vec<String>, Error> {
    let (attempt, events) = (Attempt::parse(attempt).unwrap(), Events::ignored());
    let request = Request {
        id: &world.id,
        attempt: &attempt,
        location: "s3://other/prefix".into(),
        cluster_uid: "cluster-uid",
        kms_key: key,
        timeout: Duration::from_secs(seconds),
        events: &events,
    };
    let made = to_region(&world.client_in(OTHER), &request, volumes).await?;
    assert!(made.iter().all(|copy| copy.region == OTHER && copy.full_bytes.is_some()), "{made:?}");
    Ok(made.into_iter().map(|copy| copy.id).collect())
}

fn there(world: &World) -> Vec<Snapshot> {
    world.ec2.snapshots(OTHER)
}

#[tokio::test(start_paused = true)]
async fn snapshots_are_copied_in_their_order_with_tags_of_the_other_location() {
    let (world, volumes) = saved(3).await;
    let ids = copied(&world, "c1", Some("arn:key/2"), 3600, &volumes).await.unwrap();
    let made = there(&world);
    assert_eq!(made.len(), 3);
    for (id, volume) in ids.iter().zip(&volumes) {
        let one = made.iter().find(|one| one.id == *id).unwrap();
        assert_eq!(
            (one.tags["kubectl-backup/copy-of"].as_str(), one.kms.as_deref()),
            (volume.snapshot.id.as_str(), Some("arn:key/2"))
        );
        assert_eq!(one.tags["kubectl-backup/location"], "s3://other/prefix");
        assert_eq!(one.tags["kubectl-backup/managed"], "true");
    }
    // again: the same
    assert_eq!(copied(&world, "c2", None, 3600, &volumes).await.unwrap(), ids);
    assert_eq!(there(&world).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn twenty_are_copied_at_once_and_the_others_wait() {
    let (world, volumes) = saved(50).await;
    let begun = world.elapsed();
    let ids = copied(&world, "c1", None, 3600, &volumes).await.unwrap();
    assert_eq!((ids.len(), there(&world).len()), (50, 50));
    // three rounds of 60 s, each found to be over by a poll; none was refused for being one too many
    let took = world.elapsed() - begun;
    assert!(took < Duration::from_secs(300), "{took:?}");
    let refused = world.ec2.calls("CopySnapshot").into_iter().filter(|call| call.refused.is_some()).count();
    assert!(refused < 5, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_gets_lost_and_a_run_that_is_cut_short_make_no_second_copy() {
    let (world, volumes) = saved(4).await;
    world.ec2.fault("CopySnapshot", 1, Fault::LoseAnswer);
    let text = copied(&world, "c1", None, 30, &volumes).await.unwrap_err().to_string();
    assert!(
        text.contains("0 of 4 snapshots are copied after 30 s") && text.contains("copying again uses them"),
        "{text}"
    );
    let ids = copied(&world, "c2", None, 3600, &volumes).await.unwrap();
    assert_eq!((ids.len(), there(&world).len()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_fails_says_why_and_is_made_anew_when_it_is_tried_again() {
    let (world, volumes) = saved(1).await;
    let text = copied(&world, "c1", Some("arn:key/disabled"), 3600, &volumes).await.unwrap_err().to_string();
    assert!(text.contains("ended in error: the key is disabled"), "{text}");
    assert_eq!(copied(&world, "c2", None, 3600, &volumes).await.unwrap().len(), 1);
    // a snapshot that is gone can't be copied, whatever else is
    world.ec2.in_region(REGION, |region| region.snapshots.clear());
    world.ec2.in_region(OTHER, |region| region.snapshots.clear());
    let error = copied(&world, "c3", None, 3600, &volumes).await.unwrap_err();
    assert_eq!(error.code(), Some("InvalidSnapshot.NotFound"));
}

#[tokio::test(start_paused = true)]
async fn copying_needs_its_policy_and_all_of_it() {
    let another = "CopySnapshotsOfAnotherAccount";
    let whole = and(policy("backup-policy.json"), &without(&policy("copy-policy.json"), another));
    let of_copy = of_ec2(&policy("copy-policy.json"));
    assert_eq!(of_copy.len(), 4);
    // that about another account's has its own test
    let needed = of_copy.into_iter().filter(|sid| sid != another).map(Some);
    for sid in std::iter::once(None).chain(needed) {
        let (world, volumes) = saved(2).await;
        world.ec2.enforce(sid.as_ref().map_or_else(|| whole.clone(), |sid| without(&whole, sid)));
        let made = copied(&world, "c1", None, 3600, &volumes).await;
        assert_eq!(made.is_ok(), sid.is_none(), "{sid:?}: {made:?}");
        // somebody else's snapshot
        world.ec2.in_region(REGION, |region| region.snapshots.values_mut().for_each(|one| one.tags.clear()));
        world.ec2.in_region(OTHER, |region| region.snapshots.clear());
        let foreign = copied(&world, "c2", None, 3600, &volumes).await;
        assert!(matches!(foreign, Err(Error::Forbidden { .. })), "{foreign:?}");
    }
}
