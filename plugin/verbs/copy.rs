//! `copy`: a backup into another location.

use crate::args::{Format, FromClusterArgs, PlaceArgs, WaitArgs};
use crate::document;
use crate::failure::Failure;
use crate::run::{self, Manner, Run};
use crate::screen::{Color, print, tell};
use crate::session::Session;
use crate::text::{count, safe, size, took};
use crate::verbs::list::outcome_color;
use crate::verbs::volumes::timeout;
use anyhow::Context as _;
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::copy::{CopyResult, CopyTask};
use kubectl_backup::report::ExitCode;
use kubectl_backup::volumes::snapshot::Options;
use std::time::Duration;

/// Copy a backup to another location
#[derive(Debug, clap::Args)]
#[command(after_help = "Every byte is compared with its digest on the way, and the manifest is written last.
A backup that is there already is left as it is. Each location is entered with its
own role or keys. Snapshots stay and belong to the original unless --copy-to-region
makes copies that belong to the copied backup; restored from there, they are used.
Where --to is entered with a role of another AWS account, that account makes and owns
the copies, and the snapshots are shared with it while it does.

Examples:
  kubectl backup copy latest:shop --to dr
  kubectl backup copy shop-20261120-100000-k3fa --to dr --copy-to-region eu-west-1 \\
    --kms-key alias/backup
  kubectl backup copy latest:shop --to vault --share-with-account 222222222222")]
pub(crate) struct Args {
    /// The backup: its id or the beginning of it, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse)]
    pub(crate) backup: BackupQuery,
    /// Where to: a configured location's name, or s3://BUCKET/PREFIX?region=REGION
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) to: String,
    /// Copy the EBS snapshots into this region, with the role of the location --to
    #[arg(long, value_name = "REGION")]
    pub(crate) copy_to_region: Option<String>,
    /// Encrypt the copied snapshots with this KMS key of the region: its id, alias or ARN
    #[arg(long, value_name = "KEY", requires = "copy_to_region")]
    pub(crate) kms_key: Option<String>,
    /// Share the EBS snapshots with this AWS account, so that it can restore from them; with --copy-to-region only
    /// while they are copied, by whoever enters --to
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub(crate) share_with_account: Option<String>,
    /// How long to wait for copied snapshots, 16h at most [default: 6h]
    #[arg(long, value_name = "DURATION", value_parser = timeout, requires = "copy_to_region")]
    pub(crate) volume_timeout: Option<Duration>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "name",
          value_parser = Format::among(["json", "yaml", "name"]))]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Copies.
///
/// # Errors
/// What kept it from being done.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let target = session.target(&args.place).await?;
    let to = session.second(&args.to, &target).await?;
    let task = CopyTask {
        query: args.from.query(&args.backup),
        to,
        region: args.copy_to_region.clone(),
        kms_key: args.kms_key.clone(),
        share_with: args.share_with_account.clone(),
        timeout_seconds: args.volume_timeout.map_or(Options::default().timeout_seconds, |time| time.as_secs()),
    };
    task.copying_account().map_err(|error| Failure::usage(error.to_string()))?;
    let verb = Verb::Copy(Box::new(task));
    match run::run(session, &target, run::new_id("copy"), verb, Manner::work(args.wait)).await? {
        Run::Left { id, code } => run::left(&id, code),
        Run::Ended(ended) => {
            let result: CopyResult = ended.result().context("the backup is copied")?;
            print(&match args.output {
                Format::Json => document::json(&result)?,
                Format::Yaml => document::yaml(&result)?,
                _ => format!("{}\n", result.id),
            })?;
            for note in &result.notes {
                tell(&format!("{} {}", session.screen.err(Color::Cyan, "note:"), safe(note)));
            }
            let outcome = session.screen.err(outcome_color(ended.outcome), &ended.outcome.to_string());
            tell(&format!("copy {} {outcome}: {}, {}", ended.id, line(&result), took(ended.took)));
            Ok(ended.code)
        }
    }
}

fn line(result: &CopyResult) -> String {
    let (id, to) = (&result.id, safe(&result.to));
    let line = match (result.was_there, result.snapshots) {
        (true, _) => format!("{id} is in {to} already"),
        (false, 0) => format!("{id} to {to}, {}", size(result.bytes)),
        (false, some) => format!("{id} to {to}, {} and {}", size(result.bytes), count(some, "snapshot")),
    };
    match &result.shared_with {
        Some(account) => format!("{line}, its snapshots shared with {}", safe(account)),
        None => line,
    }
}

/// The id of an AWS account.
fn account(text: &str) -> Result<String, String> {
    match text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err("an AWS account is 12 digits".to_owned()),
    }
}
