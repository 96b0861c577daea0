//! A stand-in for the EC2 API: the Query protocol for the calls that snapshots and volumes need, with what makes the real
//! one hard. Volumes and snapshots are entries in memory; where a folder is given, volumes are files in it and a snapshot
//! is a copy. Time is whatever clock it is given. `README.md` lists what is modelled, with sources.

// two test binaries share it, and neither needs all of it
#![allow(dead_code)]

mod instances;
mod limits;
mod model;
mod policy;
mod query;
pub(crate) mod server;
mod sharing;
mod snapshots;
mod volumes;

use limits::Limits;
use model::Region;
pub(crate) use model::{ACCOUNT, Snapshot, Volume, default_key};
use query::Query;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How the stand-in behaves where EC2 leaves it open.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// From `pending` to `completed`.
    pub(crate) snapshot_takes: Duration,
    /// How long a new snapshot is missing from lists by filter, and unknown by its id.
    pub(crate) hidden_for: Duration,
    /// From `creating` to `available`.
    pub(crate) volume_takes: Duration,
    /// When its clock says 0.
    pub(crate) began: jiff::Timestamp,
    /// Where volumes and snapshots are files named after their ids.
    pub(crate) folder: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let s = Duration::from_secs;
        let began = "2026-11-20T10:00:00Z".parse().expect("a time");
        Self { snapshot_takes: s(60), hidden_for: s(3), volume_takes: s(2), began, folder: None }
    }
}

/// What is done to a request instead of answering it plainly.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It has no effect and gets this error.
    Refuse { status: u16, code: &'static str, message: &'static str },
    /// It has its effect, and the answer gets lost.
    LoseAnswer,
}

/// An answer; `None`: the connection breaks.
pub(crate) type Answer = Option<(u16, String)>;

/// An error of EC2: status, code, message.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) &'static str, pub(crate) String);

pub(crate) fn refuse<T>(code: &'static str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(400, code, message.into()))
}

/// Who asks, where and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) now: Duration,
    pub(crate) account: &'a str,
    pub(crate) region: &'a str,
}

/// One call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) account: String,
    pub(crate) region: String,
    pub(crate) action: String,
    pub(crate) query: Query,
    /// The error's code, where there was one.
    pub(crate) refused: Option<String>,
}

pub(crate) struct State {
    settings: Settings,
    regions: BTreeMap<String, Region>,
    faults: Vec<(String, u32, Fault)>,
    calls: Vec<Call>,
    limits: Limits,
    /// By account.
    policies: BTreeMap<String, serde_json::Value>,
    /// Beginnings of access keys, and the accounts of those who have such.
    identities: Vec<(String, String)>,
    next: u64,
    /// By volume: for how long the answer of a CreateSnapshot is on its way.
    slow: BTreeMap<String, Duration>,
}

/// The stand-in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Standin {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Standin {
    /// `clock` tells the time since the stand-in began.
    pub(crate) fn new(settings: Settings, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let state = State {
            settings,
            regions: BTreeMap::new(),
            faults: Vec::new(),
            calls: Vec::new(),
            limits: Limits::default(),
            policies: BTreeMap::new(),
            identities: Vec::new(),
            next: 0,
            slow: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), clock: Arc::new(clock) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the next calls of an action.
    pub(crate) fn fault(&self, action: &str, times: u32, fault: Fault) {
        self.state().faults.push((action.to_owned(), times, fault));
    }

    /// Does something to the next calls that name this: others use the stand-in meanwhile.
    pub(crate) fn fault_about(&self, name: &str, times: u32, fault: Fault) {
        self.state().faults.push((name.to_owned(), times, fault));
    }

    /// From now on the answer of a CreateSnapshot of a volume takes so long, over HTTP.
    pub(crate) fn slow_down(&self, volume: &str, takes: Duration) {
        self.state().slow.insert(volume.to_owned(), takes);
    }

    /// How long the answer to a request is on its way.
    fn on_its_way(&self, body: &[u8]) -> Duration {
        let query = Query::parse(body);
        let begins = query.get("Action") == Some("CreateSnapshot");
        let volume = query.get("VolumeId").filter(|_| begins).unwrap_or_default();
        self.state().slow.get(volume).copied().unwrap_or_default()
    }

    /// From now on only this IAM policy allows calls of the first account.
    pub(crate) fn enforce(&self, policy: serde_json::Value) {
        self.enforce_for(ACCOUNT, policy);
    }

    /// The same for another account.
    pub(crate) fn enforce_for(&self, account: &str, policy: serde_json::Value) {
        self.state().policies.insert(account.to_owned(), policy);
    }

    /// From now on access keys that begin so are of this account.
    pub(crate) fn belongs(&self, keys: &str, account: &str) {
        self.state().identities.push((keys.to_owned(), account.to_owned()));
    }

    /// The account of an access key: `AKIA` and the account itself, where nothing else was told; else the first.
    fn account_of(&self, key: &str) -> String {
        if let Some((_, account)) = self.state().identities.iter().find(|(beginning, _)| key.starts_with(beginning)) {
            return account.clone();
        }
        let account =
            key.strip_prefix("AKIA").filter(|rest| rest.len() == 12 && rest.bytes().all(|b| b.is_ascii_digit()));
        account.unwrap_or(ACCOUNT).to_owned()
    }

    /// The calls so far, those of one action.
    pub(crate) fn calls(&self, action: &str) -> Vec<Call> {
        self.state().calls.iter().filter(|call| call.action == action).cloned().collect()
    }

    /// Changes a region, which begins with three zones.
    pub(crate) fn in_region<T>(&self, name: &str, change: impl FnOnce(&mut Region) -> T) -> T {
        change(self.state().region(name))
    }

    /// Adds a volume that was always there.
    pub(crate) fn add_volume(&self, region: &str, volume: Volume) {
        let mut state = self.state();
        if let Some(folder) = &state.settings.folder {
            let file = folder.join(format!("{}.img", volume.id));
            if !file.exists() {
                let made = std::fs::File::create(&file).expect("a file for a volume");
                made.set_len(volume.gib << 30).expect("a length");
            }
        }
        state.note_tags(&volume);
        state.region(region).volumes.insert(volume.id.clone(), volume);
    }

    /// The snapshots of a region that were not deleted.
    pub(crate) fn snapshots(&self, region: &str) -> Vec<Snapshot> {
        self.state().region(region).snapshots.values().cloned().collect()
    }

    /// The volumes of a region.
    pub(crate) fn volumes(&self, region: &str) -> Vec<Volume> {
        self.state().region(region).volumes.values().cloned().collect()
    }

    /// Answers a request of the first account.
    pub(crate) fn answer(&self, region: &str, body: &[u8]) -> Answer {
        self.answer_to(ACCOUNT, region, body)
    }

    /// Answers a request.
    pub(crate) fn answer_to(&self, account: &str, region: &str, body: &[u8]) -> Answer {
        let now = (self.clock)();
        let asked = Asked { now, account, region };
        let query = Query::parse(body);
        let action = query.get("Action").unwrap_or_default().to_owned();
        let mut state = self.state();
        state.look_for_attachments(region);
        let fault = state.take_fault(&action, &query);
        let result = match &fault {
            Some(Fault::Refuse { status, code, message }) => Err(Refusal(*status, code, (*message).to_owned())),
            _ => state.act(asked, &action, &query),
        };
        let refused = result.as_ref().err().map(|refusal| refusal.1.to_owned());
        let (account, region, of) = (account.to_owned(), region.to_owned(), action.clone());
        state.calls.push(Call { at: now, account, region, action: of, query, refused });
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return None;
        }
        Some(match result {
            Ok(inner) => (
                200,
                format!(
                    "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>{inner}</{action}Response>"
                ),
            ),
            Err(Refusal(status, code, message)) => (
                status,
                format!(
                    "<Response><Errors><Error><Code>{code}</Code><Message>{}</Message></Error></Errors><RequestID>r</RequestID></Response>",
                    model::escape(&message)
                ),
            ),
        })
    }
}

impl State {
    fn region(&mut self, name: &str) -> &mut Region {
        self.regions.entry(name.to_owned()).or_insert_with(|| Region::new(name))
    }

    /// Where volumes are files, a file beside one says what the stand-in for the CSI driver may do with it.
    fn note_tags(&self, volume: &Volume) {
        let Some(folder) = &self.settings.folder else { return };
        let tags: String = volume.tags.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        std::fs::write(folder.join(format!("{}.tags", volume.id)), tags).expect("a file for tags");
    }

    /// And another one, where that driver has attached it.
    fn look_for_attachments(&mut self, region: &str) {
        let Some(folder) = self.settings.folder.clone() else { return };
        for volume in self.region(region).volumes.values_mut() {
            let attached = std::fs::read_to_string(folder.join(format!("{}.attached", volume.id))).ok();
            volume.attached = attached.map(|instance| (instance, format!("/dev/xvd-{}", volume.id)));
        }
    }

    fn take_fault(&mut self, action: &str, query: &Query) -> Option<Fault> {
        let at = self.faults.iter().position(|(of, times, _)| *times > 0 && (of == action || query.names(of)))?;
        self.faults[at].1 -= 1;
        Some(self.faults[at].2.clone())
    }

    fn new_id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}-{:017x}", self.next + 0x0a00_0000_0000)
    }

    fn act(&mut self, asked: Asked<'_>, action: &str, query: &Query) -> Result<String, Refusal> {
        self.limits.take(asked, action, query)?;
        self.authorize(asked, action, query)?;
        let writes = !action.starts_with("Describe");
        if writes && query.get("DryRun") == Some("true") {
            return Err(Refusal(
                412,
                "DryRunOperation",
                "Request would have succeeded, but DryRun flag is set.".into(),
            ));
        }
        match action {
            "DescribeVolumes" => self.describe_volumes(asked, query),
            "DescribeSnapshots" => self.describe_snapshots(asked, query),
            "DescribeSnapshotAttribute" => self.describe_snapshot_attribute(asked, query),
            "DescribeLockedSnapshots" => self.describe_locks(asked, query),
            "DescribeImages" => self.describe_images(asked, query),
            "DescribeInstances" => self.describe_instances(asked, query),
            "DescribeAvailabilityZones" => self.describe_zones(asked.region),
            "CreateSnapshot" => self.create_snapshot(asked, query),
            "CreateSnapshots" => self.create_snapshots(asked, query),
            "CopySnapshot" => self.copy_snapshot(asked, query),
            "ModifySnapshotAttribute" => self.modify_snapshot_attribute(asked, query),
            "DeleteSnapshot" => self.delete_snapshot(asked, query),
            "CreateVolume" => self.create_volume(asked, query),
            "DeleteVolume" => self.delete_volume(asked, query),
            "CreateTags" => self.create_tags(asked, query),
            other => refuse("InvalidAction", format!("The action {other} is not valid for this web service.")),
        }
    }
}
