//! Snapshots of one account that another one copies, or restores from.

use crate::restore::restored_by;
use crate::rights::{and, of_ec2, policy, without};
use crate::standin::{ACCOUNT, Fault, Settings, Volume, default_key};
use crate::world::{REGION, World};
use kubectl_backup::id::Attempt;
use kubectl_backup::report::Events;
use kubectl_backup::volumes::Error;
use kubectl_backup::volumes::copy::{Request, to_region};
use kubectl_backup::volumes::life::{Named, Regions};
use kubectl_backup::volumes::record::{Snapshot, VolumeCopy};
use kubectl_backup::volumes::share;
use std::collections::BTreeSet;
use std::time::Duration;

const OTHER: &str = "222222222222";
const PLACE: &str = "s3://bucket/prefix";

/// A backup of two volumes, one of them encrypted with a key.
async fn saved(key: Option<&str>) -> (World, Vec<VolumeCopy>, Vec<Named>) {
    let mut world = World::with(Settings::default());
    for name in ["data", "logs"] {
        let mut volume = Volume::gp3(&format!("vol-{name}"), "eu-central-1a");
        volume.tags.insert("ebs.csi.aws.com/cluster".into(), "true".into());
        volume.kms = key.filter(|_| name == "data").map(str::to_owned);
        world.ebs_claim(name, volume);
    }
    let copies = world.backup("a1").await.copies;
    assert!(copies.iter().all(|copy| copy.snapshot.account == ACCOUNT), "{copies:?}");
    let named = copies.iter().map(|copy| Named { region: REGION.into(), id: copy.snapshot.id.clone() }).collect();
    (world, copies, named)
}

fn ours(world: &World) -> Regions {
    Regions::with([world.client()])
}

fn theirs(world: &World) -> Regions {
    Regions::with([world.client_of(OTHER, REGION)])
}

fn shared_with(world: &World) -> BTreeSet<String> {
    world.ec2.snapshots(REGION).into_iter().flat_map(|snapshot| snapshot.shared_with).collect()
}

/// Copied by the other account.
async fn copied(world: &World, copies: &[VolumeCopy], key: Option<&str>) -> Result<Vec<Snapshot>, Error> {
    let (attempt, events) = (Attempt::parse("c1").unwrap(), Events::ignored());
    let request = Request {
        id: &world.id,
        attempt: &attempt,
        location: "s3://vault".into(),
        cluster_uid: "cluster-uid",
        kms_key: key,
        timeout: Duration::from_secs(3600),
        events: &events,
    };
    to_region(&world.client_of(OTHER, REGION), &request, copies).await
}

#[tokio::test(start_paused = true)]
async fn what_is_shared_is_copied_into_the_other_accounts_own_with_a_key_of_its_own() {
    let customers = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/1");
    let (world, copies, named) = saved(Some(&customers)).await;
    world.ec2.in_region(REGION, |region| region.key_users.entry(customers.clone()).or_default().insert(OTHER.into()));
    let unseen = share::unseen(&mut theirs(&world), &copies).await.unwrap();
    assert_eq!(unseen, copies);
    assert_eq!(copied(&world, &copies, None).await.unwrap_err().code(), Some("InvalidSnapshot.NotFound"));

    let owned = share::owned(&mut ours(&world), &world.id, PLACE, &copies).await.unwrap();
    assert_eq!((owned[0].account.as_str(), owned[0].kms_key.as_ref()), (ACCOUNT, Some(&customers)));
    share::share(&mut ours(&world), &named, OTHER).await.unwrap();
    share::seen(&mut theirs(&world), &copies).await.unwrap();
    assert_eq!(shared_with(&world), [OTHER.to_owned()].into());
    let key = format!("arn:aws:kms:{REGION}:{OTHER}:key/2");
    let made = copied(&world, &copies, Some(&key)).await.unwrap();
    assert!(made.iter().all(|copy| copy.account == OTHER && copy.kms_key.as_ref() == Some(&key)), "{made:?}");
    assert!(share::end(&mut ours(&world), &named, OTHER).await.is_empty());
    assert_eq!(share::unseen(&mut theirs(&world), &copies).await.unwrap().len(), 2);

    // the originals go, and the copies stay
    world.ec2.in_region(REGION, |region| region.snapshots.retain(|_, snapshot| snapshot.account == OTHER));
    assert!(share::end(&mut ours(&world), &named, OTHER).await.is_empty(), "nothing is left to take back");
    let there = |(copy, made): (&VolumeCopy, Snapshot)| {
        let mut copy = copy.clone();
        (copy.source.kms_key_id, copy.snapshot) = (made.kms_key.clone(), made);
        copy
    };
    let restorable: Vec<VolumeCopy> = copies.iter().zip(made).map(there).collect();
    let made = restored_by(OTHER, &world, &restorable).await.unwrap().made;
    let volumes = world.ec2.volumes(REGION);
    let of_theirs = |id: &String| volumes.iter().any(|volume| volume.id == *id && volume.account == OTHER);
    assert!(made.len() == 2 && made.iter().all(|one| of_theirs(&one.id)), "{made:?}");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_with_the_default_key_is_refused_with_a_way_out_and_none_stays_shared() {
    let (world, _, mut named) = saved(Some(&default_key(REGION, ACCOUNT))).await;
    named.reverse();
    let text = share::share(&mut ours(&world), &named, OTHER).await.unwrap_err().to_string();
    for part in ["EBS default key cannot be shared", "\nhint: ", "--kms-key KEY", OTHER] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(shared_with(&world), BTreeSet::new(), "the other one isn't shared any more");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_other_account_may_not_use_is_named_as_the_reason() {
    let (world, copies, named) = saved(Some(&format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/1"))).await;
    share::share(&mut ours(&world), &named, OTHER).await.unwrap();
    let text = copied(&world, &copies, None).await.unwrap_err().to_string();
    assert!(text.contains("Given key ID is not accessible\nhint: ") && text.contains("kms:CreateGrant"), "{text}");
    let text = restored_by(OTHER, &world, &copies).await.unwrap_err().to_string();
    assert!(text.contains("vanished") && text.contains("KMS key"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn only_a_backups_own_snapshots_are_shared() {
    let (world, copies, _) = saved(None).await;
    let told = share::owned(&mut ours(&world), &world.id, "s3://copy", &copies).await.unwrap_err().to_string();
    assert!(told.contains(PLACE), "{told}");
    world.ec2.in_region(REGION, |region| region.snapshots.values_mut().for_each(|one| one.tags.clear()));
    let told = share::owned(&mut ours(&world), &world.id, PLACE, &copies).await.unwrap_err().to_string();
    assert!(told.contains("somebody else's"), "{told}");
    let told = share::owned(&mut theirs(&world), &world.id, PLACE, &copies).await.unwrap_err().to_string();
    assert!(told.contains("not there any more"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_get_lost_leave_nothing_shared_that_is_not_to_be() {
    let (world, _, named) = saved(None).await;
    world.ec2.fault("ModifySnapshotAttribute", 1, Fault::LoseAnswer);
    share::share(&mut ours(&world), &named, OTHER).await.unwrap();
    world.ec2.fault("ModifySnapshotAttribute", 1, Fault::LoseAnswer);
    assert!(share::end(&mut ours(&world), &named, OTHER).await.is_empty());
    assert_eq!(shared_with(&world), BTreeSet::new());
    // EC2 has shared the second one, and says nothing for longer than anybody asks
    world.ec2.fault_about(&named[1].id, 1, Fault::LoseAnswer);
    let busy = Fault::Refuse { status: 503, code: "Unavailable", message: "" };
    world.ec2.fault_about(&named[1].id, 30, busy);
    share::share(&mut ours(&world), &named, OTHER).await.unwrap_err();
    assert_eq!(shared_with(&world), BTreeSet::new());
}

#[tokio::test(start_paused = true)]
async fn sharing_needs_its_policy_and_all_of_it_in_both_accounts() {
    let sharing = and(policy("backup-policy.json"), &policy("share-policy.json"));
    let copying = and(policy("backup-policy.json"), &policy("copy-policy.json"));
    let restoring = and(policy("restore-policy.json"), &policy("restore-shared-policy.json"));
    let needed: Vec<(&str, &str)> = vec![
        ("share-policy.json", "ShareSnapshotsOfBackups"),
        ("copy-policy.json", "CopySnapshotsOfAnotherAccount"),
        ("restore-shared-policy.json", "UseSnapshotsOfAnotherAccount"),
    ];
    for (file, sid) in std::iter::once(("", "")).chain(needed) {
        let without =
            |whole: &serde_json::Value, of: &str| if file == of { without(whole, sid) } else { whole.clone() };
        let (world, copies, named) = saved(None).await;
        world.ec2.enforce(without(&sharing, "share-policy.json"));
        world.ec2.enforce_for(OTHER, without(&copying, "copy-policy.json"));
        let shared = share::share(&mut ours(&world), &named, OTHER).await;
        assert_eq!(shared.is_ok(), file != "share-policy.json", "{shared:?}");
        if shared.is_err() {
            continue;
        }
        let made = copied(&world, &copies, None).await;
        assert_eq!(made.is_ok(), file != "copy-policy.json", "{made:?}");
        world.ec2.enforce_for(OTHER, without(&restoring, "restore-shared-policy.json"));
        let restored = restored_by(OTHER, &world, &copies).await;
        assert_eq!(restored.is_ok(), file != "restore-shared-policy.json", "{restored:?}");
        assert!(share::end(&mut ours(&world), &named, OTHER).await.is_empty());
    }
    assert_eq!(of_ec2(&policy("share-policy.json")).len() + of_ec2(&policy("restore-shared-policy.json")).len(), 2);
    // somebody else's snapshots can't be given away, nor a third account's be copied or used
    let (world, copies, named) = saved(None).await;
    world.ec2.enforce(sharing);
    world.ec2.in_region(REGION, |region| region.snapshots.values_mut().for_each(|one| one.tags.clear()));
    assert!(matches!(share::share(&mut ours(&world), &named, OTHER).await, Err(Error::Forbidden { .. })));
    let third = |snapshot: &mut crate::standin::Snapshot| {
        (snapshot.account, snapshot.shared_with) = ("333333333333".into(), [OTHER.into()].into());
    };
    world.ec2.in_region(REGION, |region| region.snapshots.values_mut().for_each(third));
    world.ec2.enforce_for(OTHER, and(copying, &restoring));
    assert!(matches!(copied(&world, &copies, None).await, Err(Error::Forbidden { .. })));
    assert!(matches!(restored_by(OTHER, &world, &copies).await, Err(Error::Forbidden { .. })));
}
