//! Asking a person before something is done.

use crate::failure::Failure;
use crate::screen::Screen;
use kubectl_backup::report::ExitCode;
use std::io::{self, Write};

/// Asks, and takes only `y` or `yes` for a yes.
///
/// # Errors
/// Nobody can be asked; Ctrl-C.
pub(crate) async fn agreed(question: &str, screen: &Screen) -> anyhow::Result<bool> {
    if !screen.asks {
        let text =
            format!("{question} Nobody can be asked, since this is not a terminal\nhint: `--yes` agrees beforehand");
        return Err(Failure::usage(text).into());
    }
    let prompt = format!("{question} [y/N] ");
    let reading = tokio::task::spawn_blocking(move || {
        let mut stderr = io::stderr().lock();
        stderr.write_all(prompt.as_bytes()).and_then(|()| stderr.flush())?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        answer = reading => Ok(is_yes(&answer??)),
        _ = tokio::signal::ctrl_c() => Err(Failure::new(ExitCode::Interrupted, "interrupted; nothing was changed").into()),
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
