//! How soon the snapshots of 200 volumes are begun, by the clock of the stand-in for EC2 that the tests have: what EC2's
//! limits take is the floor. Needs no cluster; nothing is waited for, as that clock stands still but for pauses.

use crate::figures::{Book, Figure, Target};
use crate::standin::Volume;
use crate::world::{REGION, World};
use std::time::Duration;

const VOLUMES: u64 = 200;
/// CreateSnapshot's bucket of tokens: so many at once, and so many a second after that.
const BURST: u64 = 100;
const PER_SECOND: u64 = 5;

/// Measures.
pub(crate) async fn run(figures: &Book) -> anyhow::Result<()> {
    tokio::time::pause();
    let mut world = World::new();
    for number in 0..VOLUMES {
        world.ebs_claim(&format!("data-{number}"), Volume::gp3(&format!("vol-0{number:03}"), "eu-central-1a"));
    }
    let ended = world.backup("a1").await;
    anyhow::ensure!(ended.problems.is_empty(), "not all were saved: {:?}", ended.problems.first());
    anyhow::ensure!(world.ec2.snapshots(REGION).len() as u64 == VOLUMES, "one snapshot for each volume");
    let calls = world.ec2.calls("CreateSnapshot");
    let last = calls.iter().map(|call| call.at).max().unwrap_or_default();
    let floor = Duration::from_secs((VOLUMES - BURST) / PER_SECOND);
    let refused = calls.iter().filter(|call| call.refused.is_some()).count();
    figures.add(&Figure {
        what: format!("snapshots of {VOLUMES} volumes begun, against EC2's limits"),
        objects: VOLUMES,
        measured: last.as_secs_f64() / floor.as_secs_f64(),
        unit: " ×".to_owned(),
        target: Some(Target::AtMost(1.1)),
        detail: format!(
            "{:.1} s of EC2's time, floor {} s; {refused} of {} calls were too many, {} polls",
            last.as_secs_f64(),
            floor.as_secs(),
            calls.len(),
            world.ec2.calls("DescribeSnapshots").len()
        ),
    })
}
