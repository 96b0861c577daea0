//! `version`: of this plugin, of the image its Jobs run, and of the cluster.

use crate::args::{Common, Format, PlaceArgs};
use crate::document;
use crate::screen::{Screen, print};
use crate::session::{IMAGE, Session};
use crate::text::safe;
use kubectl_backup::report::ExitCode;
use serde::Serialize;

/// Print the versions of plugin, Job image and cluster
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the plugin's; needs no cluster
    #[arg(long)]
    pub(crate) client: bool,
    /// Output format; for people where none is given
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::among(["json", "yaml"]))]
    pub(crate) output: Option<Format>,
}

/// The versions.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<String>,
}

const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Prints the plugin's version. Starts nothing and reads nothing.
///
/// # Errors
/// stdout can't be written.
pub(crate) fn client(args: &Args) -> anyhow::Result<ExitCode> {
    print(&rendered(&Versions { client_version: CLIENT, image: None, server_version: None }, args.output)?)?;
    Ok(ExitCode::Complete)
}

/// Prints all versions.
///
/// # Errors
/// The cluster can't be reached.
pub(crate) async fn run(common: &Common, args: &Args, screen: Screen) -> anyhow::Result<ExitCode> {
    // the plugin's version is of use also, and most of all, when the rest fails
    let connected = async {
        let session = Session::connect(common, screen).await?;
        let server = session.cluster.version().await?;
        let place = PlaceArgs { location: None, local: false };
        let image =
            session.target(&place).await.ok().map(|target| target.settings.image.unwrap_or_else(|| IMAGE.to_owned()));
        anyhow::Ok((server, image))
    };
    match connected.await {
        Ok((server, image)) => {
            let versions = Versions { client_version: CLIENT, image, server_version: Some(server) };
            print(&rendered(&versions, args.output)?)?;
            Ok(ExitCode::Complete)
        }
        Err(error) => {
            client(args)?;
            Err(error)
        }
    }
}

fn rendered(versions: &Versions, format: Option<Format>) -> anyhow::Result<String> {
    match format {
        Some(Format::Json) => document::json(versions),
        Some(Format::Yaml) => document::yaml(versions),
        _ => {
            let mut text = format!("Client Version: {}\n", versions.client_version);
            if let Some(image) = &versions.image {
                text += &format!("Job Image: {}\n", safe(image));
            }
            if let Some(server) = &versions.server_version {
                text += &format!("Server Version: {}\n", safe(server));
            }
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_lines_or_a_document() {
        let all = Versions { client_version: "v1", image: Some("i:1".into()), server_version: Some("v1.34".into()) };
        assert_eq!(rendered(&all, None).unwrap(), "Client Version: v1\nJob Image: i:1\nServer Version: v1.34\n");
        let only = Versions { client_version: "v1", image: None, server_version: None };
        assert_eq!(rendered(&only, Some(Format::Yaml)).unwrap(), "clientVersion: v1\n");
    }
}
