//! Volumes that a restore made, when it is undone.

use crate::restore::restored_all;
use crate::rights::{policy, without};
use crate::standin::Volume;
use crate::world::{MACHINE, REGION, World};
use kubectl_backup::id::BackupId;
use kubectl_backup::report::Events;
use kubectl_backup::volumes::Error;
use kubectl_backup::volumes::life::{Named, Regions};
use kubectl_backup::volumes::removal::{self, Standing};
use std::time::Duration;

const RESTORE: &str = "restore-20261120-110000-abcd";

/// A volume that was saved, and what a restore made of it.
async fn restored() -> (World, Named) {
    let mut world = World::new();
    let mut saved = Volume::gp3("vol-01", "eu-central-1a");
    saved.tags.insert("ebs.csi.aws.com/cluster".into(), "true".into());
    world.ebs_claim("data", saved);
    let copies = world.backup("a1").await.copies;
    let made = restored_all(RESTORE, &world, &copies).await.unwrap().made;
    let named = Named { region: REGION.into(), id: made[0].id.clone() };
    (world, named)
}

async fn look(world: &World, volumes: &[Named]) -> Result<Vec<Standing>, Error> {
    let restore = BackupId::parse(RESTORE).unwrap();
    removal::look(&mut Regions::with([world.client()]), &restore, volumes).await
}

fn attach(world: &World, id: &str, to: Option<&str>) {
    world.ec2.in_region(REGION, |region| {
        region.volumes.get_mut(id).unwrap().attached = to.map(|machine| (machine.to_owned(), "/dev/xvdz".to_owned()));
    });
}

#[tokio::test(start_paused = true)]
async fn only_what_bears_the_tags_of_the_restore_is_its_own() {
    let (world, made) = restored().await;
    let named = |id: &str| Named { region: REGION.into(), id: id.into() };
    let all = [named("vol-01"), made.clone(), named("vol-0gone")];
    let found = look(&world, &all).await.unwrap();
    assert!(matches!(&found[0], Standing::Foreign(why) if why.contains(RESTORE)), "{found:?}");
    assert_eq!(found[1..], [Standing::Ours, Standing::Gone]);
    // another restore's, and one whose mark somebody took off
    let other = BackupId::parse("restore-20261120-120000-bbbb").unwrap();
    let found = removal::look(&mut Regions::with([world.client()]), &other, std::slice::from_ref(&made)).await;
    assert!(matches!(found.unwrap()[0], Standing::Foreign(_)));
    world.ec2.in_region(REGION, |region| {
        region.volumes.get_mut(&made.id).unwrap().tags.remove("kubectl-backup/managed");
    });
    assert!(matches!(look(&world, &[made]).await.unwrap()[0], Standing::Foreign(_)));
}

#[tokio::test(start_paused = true)]
async fn a_volume_goes_once_it_is_detached_and_a_second_time_is_fine() {
    let (world, made) = restored().await;
    attach(&world, &made.id, Some(MACHINE));
    let (client, events, begun) = (world.client(), Events::ignored(), tokio::time::Instant::now());
    let detach = async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        attach(&world, &made.id, None);
    };
    let (removed, ()) = tokio::join!(removal::remove(&client, &made.id, &events), detach);
    removed.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(70), "{:?}", begun.elapsed());
    assert_eq!(look(&world, std::slice::from_ref(&made)).await.unwrap(), [Standing::Gone]);
    removal::remove(&client, &made.id, &events).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_stays_attached_is_told_and_stays() {
    let (world, made) = restored().await;
    attach(&world, &made.id, Some(MACHINE));
    let error = removal::remove(&world.client(), &made.id, &Events::ignored()).await.unwrap_err().to_string();
    assert!(error.contains("is still attached after 420 s") && error.contains("VolumeInUse"), "{error}");
    assert!(error.contains("\nhint: whatever uses it must go first"), "{error}");
    assert_eq!(look(&world, &[made]).await.unwrap(), [Standing::Ours]);
}

#[tokio::test(start_paused = true)]
async fn it_needs_the_rights_of_a_restore_and_no_more() {
    let policy = policy("restore-policy.json");
    let needed = ["SeeVolumesSnapshotsAndZones", "RemoveVolumesThatRestoresMade"];
    for sid in [None, Some(needed[0]), Some(needed[1])] {
        let (world, made) = restored().await;
        world.ec2.enforce(sid.map_or_else(|| policy.clone(), |sid| without(&policy, sid)));
        let looked = look(&world, std::slice::from_ref(&made)).await;
        let removed = removal::remove(&world.client(), &made.id, &Events::ignored()).await;
        let refused = |action| matches!(&action, Err(Error::Forbidden { .. }));
        match sid {
            None => assert!(looked.is_ok() && removed.is_ok(), "{looked:?} {removed:?}"),
            Some(sid) if sid == needed[0] => assert!(refused(looked.map(drop)), "{sid} is not needed"),
            Some(sid) => assert!(refused(removed), "{sid} is not needed"),
        }
    }
}
