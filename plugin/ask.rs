//! Asking a person before something is done.

use crate::failure::Failure;
use crate::screen::{Screen, tell};
use anyhow::Context as _;
use kubectl_backup::report::ExitCode;
use std::io::{self, Write};

/// Asks whether to do something, and takes only `y` or `yes` for a yes.
///
/// # Errors
/// Nobody can be asked; Ctrl-C.
pub(crate) async fn agreed(deed: &str, screen: &Screen) -> anyhow::Result<bool> {
    if !screen.asks {
        let text = format!(
            "nobody can be asked whether to {deed}: this is not a terminal\n\
             hint: `--yes` agrees beforehand"
        );
        return Err(Failure::usage(text).into());
    }
    let mut prompt = format!("{deed}? [y/N] ");
    if let Some(first) = prompt.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    // the lock on stderr ends here: who reads on must not keep others from telling something
    io::stderr().lock().write_all(prompt.as_bytes()).context("asking")?;
    let reading = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        answer = reading => Ok(is_yes(&answer.context("asking")?.context("reading the answer")?)),
        _ = tokio::signal::ctrl_c() => {
            tell(""); // the prompt's line is not ours any more
            Err(Failure::new(ExitCode::Interrupted, "interrupted; nothing was changed").into())
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(["y\n", "Y\n", "yes\n", " YES \n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n\n", "no\n", "yeah\n", "ja\n"].into_iter().any(is_yes));
    }
}
