//! What a worker reports while it runs: the JSON under `status` in the ConfigMap of its run.
//!
//! Whoever may write ConfigMaps in the install namespace can write this one, so what is read back is a hint for the
//! person who watches: bounded, and without anything that steers a terminal. The truth about a backup is its manifest.

use super::text::line;
use crate::id::{Attempt, BackupId};
use crate::report::{Counts, Event, ExitCode, Outcome, Phase, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of JSON a status may have.
pub const STATUS_LIMIT: usize = 256 * 1024;
/// Problems that a status lists; [`Status::problems_total`] counts them all.
pub const PROBLEMS_LISTED: usize = 50;
/// Characters of a subject or a message.
const TEXT_LIMIT: usize = 1000;

/// Where a run is, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The run: its Job's name.
    pub id: BackupId,
    /// What it does: `backup`, `restore`, …
    pub verb: String,
    /// Where it is.
    pub phase: Phase,
    /// What was counted so far in this attempt.
    #[serde(default)]
    pub counts: Counts,
    /// The first [`PROBLEMS_LISTED`] problems.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// How many problems there are.
    #[serde(default)]
    pub problems_total: u64,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The exit code for whoever waits for this run, as a number. The worker itself exits 0 where this is 3.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "number")]
    pub exit_code: Option<ExitCode>,
    /// Why it failed, or what else a person should read at the end. May hold a `hint:` line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The worker's version.
    pub worker_version: String,
    /// Which attempt this is: the uid of the worker's pod.
    pub attempt: Attempt,
    /// When this attempt started.
    pub started_at: Timestamp,
    /// When this was written.
    pub updated_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Bytes of the result that waits to be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_bytes: Option<u64>,
}

/// A text that is no status of this run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the status of `{id}` can't be read: {why}")]
pub struct Unreadable {
    id: String,
    why: String,
}

impl Status {
    /// The status of a worker that just started.
    pub fn new(id: BackupId, verb: &str, worker_version: &str, attempt: Attempt, now: Timestamp) -> Self {
        Self {
            id,
            verb: verb.to_owned(),
            phase: Phase::Starting,
            counts: Counts::default(),
            problems: Vec::new(),
            problems_total: 0,
            outcome: None,
            exit_code: None,
            message: None,
            worker_version: worker_version.to_owned(),
            attempt,
            started_at: now,
            updated_at: now,
            ended_at: None,
            result_bytes: None,
        }
    }

    /// Takes in what happened.
    pub fn take(&mut self, event: &Event, now: Timestamp) {
        match event {
            Event::Phase { phase } => self.phase = *phase,
            Event::Progress { counts } => self.counts = *counts,
            Event::Problem(problem) => {
                self.problems_total += 1;
                if self.problems.len() < PROBLEMS_LISTED {
                    self.problems.push(tidy(problem));
                }
            }
            Event::Withdrawn(problem) => {
                self.problems_total = self.problems_total.saturating_sub(1);
                let problem = tidy(problem);
                if let Some(at) = self.problems.iter().position(|told| *told == problem) {
                    self.problems.remove(at);
                }
            }
            Event::Note { .. } => return,
        }
        self.updated_at = now;
    }

    /// Takes in the end.
    pub fn end(&mut self, outcome: Outcome, exit_code: ExitCode, message: Option<&str>, now: Timestamp) {
        self.phase = Phase::Ended;
        self.outcome = Some(outcome);
        self.exit_code = Some(exit_code);
        self.message = message.map(lines);
        (self.updated_at, self.ended_at) = (now, Some(now));
    }

    /// Whether this is the last word of the run: no other attempt follows. An interrupted attempt is not, as its Job
    /// makes another.
    pub fn is_final(&self) -> bool {
        let verdict = matches!(self.outcome, Some(Outcome::Complete | Outcome::Partial | Outcome::Failed));
        self.phase == Phase::Ended && verdict && self.exit_code.is_some_and(|code| code != ExitCode::Interrupted)
    }

    /// As JSON of at most [`STATUS_LIMIT`] bytes; problems that don't fit are left to [`Status::problems_total`].
    pub fn to_json(&self) -> String {
        let json = |status: &Self| serde_json::to_string(status).unwrap_or_default();
        let mut text = json(self);
        if text.len() > STATUS_LIMIT {
            let mut short = self.clone();
            while text.len() > STATUS_LIMIT && !short.problems.is_empty() {
                short.problems.truncate(short.problems.len() / 2);
                text = json(&short);
            }
        }
        text
    }

    /// Reads what a worker wrote about a run, or what somebody put in its place.
    pub fn parse(text: &str, id: &BackupId) -> Result<Self, Unreadable> {
        let unreadable = |why: String| Unreadable { id: id.to_string(), why: line(&why, 200) };
        if text.len() > STATUS_LIMIT {
            return Err(unreadable(format!("it has {} bytes, {STATUS_LIMIT} are allowed", text.len())));
        }
        let mut status: Self = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if status.id != *id {
            return Err(unreadable(format!("it is about `{}`", status.id)));
        }
        status.problems.truncate(PROBLEMS_LISTED);
        status.problems = status.problems.iter().map(tidy).collect();
        status.problems_total = status.problems_total.max(status.problems.len() as u64);
        status.message = status.message.as_deref().map(lines);
        status.verb = line(&status.verb, 63);
        status.worker_version = line(&status.worker_version, 63);
        Ok(status)
    }
}

fn tidy(problem: &Problem) -> Problem {
    Problem { subject: line(&problem.subject, TEXT_LIMIT), message: line(&problem.message, TEXT_LIMIT) }
}

/// Several lines, each of them harmless.
fn lines(text: &str) -> String {
    let kept: Vec<String> = text.lines().take(20).map(|text| line(text, TEXT_LIMIT)).collect();
    kept.join("\n")
}

/// Exit codes as numbers; a number that this version doesn't know is no exit code.
mod number {
    use super::ExitCode;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    const ALL: [ExitCode; 9] = [
        ExitCode::Complete,
        ExitCode::Failed,
        ExitCode::Usage,
        ExitCode::Partial,
        ExitCode::StillRunning,
        ExitCode::NotFound,
        ExitCode::Forbidden,
        ExitCode::Integrity,
        ExitCode::Interrupted,
    ];

    pub(super) fn serialize<S: Serializer>(code: &Option<ExitCode>, serializer: S) -> Result<S::Ok, S::Error> {
        code.map(|code| code as u8).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ExitCode>, D::Error> {
        let number = Option::<u8>::deserialize(deserializer)?;
        Ok(number.and_then(|number| ALL.into_iter().find(|code| *code as u8 == number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let id = BackupId::parse("shop-1").unwrap();
        Status::new(id, "backup", "0.1.0", Attempt::parse("uid-1").unwrap(), Timestamp::UNIX_EPOCH)
    }

    fn problem(text: &str) -> Event {
        Event::Problem(Problem { subject: "secrets".into(), message: text.into() })
    }

    #[test]
    fn events_become_a_status_and_back() {
        let mut status = status();
        let (later, end) = (Timestamp::from_second(5).unwrap(), Timestamp::from_second(9).unwrap());
        status.take(&Event::Phase { phase: Phase::Saving }, later);
        status.take(&Event::Progress { counts: Counts { objects: 7, ..Counts::default() } }, later);
        status.take(&problem("no"), later);
        assert_eq!((status.phase, status.counts.objects, status.updated_at), (Phase::Saving, 7, later));
        assert!(!status.is_final());
        status.end(Outcome::Partial, ExitCode::Partial, Some("one\nhint: two"), end);
        assert!(status.is_final());
        let json: serde_json::Value = serde_json::from_str(&status.to_json()).unwrap();
        assert_eq!((&json["exitCode"], &json["outcome"]), (&serde_json::json!(3), &serde_json::json!("Partial")));
        assert_eq!(Status::parse(&status.to_json(), &status.id), Ok(status));
    }

    #[test]
    fn an_interrupted_attempt_is_not_the_end() {
        let mut status = status();
        status.end(Outcome::Cancelled, ExitCode::Interrupted, None, Timestamp::UNIX_EPOCH);
        assert!(!status.is_final());
    }

    #[test]
    fn many_problems_are_counted_and_few_listed() {
        let mut status = status();
        for _ in 0..1000 {
            status.take(&problem(&"\u{1f}\"\\".repeat(100_000)), Timestamp::UNIX_EPOCH);
        }
        assert_eq!((status.problems.len(), status.problems_total), (PROBLEMS_LISTED, 1000));
        status.problems.iter_mut().for_each(|p| p.message = "\u{1f}".repeat(50_000));
        let json = status.to_json();
        assert!(json.len() <= STATUS_LIMIT, "{}", json.len());
        assert_eq!(Status::parse(&json, &status.id).unwrap().problems_total, 1000);
    }

    #[test]
    fn what_is_done_anew_is_no_problem_any_more() {
        let (mut status, long) = (status(), "x".repeat(2 * TEXT_LIMIT));
        let told = [problem("kept"), problem("a\nb"), problem(&long), problem("kept")];
        told.iter().for_each(|event| status.take(event, Timestamp::UNIX_EPOCH));
        for event in &told[..3] {
            let Event::Problem(problem) = event else { continue };
            status.take(&Event::Withdrawn(problem.clone()), Timestamp::UNIX_EPOCH);
        }
        let kept: Vec<&str> = status.problems.iter().map(|problem| problem.message.as_str()).collect();
        assert_eq!((kept, status.problems_total), (vec!["kept"], 1));
    }

    #[test]
    fn what_others_wrote_is_harmless_or_refused() {
        let mut evil = status();
        evil.message = Some("\u{1b}]0;title\u{7}\nhint: \u{202e}x".into());
        evil.problems = vec![Problem { subject: "\u{1b}[2J".into(), message: "a\nb".into() }; 80];
        let read = Status::parse(&evil.to_json(), &evil.id).unwrap();
        assert_eq!(read.message.as_deref(), Some("]0;title\nhint:  x"));
        assert_eq!((read.problems.len(), read.problems_total), (50, 50));
        assert_eq!(read.problems[0], Problem { subject: "[2J".into(), message: "a b".into() });

        let id = BackupId::parse("other").unwrap();
        assert!(Status::parse(&status().to_json(), &id).unwrap_err().to_string().contains("about `shop-1`"));
        for bad in ["", "{}", "[]", &"x".repeat(STATUS_LIMIT + 1)] {
            assert!(Status::parse(bad, &status().id).is_err(), "{:.10}", bad);
        }
    }

    #[test]
    fn exit_codes_of_later_versions_are_no_exit_code() {
        let text = status().to_json().replace("\"phase\"", "\"exitCode\":99,\"phase\"");
        assert_eq!(Status::parse(&text, &status().id).unwrap().exit_code, None);
    }
}
