//! `logs`: what a run told, from its Job's pods while there are any, later from the bucket.

use crate::args::{FromClusterArgs, PlaceArgs, TimeoutArgs};
use crate::failure::Failure;
use crate::run;
use crate::screen::{Reader, print};
use crate::session::Session;
use crate::text::safe;
use anyhow::Context as _;
use jiff::Timestamp;
use kubectl_backup::id::{BackupId, BackupQuery};
use kubectl_backup::jobs::{self, logs::Follow};
use kubectl_backup::operations::Verb;
use kubectl_backup::report::{Event, ExitCode};
use kubectl_backup::resource::{Kind, ObjectName};
use serde::Deserialize;
use std::fmt::Write as _;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Print the log of a run, live or from the bucket
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kubectl backup logs shop-20261120-100000-ab12 -f
  kubectl backup logs latest:shop")]
pub(crate) struct Args {
    /// The run: its id or the beginning of it; of backups also latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse)]
    pub(crate) backup: BackupQuery,
    /// Go on until the run ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

/// Prints a log.
///
/// # Errors
/// What kept the log from being had.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    if !args.place.local
        && let BackupQuery::Prefix(prefix) = &args.backup
        && let Some(id) = live(session, prefix).await?
    {
        return follow(session, &id, args.follow).await;
    }
    let target = session.target(&args.place).await?;
    let query = args.from.query(&args.backup);
    let answer = run::answer(session, &target, "logs", Verb::Logs(query), args.timeout.timeout).await?;
    print(&rendered(&String::from_utf8_lossy(answer.result.as_deref().unwrap_or_default())))?;
    Ok(answer.code)
}

/// The run whose Job is still there. Who may read Jobs but not list them names it in full.
async fn live(session: &Session, prefix: &str) -> anyhow::Result<Option<BackupId>> {
    let text = str::to_owned;
    let (group, version, resource) = (text("batch"), text("v1"), text("jobs"));
    let kind = Kind { group, version, kind: text("Job"), resource, namespaced: true };
    let namespace = Some(session.install_namespace.as_str());
    if let Ok(id) = BackupId::parse(prefix)
        && session
            .cluster
            .get(&kind, &ObjectName::new(namespace, prefix))
            .await
            .context("looking for the job")?
            .is_some()
    {
        return Ok(Some(id));
    }
    let names = match session.cluster.list_names(&kind, namespace).await {
        Err(error) if error.is_forbidden() => return Ok(None),
        listed => listed.context("looking for the job")?.into_iter().map(|listed| listed.name.name),
    };
    Ok(choose(names, prefix)?)
}

/// The one name that begins so; a name written in full is meant also when others begin with it.
fn choose(names: impl IntoIterator<Item = String>, prefix: &str) -> Result<Option<BackupId>, Failure> {
    let found: Vec<BackupId> = names
        .into_iter()
        .filter(|name| name.starts_with(prefix))
        .filter_map(|name| BackupId::parse(&name).ok())
        .collect();
    match found.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several => match several.iter().find(|id| id.as_str() == prefix) {
            Some(exact) => Ok(Some(exact.clone())),
            None => {
                let names: Vec<String> = several.iter().take(5).map(|id| format!("`{id}`")).collect();
                Err(Failure::new(
                    ExitCode::NotFound,
                    format!("`{prefix}` means more than one run: {}", names.join(", ")),
                ))
            }
        },
    }
}

/// Prints what the pods of a run say.
async fn follow(session: &Session, id: &BackupId, follow: bool) -> anyhow::Result<ExitCode> {
    let (mut into, from) = tokio::io::duplex(64 * 1024);
    let streaming = async {
        let follow = follow.then(Follow::default);
        let streamed =
            jobs::logs::stream(session.cluster.client(), &session.install_namespace, id, follow, &mut into).await;
        let _ = into.shutdown().await; // the other end may have had enough already
        streamed
    };
    let printing = async {
        let mut lines = BufReader::new(from).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            if print(&format!("{}\n", safe(&String::from_utf8_lossy(&line))))? == Reader::Left {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::pin!(streaming, printing);
    tokio::select! {
        printed = &mut printing => printed?,
        streamed = &mut streaming => {
            printing.await?;
            streamed?;
        }
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::Interrupted),
    }
    Ok(ExitCode::Complete)
}

/// A stored log for people, one line for each event.
fn rendered(log: &str) -> String {
    #[derive(Deserialize)]
    struct Line {
        time: Timestamp,
        #[serde(flatten)]
        event: Event,
    }
    let mut text = String::new();
    for line in log.lines() {
        let _ = match serde_json::from_str::<Line>(line) {
            Ok(Line { time, event }) => writeln!(text, "{time:.3} {}", told(&event)),
            // of a later version
            Err(_) => writeln!(text, "{}", safe(line)),
        };
    }
    text
}

fn told(event: &Event) -> String {
    match event {
        Event::Phase { phase } => format!(" INFO phase {phase}"),
        Event::Progress { counts } => format!(" INFO {} objects", counts.objects),
        Event::Problem(problem) => format!(" WARN {}: {}", safe(&problem.subject), safe(&problem.message)),
        Event::Withdrawn(problem) => {
            format!(" INFO done anew: {}: {}", safe(&problem.subject), safe(&problem.message))
        }
        Event::Note { message } => format!(" INFO {}", safe(message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_log_is_readable_also_when_a_later_version_wrote_it() {
        let log = "{\"time\":\"2026-11-20T10:00:00.123456Z\",\"event\":\"phase\",\"phase\":\"Saving\"}\n\
                   {\"time\":\"2026-11-20T10:00:01Z\",\"event\":\"problem\",\"subject\":\"secrets\",\"message\":\"\\u001b[2J\"}\n\
                   {\"time\":\"2026-11-20T10:00:02Z\",\"event\":\"unheardOf\"}\n";
        assert_eq!(
            rendered(log),
            "2026-11-20T10:00:00.123Z  INFO phase Saving\n\
             2026-11-20T10:00:01.000Z  WARN secrets: \\u{1b}[2J\n\
             {\"time\":\"2026-11-20T10:00:02Z\",\"event\":\"unheardOf\"}\n"
        );
    }

    #[test]
    fn a_run_is_found_by_the_beginning_of_its_name() {
        let names = || ["shop-1", "shop-12", "blog-1"].map(str::to_owned);
        let chosen = |prefix| choose(names(), prefix).map(|id| id.map(|id| id.to_string()));
        assert_eq!(chosen("blog").unwrap().as_deref(), Some("blog-1"));
        assert_eq!(chosen("shop-1").unwrap().as_deref(), Some("shop-1"));
        assert_eq!(chosen("wiki").unwrap(), None);
        assert!(chosen("shop").unwrap_err().text.contains("`shop-1`, `shop-12`"));
    }
}
