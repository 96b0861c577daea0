//! What `ns`, `cluster` and `restore` take about volumes.

use crate::text::duration;
use clap::{ArgAction, ValueEnum};
use kubectl_backup::rules::volumes::Policy;
use kubectl_backup::volumes::{restore, snapshot};
use std::time::Duration;

/// `--volumes` of a backup.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Volumes {
    /// Left out, as it is meant.
    Skip,
}

/// `--volumes` of a restore.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Restored {
    /// Every one, or nothing is restored.
    All,
    /// None.
    Skip,
}

/// How a backup saves volumes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Volume options")]
pub(crate) struct BackupArgs {
    /// What becomes of the data on volumes: `skip` says that it is meant not to be saved; else what can't be is a problem
    #[arg(long, value_name = "skip", value_enum, hide_possible_values = true)]
    pub(crate) volumes: Option<Volumes>,
    /// File with rules for single volumes: which to save, which to leave out
    #[arg(long, value_name = "FILE", value_parser = policy, conflicts_with = "volumes")]
    volume_policy: Option<Policy>,
    /// Wait until the snapshots are completed; with --wait-volumes=false they complete by themselves
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_possible_values = true
    )]
    wait_volumes: bool,
    /// Freeze the filesystems of volumes, by `fsfreeze` in a pod that mounts them, while their snapshots are begun (not
    /// while they complete); needs `init --hooks`
    #[arg(long, conflicts_with = "volumes")]
    freeze: bool,
    /// How long to wait for snapshots, 16h at most [default: 6h]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    volume_timeout: Option<Duration>,
}

impl BackupArgs {
    /// What these arguments mean.
    pub(crate) fn options(&self) -> snapshot::Options {
        let default = snapshot::Options::default();
        snapshot::Options {
            policy: self.volume_policy.clone().unwrap_or_default(),
            wait: self.wait_volumes,
            freeze: self.freeze,
            timeout_seconds: self.volume_timeout.map_or(default.timeout_seconds, |time| time.as_secs()),
        }
    }
}

/// Reads `--volume-timeout`.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let most = Duration::from_secs(snapshot::LONGEST_WAIT);
    match duration(text)? {
        time if time > most => Err(format!(
            "`{text}` is too long: a run may take 20h in all, and waits for snapshots 16h at most; with --wait-volumes=false they complete by themselves"
        )),
        time => Ok(time),
    }
}

/// How a restore makes volumes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Volume options")]
pub(crate) struct RestoreArgs {
    /// `all`: restore nothing where a volume can't be made; `skip`: make none, claims are restored without their data.
    /// Else the claim of a volume that can't be made waits for it
    #[arg(long, value_name = "all|skip", value_enum, hide_possible_values = true)]
    volumes: Option<Restored>,
    /// Make volumes of zone OLD in zone NEW; can be repeated
    #[arg(long, value_name = "OLD=NEW", value_delimiter = ',', value_parser = zones)]
    map_zone: Vec<(String, String)>,
    /// Make volumes of this type, such as gp3
    #[arg(long, value_name = "TYPE", value_parser = volume_type)]
    volume_type: Option<String>,
    /// Make volumes with so many operations a second
    #[arg(long, value_name = "NUMBER")]
    iops: Option<u32>,
    /// Encrypt volumes with this KMS key: its id, alias or ARN
    #[arg(long, value_name = "KEY")]
    kms_key: Option<String>,
    /// Let the CSI driver make a claim's volume from its snapshot, where that comes to the same volume; with
    /// --import-snapshots=false EC2 is asked for all of them
    #[arg(
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        hide_possible_values = true
    )]
    import_snapshots: bool,
}

impl RestoreArgs {
    /// What these arguments mean.
    pub(crate) fn options(&self) -> restore::Options {
        restore::Options {
            data: match self.volumes {
                None => restore::Data::Restore,
                Some(Restored::All) => restore::Data::All,
                Some(Restored::Skip) => restore::Data::Skip,
            },
            map_zone: self.map_zone.iter().cloned().collect(),
            volume_type: self.volume_type.clone(),
            iops: self.iops,
            kms_key: self.kms_key.clone(),
            no_import: !self.import_snapshots,
        }
    }
}

/// Reads a volume policy.
fn policy(path: &str) -> Result<Policy, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("it can't be read: {error}"))?;
    let policy: Policy = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    policy.check().map_err(|error| error.to_string())?;
    Ok(policy)
}

/// Reads one `--map-zone`.
fn zones(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("write OLD=NEW, such as eu-central-1a=eu-central-1b".to_owned()),
    }
}

/// The types that EBS has; a typing mistake shows before anything is made.
fn volume_type(text: &str) -> Result<String, String> {
    const TYPES: [&str; 7] = ["gp2", "gp3", "io1", "io2", "sc1", "st1", "standard"];
    match TYPES.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(format!("EBS has {}", TYPES.join(", "))),
    }
}
