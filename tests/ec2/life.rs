//! What becomes of snapshots after the backup.

use crate::rights::{and, of_ec2, policy, without};
use crate::standin::{Fault, Volume};
use crate::world::{REGION, World};
use kubectl_backup::id::BackupId;
use kubectl_backup::report::Events;
use kubectl_backup::volumes::Error;
use kubectl_backup::volumes::life::{self, Kept, Named, Nobodys, Regions, Standing};
use std::collections::BTreeSet;
use std::time::Duration;

const PLACE: &str = "s3://bucket/prefix";

/// A backup of two volumes.
async fn saved() -> (World, Vec<Named>) {
    let mut world = World::new();
    world.ebs_claim("data", Volume::gp3("vol-01", "eu-central-1a"));
    world.ebs_claim("logs", Volume::gp3("vol-02", "eu-central-1a"));
    let copies = world.backup("a1").await.copies;
    let named = copies.into_iter().map(|copy| Named { region: copy.snapshot.region, id: copy.snapshot.id });
    let named: Vec<Named> = named.collect();
    assert_eq!(named.len(), 2);
    (world, named)
}

async fn kept(world: &World, location: &str, named: &[Named]) -> Result<Vec<Kept>, Error> {
    let mut regions = Regions::with([world.client()]);
    life::of_backup(&mut regions, &world.id, location, named, &BTreeSet::new(), &Events::ignored()).await
}

fn change(world: &World, id: &str, change: impl FnOnce(&mut crate::standin::Snapshot)) {
    world.ec2.in_region(REGION, |region| change(region.snapshots.get_mut(id).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn the_snapshots_of_a_backup_are_found_by_name_and_by_tag_and_go() {
    let (world, named) = saved().await;
    for named in [&named[..], &named[..1], &[]] {
        let found = kept(&world, PLACE, named).await.unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.standing == Standing::Free && one.snapshot.gib == 4), "{found:?}");
    }
    let mut regions = Regions::with([world.client()]);
    let tried = life::remove(&mut regions, &named, true).await.unwrap();
    assert!(tried.iter().all(Result::is_ok) && world.ec2.snapshots(REGION).len() == 2, "{tried:?}");
    // an answer that gets lost and a region that is busy
    world.ec2.fault("DeleteSnapshot", 1, Fault::LoseAnswer);
    let busy = Fault::Refuse { status: 503, code: "RequestLimitExceeded", message: "" };
    world.ec2.fault("DeleteSnapshot", 1, busy);
    for _ in 0..2 {
        let removed = life::remove(&mut regions, &named, false).await.unwrap();
        assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    }
    assert!(world.ec2.snapshots(REGION).is_empty());
    assert!(kept(&world, PLACE, &named).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_not_the_backups_stays_whatever_a_report_says() {
    let (world, mut named) = saved().await;
    // another bucket has a copy of the report
    let found = kept(&world, "s3://copy/prefix", &named).await.unwrap();
    assert!(
        found.iter().all(|one| matches!(&one.standing, Standing::Foreign(why) if why.contains(PLACE))),
        "{found:?}"
    );
    // somebody's snapshot, named by a report
    change(&world, &named[0].id, |snapshot| snapshot.tags.clear());
    let found = kept(&world, PLACE, &named).await.unwrap();
    let foreign: Vec<&Kept> = found.iter().filter(|one| one.standing != Standing::Free).collect();
    assert_eq!(foreign.iter().map(|one| &one.name).collect::<Vec<_>>(), [&named[0]]);
    // one that is gone is no matter
    named[0].id = "snap-0gone".into();
    assert_eq!(kept(&world, PLACE, &named).await.unwrap().len(), 1);
    let other = BackupId::parse("shop-20261120-100000-zzzz").unwrap();
    let mut regions = Regions::with([world.client()]);
    let found =
        life::of_backup(&mut regions, &other, PLACE, &named, &BTreeSet::new(), &Events::ignored()).await.unwrap();
    assert!(found.iter().all(|one| matches!(one.standing, Standing::Foreign(_))), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_holds_a_snapshot_is_known_beforehand_and_told_by_the_refusal() {
    let (world, named) = saved().await;
    change(&world, &named[0].id, |snapshot| snapshot.locked = true);
    change(&world, &named[1].id, |snapshot| snapshot.image = Some("ami-0123".into()));
    let found = kept(&world, PLACE, &named).await.unwrap();
    let why = |id: &str| match &found.iter().find(|one| one.name.id == id).unwrap().standing {
        Standing::Held(why) => why.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&named[0].id), "it is locked (compliance until 2027-11-20T10:00:00Z)");
    assert_eq!(why(&named[1].id), "image `ami-0123` uses it");
    let removed = life::remove(&mut Regions::with([world.client()]), &named, false).await.unwrap();
    let codes: Vec<Option<&str>> = removed.iter().map(|one| one.as_ref().unwrap_err().code()).collect();
    assert_eq!(codes, [Some("OperationNotPermitted"), Some("InvalidSnapshot.InUse")]);
    assert_eq!(world.ec2.snapshots(REGION).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn deleting_needs_two_statements_of_a_backup_and_asks_what_holds_snapshots_with_one_more() {
    let backup = policy("backup-policy.json");
    let whole = and(backup.clone(), &policy("delete-policy.json"));
    let mut needed = Vec::new();
    for sid in std::iter::once(None).chain(of_ec2(&whole).into_iter().map(Some)) {
        let (world, named) = saved().await;
        world.ec2.enforce(sid.as_ref().map_or_else(|| whole.clone(), |sid| without(&whole, sid)));
        let removed = match kept(&world, PLACE, &named).await {
            Ok(found) => {
                let names: Vec<Named> = found.into_iter().map(|one| one.name).collect();
                life::remove(&mut Regions::with([world.client()]), &names, false).await
            }
            Err(error) => Err(error),
        };
        let done = removed.is_ok_and(|removed| removed.iter().all(Result::is_ok));
        let refused = ["DescribeImages", "DescribeLockedSnapshots"].iter().flat_map(|action| world.ec2.calls(action));
        let unasked = refused.filter(|call| call.refused.is_some()).count();
        match sid {
            None => assert!(done && unasked == 0),
            Some(sid) if !done => needed.push(sid),
            Some(sid) => assert_eq!(unasked > 0, sid == "SeeWhatHoldsSnapshots", "{sid}"),
        }
    }
    assert_eq!(needed, ["SeeVolumesAndSnapshots", "RemoveSnapshotsOfNoBackup"]);
}

#[tokio::test(start_paused = true)]
async fn snapshots_without_a_backup_are_found_when_they_are_old_or_being_deleted() {
    let (world, named) = saved().await;
    let begun = world.ec2.snapshots(REGION)[0].started_at;
    let (young, old) = (begun + Duration::from_secs(3600), begun + Duration::from_secs(25 * 3600));
    let none = BTreeSet::new();
    let this: BTreeSet<BackupId> = [world.id.clone()].into();
    let place = "s3://bucket/prefix";
    let cases = [
        ("an old one of no backup", place, &none, &none, old, 2),
        ("its worker may be at it", place, &none, &none, young, 0),
        ("a deletion was begun", place, &none, &this, young, 2),
        ("its backup is there", place, &this, &none, old, 0),
        ("of another location", "s3://bucket/other", &none, &none, old, 0),
    ];
    for (about, location, backups, abandoned, now, expected) in cases {
        let which = Nobodys { cluster_uid: "cluster-uid", location, backups, abandoned, now };
        let found = life::orphans(&world.client(), which).await.unwrap();
        assert_eq!(found.len(), expected, "{about}");
        assert!(found.iter().all(|one| named.iter().any(|name| name.id == one.id)), "{about}");
    }
    // another cluster's
    let which = Nobodys { cluster_uid: "other-uid", location: place, backups: &none, abandoned: &none, now: old };
    assert!(life::orphans(&world.client(), which).await.unwrap().is_empty());
}
