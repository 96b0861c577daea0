//! No Secret's value in anything that a run tells, however it fails: its error or result, its events, and its log at the
//! level at which most is told.

use crate::planted::{PLANTED, needles};
use kubectl_backup::operations::{Done, Verb};
use std::io::Write;
use std::sync::{LazyLock, Mutex, Once};

/// A value that was logged, and where.
static LOGGED: Mutex<Option<String>> = Mutex::new(None);

fn leak(text: &str) -> Option<&'static str> {
    static NEEDLES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| needles(PLANTED));
    NEEDLES.iter().find(|(needle, _)| text.contains(needle)).map(|(_, form)| form.as_str())
}

pub(crate) fn check(what: &str, text: &str) {
    assert_eq!(leak(text), None, "{what} holds a Secret's value: {text}");
}

/// What a run came to. Who asks for a Secret's value sees it.
pub(crate) fn check_run(verb: &Verb, result: &anyhow::Result<Done>) {
    match result {
        Err(error) => check("an error", &format!("{error:?}\n{error:#}")),
        Ok(done) => {
            check("a message", &done.message);
            if let Some(result) = done.result.as_ref().filter(|_| !matches!(verb, Verb::Show(_))) {
                check("a result", &String::from_utf8_lossy(&result.open().unwrap()));
            }
        }
    }
    assert_eq!(*LOGGED.lock().unwrap(), None, "logged");
}

/// Searches what is logged from now on.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let log = tracing_subscriber::fmt().with_ansi(false).with_env_filter("warn,kubectl_backup=trace");
        log.with_writer(|| Search).init();
    });
}

struct Search;

impl Write for Search {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        if leak(&text).is_some() {
            *LOGGED.lock().unwrap() = Some(text.into_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
