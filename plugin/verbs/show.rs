//! `show`: what a backup holds, or some of its objects.

use crate::args::{Format, FromClusterArgs, PlaceArgs, TimeoutArgs, namespace};
use crate::document;
use crate::failure::Failure;
use crate::run;
use crate::screen::{Color, Screen, print, tell};
use crate::session::Session;
use crate::table::{Cell, NONE, Table};
use crate::text::{safe, size};
use kubectl_backup::id::BackupQuery;
use kubectl_backup::operations::Verb;
use kubectl_backup::operations::read::{ShowResult, ShowTask, Shown};
use kubectl_backup::report::ExitCode;
use serde_json::Value;

/// List what a backup holds, or print some of its objects
#[derive(Debug, clap::Args)]
#[command(after_help = "Without KIND/NAME the backup's objects are listed. With some, they are printed
as they were saved; Secret values are masked unless --reveal is given.

Examples:
  kubectl backup show latest:shop
  kubectl backup show latest:shop deployments/web secret/db --reveal
  kubectl backup show shop-20261120 configmap/settings -n shop -o json")]
pub(crate) struct Args {
    /// The backup: its id or the beginning of it, latest, latest:NAMESPACE, or @2026-11-20T10:00
    #[arg(value_name = "ID", value_parser = BackupQuery::parse)]
    pub(crate) backup: BackupQuery,
    /// Objects to print, in any spelling kubectl takes: deploy/web, secret/db
    #[arg(value_name = "KIND/NAME")]
    pub(crate) objects: Vec<String>,
    /// Only objects of this namespace of the backup
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace)]
    pub(crate) namespace: Option<String>,
    /// Show Secret values
    #[arg(long)]
    pub(crate) reveal: bool,
    /// Output format: table, wide, name, json, yaml [default: table for a list, yaml for objects]
    #[arg(short, long, value_name = "FORMAT", hide_possible_values = true,
          value_parser = Format::among(["table", "wide", "json", "yaml", "name"]))]
    pub(crate) output: Option<Format>,
    /// Leave the column headings out
    #[arg(long)]
    pub(crate) no_headers: bool,
    #[command(flatten)]
    pub(crate) from: FromClusterArgs,
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    #[command(flatten)]
    pub(crate) timeout: TimeoutArgs,
}

impl Args {
    /// The task that these arguments mean.
    ///
    /// # Errors
    /// Wrong usage: a format that can't be meant.
    fn task(&self) -> Result<ShowTask, Failure> {
        if !self.objects.is_empty() && matches!(self.output, Some(Format::Table | Format::Wide)) {
            let text = "objects are printed as `yaml`, `json` or `name`\nhint: a table lists what a backup holds, without KIND/NAME";
            return Err(Failure::usage(text));
        }
        Ok(ShowTask {
            query: self.from.query(&self.backup),
            objects: self.objects.clone(),
            namespace: self.namespace.clone(),
            reveal: self.reveal,
        })
    }
}

/// Shows.
///
/// # Errors
/// What kept the objects from being had.
pub(crate) async fn run(session: &Session, args: &Args) -> anyhow::Result<ExitCode> {
    let task = args.task()?;
    let target = session.target(&args.place).await?;
    let answer = run::answer(session, &target, "show", Verb::Show(task), args.timeout.timeout).await?;
    let result: ShowResult = answer.result()?;
    print(&rendered(&result, args, &session.screen)?)?;
    if let Some(remark) = remark(&result, args.reveal) {
        tell(&session.screen.err(Color::Dim, remark));
    }
    Ok(answer.code)
}

/// The result as it goes to stdout.
fn rendered(result: &ShowResult, args: &Args, screen: &Screen) -> anyhow::Result<String> {
    match result {
        ShowResult::Entries(entries) => match args.output {
            Some(Format::Json) => document::json(entries),
            Some(Format::Yaml) => document::yaml(entries),
            Some(Format::Name) => {
                Ok(entries.iter().map(|e| format!("{}/{}\n", safe(&e.kind), safe(&e.name))).collect())
            }
            format => Ok(table(entries, format == Some(Format::Wide)).render(screen, !args.no_headers)),
        },
        ShowResult::Objects(objects) => match args.output {
            Some(Format::Json) => document::json(&document::list(objects.clone())),
            Some(Format::Name) => Ok(objects.iter().map(name).collect()),
            _ => document::yaml_documents(objects),
        },
    }
}

fn table(entries: &[Shown], wide: bool) -> Table {
    let mut header = vec!["NAMESPACE", "KIND", "NAME"];
    if wide {
        header.extend(["VERSION", "SIZE"]);
    }
    let mut table = Table::new(header);
    for entry in entries {
        let namespace = entry.namespace.as_deref().unwrap_or(NONE);
        let mut row: Vec<Cell> = vec![namespace.into(), entry.kind.as_str().into(), entry.name.as_str().into()];
        if wide {
            row.push(entry.api_version.as_str().into());
            row.push(size(entry.size).into());
        }
        table.row(row);
    }
    table
}

/// An object as kubectl names it: `deployment.apps/web`.
fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]).to_lowercase();
    let group = text(&object["apiVersion"]);
    let kind = match group.split_once('/') {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    };
    format!("{}/{}\n", safe(&kind), safe(&text(&object["metadata"]["name"])))
}

/// What the person should know besides the objects.
fn remark(result: &ShowResult, reveal: bool) -> Option<&'static str> {
    let ShowResult::Objects(objects) = result else { return None };
    let masked = !reveal && objects.iter().any(|object| object["kind"] == "Secret");
    masked.then_some("Secret values are masked; `--reveal` shows them")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use serde_json::json;

    fn args(words: &[&str]) -> Args {
        let words = ["kubectl-backup", "show", "latest"].iter().chain(words).map(Into::into);
        let crate::args::Verb::Show(args) = crate::args::parse(words).unwrap().verb else { panic!("not `show`") };
        args
    }

    fn shown(result: &ShowResult, words: &[&str]) -> String {
        rendered(result, &args(words), &Screen::new(ColorChoice::Never)).unwrap()
    }

    fn objects() -> ShowResult {
        ShowResult::Objects(vec![
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "data": {"a": "***"}}),
        ])
    }

    #[test]
    fn entries_are_a_table_and_objects_are_documents() {
        let entries: Vec<Shown> = serde_json::from_value(json!([
            {"kind": "deployments.apps", "apiVersion": "apps/v1", "namespace": "shop", "name": "web", "size": 2048},
            {"kind": "namespaces", "apiVersion": "v1", "name": "shop", "size": 100}
        ]))
        .unwrap();
        let entries = ShowResult::Entries(entries);
        let table = shown(&entries, &[]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAMESPACE", "KIND", "NAME"]);
        assert_eq!(lines[1], ["shop", "deployments.apps", "web"]);
        assert_eq!(lines[2], ["<none>", "namespaces", "shop"]);
        assert!(shown(&entries, &["-o", "wide"]).contains("2.0 KiB"));
        assert_eq!(shown(&entries, &["-o", "name"]), "deployments.apps/web\nnamespaces/shop\n");

        let yaml = shown(&objects(), &["x"]);
        assert!(yaml.starts_with("apiVersion: apps/v1\nkind: Deployment\n"), "{yaml}");
        assert_eq!(yaml.matches("---\n").count(), 1, "{yaml}");
        assert_eq!(shown(&objects(), &["x", "-o", "name"]), "deployment.apps/web\nsecret/db\n");
        let list: Value = serde_json::from_str(&shown(&objects(), &["x", "-o", "json"])).unwrap();
        assert_eq!((&list["kind"], &list["items"][1]["kind"]), (&json!("List"), &json!("Secret")));
        let one = ShowResult::Objects(vec![json!({"kind": "Secret"})]);
        assert_eq!(shown(&one, &["x", "-o", "json"]), "{\n    \"kind\": \"Secret\"\n}\n");
    }

    #[test]
    fn masked_values_are_said() {
        assert!(remark(&objects(), false).is_some());
        assert!(remark(&objects(), true).is_none());
        assert!(remark(&ShowResult::Entries(Vec::new()), false).is_none());
    }

    #[test]
    fn a_table_of_objects_is_refused() {
        assert!(args(&["secret/db", "-o", "wide"]).task().is_err());
        let task = args(&["secret/db", "-n", "shop", "--reveal"]).task().unwrap();
        assert_eq!((task.objects, task.namespace, task.reveal), (vec!["secret/db".into()], Some("shop".into()), true));
    }
}
