//! Writers that change three kinds in a fixed order, and the states that they never make.

use crate::api::{Api, KINDS, Kind};
use crate::engine::{Backup, Before};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Objects of each kind that stay, so that what the writers change is spread over several pages.
pub(crate) const STAYING: u64 = 64;
/// Writers at work.
const WRITERS: u64 = 3;

/// The object of each kind that carries a writer's number. It sorts first for Secrets and last for Orders, so that one
/// step of a writer changes objects on the first and on the last page.
fn counter(kind: Kind, writer: u64) -> String {
    let place = match kind {
        Kind::Secret => "00",
        Kind::ConfigMap => "50",
        Kind::Order => "99",
    };
    format!("{place}-counter-{writer}")
}

/// Writers, until they are told to stop. They write once for every second request of a backup, so that every backup has
/// writes all along, and the machine is not busy with those between two backups.
pub(crate) struct Writers {
    stop: Arc<AtomicBool>,
    pace: Arc<Semaphore>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Makes what stays, and sets the writers to work.
    pub(crate) async fn start(api: &Api) -> Self {
        for kind in KINDS {
            for number in 0..STAYING {
                api.create(kind, &format!("{number:02}-stays")).await;
            }
            for writer in 0..WRITERS {
                api.create(kind, &counter(kind, writer)).await;
            }
        }
        let (stop, pace) = (Arc::new(AtomicBool::new(false)), Arc::new(Semaphore::new(0)));
        let one = |writer| tokio::spawn(write(api.clone(), writer, stop.clone(), pace.clone()));
        let tasks = (0..WRITERS).map(one).collect();
        Self { stop, pace, tasks }
    }

    /// Lets them write as often as requests are seen.
    pub(crate) fn paced(&self) -> Before {
        let (pace, requests) = (self.pace.clone(), AtomicU64::new(0));
        Arc::new(move |_| {
            if requests.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
                pace.add_permits(1);
            }
            Box::pin(std::future::ready(()))
        })
    }

    /// Waits until all have ended a round.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.pace.close();
        for task in self.tasks {
            task.await.expect("a writer that wrote to its end");
        }
    }
}

/// A Secret, a ConfigMap that belongs to it, an Order that belongs to that; a number on one object of each in the same
/// order; then away with the three in the other order.
async fn write(api: Api, writer: u64, stop: Arc<AtomicBool>, pace: Arc<Semaphore>) {
    // a closed semaphore lets the last round end
    let turn = async || drop(pace.acquire().await.map(tokio::sync::SemaphorePermit::forget));
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let name = format!("{:02}-chain-{writer}-{round}", (round * 37 + writer * 11) % STAYING);
        for kind in KINDS {
            turn().await;
            api.create(kind, &name).await;
        }
        for kind in KINDS {
            turn().await;
            api.number(kind, &counter(kind, writer), round).await;
        }
        for kind in KINDS.into_iter().rev() {
            turn().await;
            api.delete(kind, &name).await;
        }
    }
}

fn number(objects: &BTreeMap<&str, &Value>, name: &str) -> u64 {
    let object = objects.get(name).unwrap_or_else(|| panic!("{name} is not in the backup"));
    object["metadata"]["annotations"]["number"].as_str().map_or(0, |text| text.parse().expect("a number"))
}

/// What a backup shows that never was.
pub(crate) fn never_was(backup: &Backup) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in KINDS.windows(2) {
        let (earlier, later) = (backup.of(pair[0].key()), backup.of(pair[1].key()));
        let alone = later.keys().filter(|name| name.contains("-chain-") && !earlier.contains_key(*name));
        wrong.extend(alone.map(|name| format!("the {:?} {name} without its {:?}", pair[1], pair[0])));
        for writer in 0..WRITERS {
            let before = number(&earlier, &counter(pair[0], writer));
            let after = number(&later, &counter(pair[1], writer));
            if !(after..=after + 1).contains(&before) {
                wrong.push(format!("{:?} of round {after} with {:?} of round {before}", pair[1], pair[0]));
            }
        }
    }
    wrong
}
