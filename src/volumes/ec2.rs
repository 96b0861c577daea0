//! One EC2 client for one region: the calls that volumes need, as plain values, with the retry policy that the SDK lacks.

mod life;

use super::Error;
use super::ask::{Machine, NewVolume, VALUES, VolumeState};
use super::fault::{Class, class};
use super::pace::Pace;
use super::record::{EbsVolume, Snapshot, State};
use crate::aws::{self, Access};
use crate::rules::marks::ID;
use crate::rules::volumes::Zone;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{Region, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::types::{
    Filter, InstanceSpecification, ResourceType, SnapshotState, Tag, TagSpecification, VolumeType,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time for one answer.
const ANSWER: Duration = Duration::from_secs(30);
/// For how long a call is tried that EC2 doesn't answer, or puts off.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Entries of one page; EC2 takes 1,000.
const PAGE: i32 = 1000;

/// EC2 in one region.
#[derive(Clone, Debug)]
pub struct Ec2 {
    client: Client,
    region: String,
    creates: Arc<Pace>,
}

fn filter(name: &str, values: impl IntoIterator<Item = String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().collect())).build()
}

fn tagged(of: ResourceType, tags: &BTreeMap<String, String>) -> TagSpecification {
    let tag = |(key, value): (&String, &String)| Tag::builder().key(key).value(value).build();
    TagSpecification::builder().resource_type(of).set_tags(Some(tags.iter().map(tag).collect())).build()
}

impl Ec2 {
    /// The client for a region, with the credentials and settings that the environment names. Asks nothing yet.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub async fn open(region: &str) -> Result<Self, Error> {
        Self::open_with(region, &Access::Environment).await
    }

    pub(super) async fn open_with(region: &str, access: &Access) -> Result<Self, Error> {
        let sdk = aws::sdk_config(region, access).await.map_err(|error| Error::Setting(error.to_string()))?;
        Ok(Self::new(&sdk, region))
    }

    /// The region that the environment or the profile names.
    pub async fn told_region() -> Option<String> {
        aws::told_region().await
    }

    /// The client with credentials and HTTP client of `sdk`. Retries and deadlines are ours.
    pub fn new(sdk: &SdkConfig, region: &str) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(aws::CONNECT).operation_attempt_timeout(ANSWER).build();
        let config = aws_sdk_ec2::config::Builder::from(sdk)
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        Self { client: Client::from_conf(config.build()), region: region.to_owned(), creates: Arc::new(Pace::new()) }
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Tries a call until it succeeds, fails for good, or patience ends. `repeatable`: doing it twice does no harm.
    async fn call<T, E, Answer>(
        &self,
        action: &'static str,
        patience: Duration,
        repeatable: bool,
        attempt: impl Fn() -> Answer,
    ) -> Result<T, Error>
    where
        Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let begun = Instant::now();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let (class, error) = self.judge(action, &error);
            let ends = match class {
                Class::Final | Class::Forbidden | Class::Credentials => true,
                Class::Unsure if !repeatable => true,
                _ => begun.elapsed() >= patience,
            };
            if ends {
                return Err(error);
            }
            let pause = class.pause(attempts);
            tracing::debug!(action, attempts, ?pause, %error, "EC2 is tried again");
            sleep(pause).await;
        }
    }

    fn judge<E>(&self, action: &'static str, error: &SdkError<E, HttpResponse>) -> (Class, Error)
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if let Some(refusal) = aws::about_credentials(error) {
            let class = if refusal.transient { Class::Throttled } else { Class::Credentials };
            return (class, Error::Credentials { text: refusal.text, hint: refusal.hint });
        }
        let region = self.region.clone();
        let SdkError::ServiceError(service) = error else {
            let connecting = matches!(error, SdkError::DispatchFailure(failure) if failure.is_user());
            let class = if connecting { Class::Final } else { Class::Unsure };
            return (class, Error::Unavailable { action, region, why: aws::causes(error), unsure: true });
        };
        let (status, code) = (service.raw().status().as_u16(), service.err().code().unwrap_or_default());
        let said = service.err().message().unwrap_or_default();
        // an encoded message is long and says nothing to a person
        let said = said.split(" Encoded authorization failure message").next().unwrap_or_default().to_owned();
        let class = class(status, code);
        let error = match class {
            Class::Forbidden => Error::Forbidden { action, region, said },
            Class::Credentials => {
                let refusal =
                    aws::identity::Environment::of_process().refused_credentials(code, &format!("{code}: {said}"));
                Error::Credentials { text: refusal.text, hint: refusal.hint }
            }
            Class::Final => Error::Refused { action, code: code.to_owned(), said },
            _ => {
                let why = if code.is_empty() { format!("status {status}") } else { format!("{code}: {said}") };
                Error::Unavailable { action, region, why, unsure: class == Class::Unsure }
            }
        };
        (class, error)
    }

    /// What there is of these volumes.
    pub(super) async fn volumes(&self, ids: &[String]) -> Result<Vec<(EbsVolume, VolumeState)>, Error> {
        let mut found = Vec::new();
        for ids in ids.chunks(VALUES) {
            // by filter and not by id: one that is gone must not hide the others
            let attempt = || {
                let call = self.client.describe_volumes().filters(filter("volume-id", ids.iter().cloned()));
                call.max_results(PAGE).send()
            };
            let answer = self.call("DescribeVolumes", PATIENCE, true, attempt).await?;
            found.extend(answer.volumes().iter().map(volume));
        }
        Ok(found)
    }

    /// The volumes whose tags have these values, each one of up to [`VALUES`].
    pub(super) async fn volumes_tagged(&self, tags: &[(&str, &[String])]) -> Result<Vec<EbsVolume>, Error> {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let attempt = || {
                let wanted = tags.iter().map(|(tag, values)| filter(&format!("tag:{tag}"), values.iter().cloned()));
                let call = self.client.describe_volumes().set_filters(Some(wanted.collect()));
                call.max_results(PAGE).set_next_token(token.clone()).send()
            };
            let answer = self.call("DescribeVolumes", PATIENCE, true, attempt).await?;
            found.extend(answer.volumes().iter().map(|one| volume(one).0));
            token = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// The machines' volumes.
    pub(super) async fn machines(&self, ids: &[String]) -> Result<BTreeMap<String, Machine>, Error> {
        let mut found = BTreeMap::new();
        for ids in ids.chunks(VALUES) {
            let attempt = || {
                let call = self.client.describe_instances().filters(filter("instance-id", ids.iter().cloned()));
                call.max_results(PAGE).send()
            };
            let answer = self.call("DescribeInstances", PATIENCE, true, attempt).await?;
            for instance in answer.reservations().iter().flat_map(|reservation| reservation.instances()) {
                let root = instance.root_device_name();
                let data = instance.block_device_mappings().iter().filter(|device| device.device_name() != root);
                let ids = data.filter_map(|device| device.ebs()?.volume_id().map(str::to_owned));
                let machine = Machine { data_volumes: ids.collect() };
                found.insert(instance.instance_id().unwrap_or_default().to_owned(), machine);
            }
        }
        Ok(found)
    }

    /// Our snapshots with a tag. EC2 lists a new one only after some seconds.
    pub(super) async fn snapshots(&self, tag: &str, value: &str) -> Result<Vec<Snapshot>, Error> {
        self.snapshots_that(&filter(&format!("tag:{tag}"), [value.to_owned()]), Some("self")).await
    }

    /// What there is of these snapshots, other accounts' too.
    pub(in crate::volumes) async fn snapshots_by_id(&self, ids: &[String]) -> Result<Vec<Snapshot>, Error> {
        let mut found = Vec::new();
        for ids in ids.chunks(VALUES) {
            // by filter and not by id: one that is gone must not hide the others
            found.extend(self.snapshots_that(&filter("snapshot-id", ids.iter().cloned()), None).await?);
        }
        Ok(found)
    }

    /// All pages.
    async fn snapshots_that(&self, are: &Filter, owner: Option<&str>) -> Result<Vec<Snapshot>, Error> {
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let attempt = || {
                let owners = owner.map(|owner| vec![owner.to_owned()]);
                let call = self.client.describe_snapshots().set_owner_ids(owners).max_results(PAGE);
                call.filters(are.clone()).set_next_token(token.clone()).send()
            };
            let answer = self.call("DescribeSnapshots", PATIENCE, true, attempt).await?;
            found.extend(answer.snapshots().iter().map(|snapshot| self.snapshot(snapshot)));
            token = answer.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
            if token.is_none() {
                return Ok(found);
            }
        }
    }

    /// A snapshot in our words.
    fn snapshot(&self, snapshot: &aws_sdk_ec2::types::Snapshot) -> Snapshot {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let tag = |key: &str| value_of(snapshot.tags(), key);
        Snapshot {
            id: text(snapshot.snapshot_id()),
            region: self.region.clone(),
            state: state(snapshot.state()),
            started_at: time(snapshot.start_time().map(|time| (time.secs(), time.subsec_nanos()))),
            full_bytes: full_bytes(snapshot),
            account: text(snapshot.owner_id()),
            together_on: tag(super::snapshot::TOGETHER),
            frozen: tag(super::snapshot::FROZEN).is_some(),
            unfrozen: None,
            volume: text(snapshot.volume_id()),
            progress: text(snapshot.progress()),
            message: text(snapshot.state_message()),
            attempt: tag(super::snapshot::ATTEMPT).unwrap_or_default(),
            backup: tag(ID).unwrap_or_default(),
            location: tag(super::snapshot::LOCATION).unwrap_or_default(),
            copy_of: tag(super::snapshot::COPY_OF).unwrap_or_default(),
            gib: snapshot.volume_size().and_then(|gib| u64::try_from(gib).ok()).unwrap_or_default(),
            kms_key: snapshot.kms_key_id().map(str::to_owned),
        }
    }

    /// Begins a snapshot. It has no client token: where the answer is lost, the caller looks whether it is there.
    pub(super) async fn create_snapshot(
        &self,
        volume: &str,
        description: &str,
        tags: &BTreeMap<String, String>,
        patience: Duration,
    ) -> Result<Snapshot, Error> {
        let attempt = || async {
            self.creates.take().await;
            let call = self.client.create_snapshot().volume_id(volume).description(description);
            call.tag_specifications(tagged(ResourceType::Snapshot, tags)).send().await
        };
        let made = self.call("CreateSnapshot", patience, false, attempt).await?;
        Ok(Snapshot {
            id: made.snapshot_id().unwrap_or_default().to_owned(),
            region: self.region.clone(),
            state: state(made.state()),
            started_at: time(made.start_time().map(|time| (time.secs(), time.subsec_nanos()))),
            volume: volume.to_owned(),
            account: made.owner_id().unwrap_or_default().to_owned(),
            ..Snapshot::default()
        })
    }

    /// Begins the snapshots of a machine's data volumes, all but some, at one instant.
    pub(super) async fn create_snapshots(
        &self,
        machine: &str,
        all_but: &[String],
        description: &str,
        tags: &BTreeMap<String, String>,
        patience: Duration,
    ) -> Result<Vec<Snapshot>, Error> {
        let attempt = || async {
            self.creates.take().await;
            let of = InstanceSpecification::builder().instance_id(machine).exclude_boot_volume(true);
            let of = of.set_exclude_data_volume_ids((!all_but.is_empty()).then(|| all_but.to_vec())).build();
            let call = self.client.create_snapshots().instance_specification(of).description(description);
            call.tag_specifications(tagged(ResourceType::Snapshot, tags)).send().await
        };
        let made = self.call("CreateSnapshots", patience, false, attempt).await?;
        let of = |snapshot: &aws_sdk_ec2::types::SnapshotInfo| Snapshot {
            id: snapshot.snapshot_id().unwrap_or_default().to_owned(),
            region: self.region.clone(),
            state: state(snapshot.state()),
            started_at: time(snapshot.start_time().map(|time| (time.secs(), time.subsec_nanos()))),
            volume: snapshot.volume_id().unwrap_or_default().to_owned(),
            account: snapshot.owner_id().unwrap_or_default().to_owned(),
            together_on: Some(machine.to_owned()),
            ..Snapshot::default()
        };
        Ok(made.snapshots().iter().map(of).collect())
    }

    /// Removes a snapshot. Fine when there is none.
    pub(super) async fn delete_snapshot(&self, id: &str) -> Result<(), Error> {
        let attempt = || self.client.delete_snapshot().snapshot_id(id).send();
        match self.call("DeleteSnapshot", PATIENCE, true, attempt).await {
            Err(error) if error.code() == Some("InvalidSnapshot.NotFound") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Makes a volume of a snapshot.
    pub(super) async fn create_volume(&self, new: &NewVolume<'_>) -> Result<String, Error> {
        let like = new.like;
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let attempt = || async {
            self.creates.take().await;
            let call = self.client.create_volume().snapshot_id(new.snapshot).availability_zone(new.zone);
            let call =
                call.size(i32::try_from(like.gib).unwrap_or(i32::MAX)).volume_type(VolumeType::from(&*like.kind));
            let call = call.set_iops(like.iops.map(number)).set_throughput(like.throughput.map(number));
            let call =
                call.set_kms_key_id(like.kms_key_id.clone()).set_encrypted(like.kms_key_id.as_ref().map(|_| true));
            let call = call.set_multi_attach_enabled(like.multi_attach.then_some(true)).client_token(new.token);
            call.tag_specifications(tagged(ResourceType::Volume, new.tags)).send().await
        };
        let made = self.call("CreateVolume", PATIENCE, true, attempt).await?;
        Ok(made.volume_id().unwrap_or_default().to_owned())
    }

    /// Removes a volume. Fine when there is none.
    pub(super) async fn delete_volume(&self, id: &str) -> Result<(), Error> {
        let attempt = || self.client.delete_volume().volume_id(id).send();
        match self.call("DeleteVolume", PATIENCE, true, attempt).await {
            Err(error) if error.code() == Some("InvalidVolume.NotFound") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The zones of the region.
    pub(super) async fn zones(&self) -> Result<Vec<Zone>, Error> {
        let attempt = || self.client.describe_availability_zones().send();
        let answer = self.call("DescribeAvailabilityZones", PATIENCE, true, attempt).await?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Ok(answer
            .availability_zones()
            .iter()
            .map(|zone| Zone { name: text(zone.zone_name()), id: text(zone.zone_id()) })
            .collect())
    }
}

/// A snapshot's size, where EC2 knows it: of one that is on its way a 0 says nothing.
fn full_bytes(snapshot: &aws_sdk_ec2::types::Snapshot) -> Option<u64> {
    let bytes = snapshot.full_snapshot_size_in_bytes().and_then(|bytes| u64::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0 || snapshot.state() == Some(&SnapshotState::Completed))
}

fn value_of(tags: &[Tag], key: &str) -> Option<String> {
    tags.iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value()).map(str::to_owned)
}

fn state(state: Option<&SnapshotState>) -> State {
    match state {
        Some(SnapshotState::Completed) => State::Completed,
        Some(SnapshotState::Error) => State::Error,
        Some(SnapshotState::Recoverable | SnapshotState::Recovering) => State::Recoverable,
        _ => State::Pending,
    }
}

fn time(told: Option<(i64, u32)>) -> Timestamp {
    let nanos = |nanos: u32| i32::try_from(nanos).unwrap_or_default();
    told.and_then(|(seconds, subsec)| Timestamp::new(seconds, nanos(subsec)).ok()).unwrap_or_default()
}

/// Which of a volume's tags tell a CSI driver that it is its own: what the driver's IAM policies look at
/// (aws-ebs-csi-driver, docs/install.md; EKS Auto Mode's identity guide).
fn is_drivers(key: &str) -> bool {
    key.starts_with("kubernetes.io/cluster/")
        || matches!(
            key,
            "ebs.csi.aws.com/cluster" | "ebs.csi.aws.com/cluster-name" | "eks:eks-cluster-name" | "red-hat"
        )
}

fn volume(volume: &aws_sdk_ec2::types::Volume) -> (EbsVolume, VolumeState) {
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let number = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
    let kind = text(volume.volume_type().map(|kind| kind.as_str()));
    let tag = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    let tags: BTreeMap<String, String> = volume.tags().iter().filter_map(tag).collect();
    let attached = volume.attachments().iter().filter_map(|attachment| attachment.instance_id());
    let attached: Vec<&str> = attached.collect();
    let state = match volume.state().map(|state| state.as_str()) {
        Some("creating") => VolumeState::Creating,
        Some("error" | "deleting" | "deleted") => VolumeState::Error,
        _ => VolumeState::Ready,
    };
    let volume = EbsVolume {
        id: text(volume.volume_id()),
        gib: volume.size().and_then(|gib| u64::try_from(gib).ok()).unwrap_or_default(),
        // gp2 and the like have IOPS that follow from their size, and refuse any
        iops: number(volume.iops()).filter(|_| matches!(kind.as_str(), "gp3" | "io1" | "io2")),
        throughput: number(volume.throughput()).filter(|_| kind == "gp3"),
        kind,
        kms_key_id: volume.kms_key_id().map(str::to_owned),
        zone: text(volume.availability_zone()),
        zone_id: text(volume.availability_zone_id()),
        multi_attach: volume.multi_attach_enabled().unwrap_or(false),
        driver_tags: tags.iter().filter(|(key, _)| is_drivers(key)).map(|(k, v)| (k.clone(), v.clone())).collect(),
        tags,
        attached_to: if let [one] = attached[..] { Some(one.to_owned()) } else { None },
    };
    (volume, state)
}
