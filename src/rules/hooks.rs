//! Hooks: the commands that a pod's annotations ask for before and after a backup, ours and Velero's. An annotation that
//! can't be meant is never passed over: a database that was to be frozen and wasn't would look saved.
//!
//! Where one annotation of a pod is wrong, none of its hooks is chosen: to freeze what nothing will thaw is worse.

use super::json::{Labels, Text, parse};
use super::{Error, selection, similar};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How long a command may take where no annotation says so; Velero's default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time that an annotation may ask for.
const LONGEST_TIMEOUT: SignedDuration = SignedDuration::from_hours(16);
/// Lines of a failed command's output that are told.
const TOLD_LINES: usize = 10;
/// Bytes of them.
const TOLD_BYTES: usize = 4096;

/// On which side of the backup a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// Before the revision is chosen.
    Pre,
    /// After the objects are stored, or after it is known that they won't be.
    Post,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pre => "pre",
            Self::Post => "post",
        })
    }
}

/// What it means that a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is a problem, and the backup `Partial`.
    Fail,
    /// It is noted.
    Continue,
}

/// One command in one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Before or after.
    pub when: When,
    /// The annotation that asks for it.
    pub annotation: &'static str,
    /// The container in the pod.
    pub container: String,
    /// The program and its arguments; at least the program.
    pub command: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// What it means that it fails.
    pub on_error: OnError,
}

/// An annotation that can't be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Its key.
    pub annotation: String,
    /// What is wrong, and the way out. Never quotes a command, which may hold a password.
    pub why: String,
}

/// What a pod's annotations ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodHooks {
    /// Nothing.
    None,
    /// Something, but commands can't or shall not run in this pod; the rule says why.
    LeftOut(&'static str),
    /// Something that can't be meant.
    Invalid(Vec<Invalid>),
    /// One hook at most on either side.
    Run {
        /// Before.
        pre: Option<Hook>,
        /// After.
        post: Option<Hook>,
        /// Annotations that another one takes the place of.
        replaced: Vec<Replaced>,
    },
}

/// An annotation with a command that isn't run since another one comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The one that isn't run.
    pub annotation: &'static str,
    /// The one that is.
    pub by: &'static str,
}

/// The annotations of one hook.
struct Keys {
    command: &'static str,
    container: &'static str,
    timeout: &'static str,
    on_error: &'static str,
}

impl Keys {
    fn options(&self) -> [&'static str; 3] {
        [self.container, self.timeout, self.on_error]
    }
}

/// Ours, Velero's, and Velero's older ones; the first one with a command is meant.
const PRE: [Keys; 3] = [
    Keys {
        command: "kubectl-backup/pre",
        container: "kubectl-backup/pre-container",
        timeout: "kubectl-backup/pre-timeout",
        on_error: "kubectl-backup/pre-on-error",
    },
    Keys {
        command: "pre.hook.backup.velero.io/command",
        container: "pre.hook.backup.velero.io/container",
        timeout: "pre.hook.backup.velero.io/timeout",
        on_error: "pre.hook.backup.velero.io/on-error",
    },
    Keys {
        command: "hook.backup.velero.io/command",
        container: "hook.backup.velero.io/container",
        timeout: "hook.backup.velero.io/timeout",
        on_error: "hook.backup.velero.io/on-error",
    },
];
const POST: [Keys; 2] = [
    Keys {
        command: "kubectl-backup/post",
        container: "kubectl-backup/post-container",
        timeout: "kubectl-backup/post-timeout",
        on_error: "kubectl-backup/post-on-error",
    },
    Keys {
        command: "post.hook.backup.velero.io/command",
        container: "post.hook.backup.velero.io/container",
        timeout: "post.hook.backup.velero.io/timeout",
        on_error: "post.hook.backup.velero.io/on-error",
    },
];
/// An annotation that begins like this is about hooks.
const PREFIXES: [&str; 5] = [
    "kubectl-backup/pre-",
    "kubectl-backup/post-",
    "pre.hook.backup.velero.io/",
    "post.hook.backup.velero.io/",
    "hook.backup.velero.io/",
];

fn all_keys() -> impl Iterator<Item = &'static str> {
    let of = |keys: &'static Keys| [keys.command].into_iter().chain(keys.options());
    PRE.iter().chain(&POST).flat_map(of)
}

fn is_about_hooks(key: &str) -> bool {
    PREFIXES.iter().any(|prefix| key.starts_with(prefix)) || all_keys().any(|known| known == key)
}

#[derive(Deserialize)]
struct Annotated<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta<'a> {
    #[serde(borrow)]
    annotations: Labels<'a>,
    #[serde(borrow)]
    labels: Labels<'a>,
    #[serde(borrow)]
    deletion_timestamp: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    containers: Vec<Container<'a>>,
    #[serde(borrow)]
    init_containers: Vec<Container<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    /// `Always` makes an init container a sidecar, which runs beside the others.
    #[serde(borrow, default)]
    restart_policy: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
}

/// Whether a pod has any annotation about hooks. Reads metadata only, so that a list of nothing else finds them.
///
/// # Errors
/// JSON that isn't shaped as an object.
pub fn is_annotated(raw: &str) -> Result<bool, Error> {
    let object: Annotated<'_> = parse(raw)?;
    Ok(object.metadata.annotations.keys().any(is_about_hooks))
}

/// What a pod's annotations ask for.
///
/// # Errors
/// JSON that isn't shaped as a pod.
pub fn of_pod(raw: &str) -> Result<PodHooks, Error> {
    let pod: Pod<'_> = parse(raw)?;
    let annotations = &pod.metadata.annotations;
    if !annotations.keys().any(is_about_hooks) {
        return Ok(PodHooks::None);
    }
    if let Some(rule) = selection::excluded_by_label(&pod.metadata.labels) {
        return Ok(PodHooks::LeftOut(rule));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Ok(PodHooks::LeftOut("hooks run in pods that are not terminating"));
    }
    if &*pod.status.phase != "Running" {
        return Ok(PodHooks::LeftOut("hooks run in pods that are running"));
    }
    let mut reading = Reading { spec: &pod.spec, annotations, invalid: Vec::new(), replaced: Vec::new() };
    reading.unknown();
    let pre = reading.hook(When::Pre, &PRE);
    let post = reading.hook(When::Post, &POST);
    let Reading { invalid, replaced, .. } = reading;
    Ok(match (pre, post) {
        _ if !invalid.is_empty() => PodHooks::Invalid(invalid),
        (None, None) => PodHooks::None,
        (pre, post) => PodHooks::Run { pre, post, replaced },
    })
}

/// The annotations of a pod while they are read.
struct Reading<'a> {
    spec: &'a Spec<'a>,
    annotations: &'a Labels<'a>,
    invalid: Vec<Invalid>,
    replaced: Vec<Replaced>,
}

impl Reading<'_> {
    fn wrong(&mut self, annotation: &str, why: impl Into<String>) {
        self.invalid.push(Invalid { annotation: annotation.to_owned(), why: why.into() });
    }

    /// A value that says something; an empty one, as a template may leave it, says nothing.
    fn value(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(str::trim).filter(|value| !value.is_empty())
    }

    fn unknown(&mut self) {
        let known: Vec<&str> = all_keys().collect();
        let unknown = self.annotations.keys().filter(|key| is_about_hooks(key) && !known.contains(key));
        let mut unknown: Vec<String> = unknown.map(str::to_owned).collect();
        unknown.sort();
        for key in unknown {
            let near = similar(&key, known.iter().copied());
            let hint = near.first().map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
            self.wrong(&key, format!("there is no such annotation{hint}"));
        }
    }

    /// The hook of the first of these that has a command.
    fn hook(&mut self, when: When, families: &'static [Keys]) -> Option<Hook> {
        let mut chosen: Option<&Keys> = None;
        for keys in families {
            match (self.value(keys.command), chosen) {
                (Some(_), None) => chosen = Some(keys),
                (Some(_), Some(first)) => {
                    self.replaced.push(Replaced { annotation: keys.command, by: first.command });
                }
                (None, _) if self.annotations.get(keys.command).is_none() => {
                    let stray = keys.options().into_iter().find(|key| self.value(key).is_some());
                    if let Some(key) = stray {
                        self.wrong(
                            key,
                            format!("it belongs to a command, and there is no annotation `{}`", keys.command),
                        );
                    }
                }
                (None, _) => (),
            }
        }
        let keys = chosen?;
        let (command, container) = (self.command(keys.command), self.container(keys.container));
        let (timeout, on_error) = (self.timeout(keys.timeout), self.on_error(keys.on_error));
        Some(Hook {
            when,
            annotation: keys.command,
            container: container?,
            command: command?,
            timeout: timeout?,
            on_error: on_error?,
        })
    }

    /// A JSON array of words as it is, or one word. No shell: none needs to be in the container.
    fn command(&mut self, key: &str) -> Option<Vec<String>> {
        let text = self.value(key)?.to_owned();
        let array = "write a JSON array of strings, such as [\"/bin/sh\", \"-c\", \"COMMAND\"]";
        if !text.starts_with('[') {
            if text.contains(char::is_whitespace) {
                self.wrong(key, format!("no shell takes it apart, so it would be one program's name: {array}"));
                return None;
            }
            return Some(vec![text]);
        }
        match serde_json::from_str::<Vec<String>>(&text) {
            Ok(words) if words.first().is_some_and(|program| !program.is_empty()) => Some(words),
            Ok(_) => {
                self.wrong(key, format!("it names no program: {array}"));
                None
            }
            // the parser's own text may quote what is there
            Err(_) => {
                self.wrong(key, format!("it begins like a JSON array and is none: {array}"));
                None
            }
        }
    }

    fn container(&mut self, key: &str) -> Option<String> {
        let sidecar =
            |container: &&Container<'_>| container.restart_policy.as_ref().is_some_and(|policy| &**policy == "Always");
        let spec = self.spec;
        let names = spec.containers.iter().chain(spec.init_containers.iter().filter(sidecar)).map(|c| &*c.name);
        let names: Vec<&str> = names.collect();
        let (wanted, first) = (self.value(key).map(str::to_owned), names.first().copied());
        match wanted {
            None => first.map(str::to_owned),
            Some(wanted) if names.contains(&wanted.as_str()) => Some(wanted),
            Some(wanted) => {
                let there: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                self.wrong(key, format!("the pod has no container `{wanted}`, it has {}", there.join(", ")));
                None
            }
        }
    }

    fn timeout(&mut self, key: &str) -> Option<Duration> {
        let Some(text) = self.value(key).map(str::to_owned) else { return Some(DEFAULT_TIMEOUT) };
        let why = match text.parse::<SignedDuration>() {
            Ok(time) if time > LONGEST_TIMEOUT => "it is longer than 16 hours".to_owned(),
            Ok(time) if time.is_positive() => return Some(time.unsigned_abs()),
            Ok(_) => "it is not longer than 0".to_owned(),
            Err(_) if text.parse::<u64>().is_ok() => format!("`{text}` has no unit: write `{text}s`"),
            Err(_) => format!("`{text}` is not a duration: write one like `30s`, `1m30s` or `2h`"),
        };
        self.wrong(key, why);
        None
    }

    fn on_error(&mut self, key: &str) -> Option<OnError> {
        match self.value(key).map(str::to_owned) {
            None => Some(OnError::Fail),
            Some(text) if text.eq_ignore_ascii_case("fail") => Some(OnError::Fail),
            Some(text) if text.eq_ignore_ascii_case("continue") => Some(OnError::Continue),
            Some(text) => {
                self.wrong(key, format!("`{text}` is neither `Fail` nor `Continue`"));
                None
            }
        }
    }
}

/// The last lines of what a command wrote, on one line and without anything that steers a terminal; empty where it wrote
/// nothing.
pub fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = lines[lines.len().saturating_sub(TOLD_LINES)..].join(" / ");
    let visible: String = told
        .chars()
        .map(|c| if steers(c) { c.escape_unicode().to_string() } else { c.to_string() })
        .collect::<Vec<_>>()
        .concat();
    let mut from = visible.len().saturating_sub(TOLD_BYTES);
    while !visible.is_char_boundary(from) {
        from += 1;
    }
    if from == 0 { visible } else { format!("…{}", &visible[from..]) }
}

/// Control characters, and those that turn the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
