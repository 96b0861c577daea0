//! What a waiting person sees on stderr: on a terminal one line that moves, elsewhere a line for each new phase.

use crate::screen::{Color, Screen, tell};
use crate::text::{count, number, safe, size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kubectl_backup::report::{Counts, Phase};
use std::time::{Duration, Instant};

/// How often the moving line is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// The progress of one run.
pub(crate) struct Progress {
    line: Option<ProgressBar>,
    screen: Screen,
    phase: Option<Phase>,
    phase_began: Instant,
}

impl Progress {
    /// Begins with a word on what is waited for: `starting job shop-…`.
    pub(crate) fn new(screen: Screen, first: &str) -> Self {
        let line = screen.moves.then(|| {
            let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // not indicatif's braille spinner: not every font has it
            let style = ProgressStyle::with_template("{spinner} {msg}   {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            line.set_style(style.tick_chars("-\\|/ "));
            line.set_message(first.to_owned());
            line.enable_steady_tick(TICK);
            line
        });
        Self { line, screen, phase: None, phase_began: Instant::now() }
    }

    /// Tells where the run is.
    pub(crate) fn status(&mut self, phase: Phase, counts: Counts) {
        let new = self.phase != Some(phase);
        if new {
            self.phase = Some(phase);
            self.phase_began = Instant::now();
        }
        match &self.line {
            Some(line) => line.set_message(moving(phase, &counts, self.phase_began.elapsed())),
            None if new && phase < Phase::ResultReady => tell(&plain(phase, &counts)),
            None => (),
        }
    }

    /// Tells what is waited for while there is no phase to tell.
    pub(crate) fn waiting(&mut self, what: &str) {
        self.phase = None;
        if let Some(line) = &self.line {
            line.set_message(what.to_owned());
        }
    }

    /// Tells a line that stays.
    pub(crate) fn say(&self, text: &str) {
        match &self.line {
            Some(line) => line.suspend(|| tell(text)),
            None => tell(text),
        }
    }

    /// Tells what hinders the run.
    pub(crate) fn warn(&self, text: &str) {
        self.say(&format!("{} {}", self.screen.err(Color::Yellow, "warning:"), safe(text)));
    }

    /// Takes the moving line away.
    pub(crate) fn end(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// What is being done, for a person.
fn deed(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Discovering => "discovering",
        Phase::PreHooks => "running pre hooks",
        Phase::Saving => "saving",
        Phase::PostHooks => "running post hooks",
        Phase::Snapshots => "waiting for snapshots",
        Phase::Committing => "committing",
        Phase::Planning => "planning",
        Phase::Verifying => "verifying",
        Phase::Restoring => "restoring",
        Phase::Reading => "reading",
        Phase::ResultReady => "fetching the result",
        Phase::Ended => "ending",
    }
}

/// The moving line: `saving   31/64 kinds   12,345 objects   4.1 MiB (2.0 MiB/s)`. The time since the start is put behind.
fn moving(phase: Phase, counts: &Counts, in_phase: Duration) -> String {
    let mut parts = vec![deed(phase).to_owned()];
    parts.extend(counted(phase, counts));
    if counts.bytes > 0 && works(phase) {
        let rate = rate(counts.bytes, in_phase).map(|rate| format!(" ({}/s)", size(rate))).unwrap_or_default();
        parts.push(format!("{}{rate}", size(counts.bytes)));
    }
    parts.join("   ")
}

/// The line for a new phase where nothing moves: `committing: 12,345 objects, 4.1 MiB`.
fn plain(phase: Phase, counts: &Counts) -> String {
    let mut parts: Vec<String> = counted(phase, counts).into_iter().collect();
    if counts.bytes > 0 && phase != Phase::Snapshots {
        parts.push(size(counts.bytes));
    }
    if parts.is_empty() { deed(phase).to_owned() } else { format!("{}: {}", deed(phase), parts.join(", ")) }
}

/// Whether bytes move in a phase.
fn works(phase: Phase) -> bool {
    matches!(phase, Phase::Saving | Phase::Verifying | Phase::Restoring | Phase::Reading)
}

fn counted(phase: Phase, counts: &Counts) -> Vec<String> {
    let mut parts = Vec::new();
    if phase == Phase::Snapshots {
        return vec![format!("{}/{} completed", number(counts.volumes_done), number(counts.volumes))];
    }
    if counts.kinds > 0 && phase == Phase::Saving {
        parts.push(format!("{}/{} kinds", number(counts.kinds_done), number(counts.kinds)));
    }
    match (counts.objects, counts.objects_total) {
        (0, 0) => (),
        (done, 0) => parts.push(count(done, "object")),
        (done, all) => parts.push(format!("{}/{}", number(done), count(all, "object"))),
    }
    parts
}

/// Bytes a second; `None` while there is too little to divide.
fn rate(bytes: u64, time: Duration) -> Option<u64> {
    let millis = u64::try_from(time.as_millis()).ok().filter(|millis| *millis >= 500)?;
    bytes.checked_mul(1000).map(|thousandths| thousandths / millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTS: Counts = Counts {
        kinds: 64,
        kinds_done: 31,
        objects: 12_345,
        objects_total: 0,
        bytes: 4 << 20,
        bytes_stored: 1 << 20,
        volumes: 3,
        volumes_done: 1,
    };

    #[test]
    fn the_moving_line_says_phase_counts_bytes_and_rate() {
        let two = Duration::from_secs(2);
        assert_eq!(moving(Phase::Saving, &COUNTS, two), "saving   31/64 kinds   12,345 objects   4.0 MiB (2.0 MiB/s)");
        assert_eq!(moving(Phase::Discovering, &Counts::default(), two), "discovering");
        assert!(moving(Phase::Snapshots, &COUNTS, two).starts_with("waiting for snapshots   1/3 completed"));
        let restoring = Counts { objects: 1, objects_total: 20, ..Counts::default() };
        assert_eq!(moving(Phase::Restoring, &restoring, two), "restoring   1/20 objects");
        assert!(!moving(Phase::Saving, &COUNTS, Duration::from_millis(10)).contains("/s)"));
    }

    #[test]
    fn without_a_terminal_a_phase_is_a_line() {
        assert_eq!(plain(Phase::Discovering, &Counts::default()), "discovering");
        assert_eq!(plain(Phase::Committing, &COUNTS), "committing: 12,345 objects, 4.0 MiB");
    }
}
