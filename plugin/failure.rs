//! How a command ends that can't do what it was asked: `error: …`, then `hint: …` lines on stderr, and the exit code.

use crate::screen::{Color, Screen, tell};
use crate::text::safe;
use kubectl_backup::report::ExitCode;
use kubectl_backup::worker::told;
use kubectl_backup::{config, jobs, operations};

/// An error of the plugin itself, with the exit code that it means.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) code: ExitCode,
    /// What happened, then `hint:` lines.
    pub(crate) text: String,
}

impl Failure {
    /// An error with its exit code.
    pub(crate) fn new(code: ExitCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Something that the person asked for and that can't be meant.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, text)
    }
}

/// How a program ends that ends with this error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.code;
        }
        if let Some(error) = cause.downcast_ref::<jobs::Error>() {
            return error.exit_code();
        }
        if cause.downcast_ref::<config::Error>().is_some() {
            return ExitCode::Usage;
        }
    }
    operations::exit_code(error)
}

/// Tells an error.
pub(crate) fn tell_error(error: &anyhow::Error, screen: &Screen) {
    lines(&told(error), screen).iter().for_each(|line| tell(line));
}

/// The lines of an error: what happened, then every way out.
fn lines(text: &str, screen: &Screen) -> Vec<String> {
    let line = |line: &str| match line.strip_prefix("hint: ") {
        Some(hint) => format!("{} {}", screen.err(Color::Cyan, "hint:"), safe(hint)),
        None => format!("{} {}", screen.err(Color::Red, "error:"), safe(line)),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::ColorChoice;
    use anyhow::Context as _;

    #[test]
    fn errors_and_hints_are_lines_and_steer_nothing() {
        let error: anyhow::Error = Failure::usage("`x` is \u{1b}[2Jwrong\nhint: use `y`").into();
        let error = Err::<(), _>(error).context("reading `x`").unwrap_err();
        let never = Screen::new(ColorChoice::Never);
        assert_eq!(lines(&told(&error), &never), ["error: reading `x`: `x` is \\u{1b}[2Jwrong", "hint: use `y`",]);
        let always = lines(&told(&error), &Screen::new(ColorChoice::Always));
        assert!(always[1].starts_with("\u{1b}[36mhint:\u{1b}[0m "), "{always:?}");
    }

    #[test]
    fn exit_codes_are_found_below_context() {
        let failure = |code| anyhow::Error::from(Failure::new(code, "x")).context("a step");
        assert_eq!(exit_code(&failure(ExitCode::NotFound)), ExitCode::NotFound);
        let config = anyhow::Error::from(config::Error::Yaml("x".into())).context("a step");
        assert_eq!(exit_code(&config), ExitCode::Usage);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), ExitCode::Failed);
    }
}
