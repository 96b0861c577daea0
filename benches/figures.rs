//! Figures against their targets, kept in a file from step to step.

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A figure with its target.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    /// How many objects, or volumes, it was measured with.
    pub(crate) objects: u64,
    pub(crate) measured: f64,
    /// How `measured` is told.
    pub(crate) unit: String,
    pub(crate) target: Option<Target>,
    /// What it was made of.
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// The file.
pub(crate) struct Book(PathBuf);

impl Figure {
    /// Whether the target is reached; as it is told, so that 1.1 is not missed by 1.1004.
    fn is_met(&self) -> bool {
        let told = (self.measured * 100.0).round() / 100.0;
        match self.target {
            None => true,
            Some(Target::AtMost(limit)) => told <= limit,
            Some(Target::AtLeast(limit)) => told >= limit,
        }
    }
}

impl Book {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Adds a figure, and tells it.
    pub(crate) fn add(&self, figure: &Figure) -> anyhow::Result<()> {
        println!("=> {}: {:.2}{} ({})", figure.what, figure.measured, figure.unit, figure.detail);
        if self.0.as_os_str().is_empty() {
            return Ok(());
        }
        let mut file = std::fs::File::options().create(true).append(true).open(&self.0)?;
        Ok(writeln!(file, "{}", serde_json::to_string(figure)?)?)
    }

    /// All figures so far.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<Figure>> {
        if !self.0.exists() {
            return Ok(Vec::new());
        }
        let text = std::fs::read_to_string(&self.0)?;
        text.lines().map(|line| serde_json::from_str(line).context("the file of figures")).collect()
    }

    /// Prints all figures; whether all targets were reached.
    pub(crate) fn report(&self) -> anyhow::Result<bool> {
        let figures = self.read()?;
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["figure", "measured", "target", "", "made of"]);
        for figure in &figures {
            let target = match figure.target {
                None => String::new(),
                Some(Target::AtMost(limit)) => format!("≤ {limit}{}", figure.unit),
                Some(Target::AtLeast(limit)) => format!("≥ {limit}{}", figure.unit),
            };
            let verdict = if figure.is_met() { "" } else { "MISSED" };
            let measured = format!("{:.2}{}", figure.measured, figure.unit);
            table.add_row([figure.what.as_str(), &measured, &target, verdict, &figure.detail]);
        }
        println!("{table}");
        Ok(!figures.is_empty() && figures.iter().all(Figure::is_met))
    }
}
