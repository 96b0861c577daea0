//! The two streams of a command and what may be done to them: data goes to stdout, everything else to stderr; colour and
//! movement only where a terminal is at the other end.

use anyhow::Context as _;
use clap::ValueEnum;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// `--color`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb` says otherwise.
    #[default]
    Auto,
    /// Also into pipes and files.
    Always,
    /// Nowhere.
    Never,
}

/// What the two streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Screen {
    /// Colours on stdout.
    color_out: bool,
    /// Colours on stderr.
    color_err: bool,
    /// Whether stderr is a terminal on which a line may move.
    pub(crate) moves: bool,
    /// Whether a person can be asked: stdin and stderr are terminals.
    pub(crate) asks: bool,
}

/// What a screen depends on.
struct Surroundings {
    no_color: bool,
    dumb: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Screen {
    /// The screen of this process.
    pub(crate) fn new(choice: ColorChoice) -> Self {
        // an empty NO_COLOR counts as unset (no-color.org)
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let (stdin, stdout, stderr) =
            (io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal());
        Self::in_surroundings(choice, &Surroundings { no_color, dumb, stdin, stdout, stderr })
    }

    fn in_surroundings(choice: ColorChoice, around: &Surroundings) -> Self {
        let color = |terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !around.no_color && !around.dumb,
        };
        Self {
            color_out: color(around.stdout),
            color_err: color(around.stderr),
            moves: around.stderr && !around.dumb,
            asks: around.stdin && around.stderr,
        }
    }

    /// Text for stdout in a colour.
    pub(crate) fn out(&self, color: Color, text: &str) -> String {
        color.paint(text, self.color_out)
    }

    /// Text for stderr in a colour.
    pub(crate) fn err(&self, color: Color, text: &str) -> String {
        color.paint(text, self.color_err)
    }
}

/// The few colours there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Color {
    /// As the rest.
    Plain,
    /// Done.
    Green,
    /// Done in part; take care.
    Yellow,
    /// Failed.
    Red,
    /// The way out.
    Cyan,
    /// Of less weight.
    Dim,
}

impl Color {
    fn paint(self, text: &str, on: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            _ if !on => return text.to_owned(),
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "1;31",
            Self::Cyan => "36",
            Self::Dim => "2",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Whether somebody still reads what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As far as can be told.
    There,
    /// The other end of the pipe is closed. That is the reader's choice (`| head`) and no error.
    Left,
}

/// Writes data to stdout.
///
/// # Errors
/// What keeps it from being written, such as a full disk.
pub(crate) fn print(text: &str) -> anyhow::Result<Reader> {
    let mut stdout = io::stdout().lock();
    forgiving(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())).context("writing to stdout")
}

fn forgiving(result: io::Result<()>) -> io::Result<Reader> {
    match result {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Left),
        Err(error) => Err(error),
    }
}

/// Writes a line to stderr. When even that can't be written there is nobody left to tell.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Lets the engine's warnings through to stderr; `KUBECTL_BACKUP_LOG=debug` lets more through. kube's client is kept
/// silent, since it logs whole answers that it can't parse.
pub(crate) fn start_warnings(screen: Screen) {
    use tracing_subscriber::EnvFilter;
    let filter = std::env::var("KUBECTL_BACKUP_LOG").ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("warn,kube_client=off,aws=error,hyper=error"));
    let subscriber = tracing_subscriber::fmt()
        .compact()
        .without_time()
        .with_target(false)
        .with_ansi(screen.color_err)
        .with_env_filter(filter)
        .with_writer(move || LineWriter { screen });
    // refused only where there is a subscriber already, and then that one does it
    let _ = subscriber.try_init();
}

/// Writes lines where a moving line may stand.
struct LineWriter {
    screen: Screen,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr().lock();
        if self.screen.moves {
            stderr.write_all(b"\r\x1b[2K")?;
        }
        stderr.write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings { no_color: false, dumb: false, stdin: true, stdout: true, stderr: true }
    }

    #[test]
    fn colours_need_a_terminal_or_a_wish() {
        use ColorChoice::{Always, Auto, Never};
        let paint = |choice, around: Surroundings| Screen::in_surroundings(choice, &around).out(Color::Green, "x");
        assert_eq!(paint(Auto, around()), "\u{1b}[32mx\u{1b}[0m");
        for plain in [
            Surroundings { stdout: false, ..around() },
            Surroundings { no_color: true, ..around() },
            Surroundings { dumb: true, ..around() },
        ] {
            assert_eq!(paint(Auto, plain), "x");
        }
        assert_eq!(paint(Never, around()), "x");
        assert_ne!(paint(Always, Surroundings { stdout: false, no_color: true, ..around() }), "x");
    }

    #[test]
    fn nothing_moves_and_nobody_is_asked_without_a_terminal() {
        let screen = |around: Surroundings| Screen::in_surroundings(ColorChoice::Always, &around);
        assert!(screen(around()).moves && screen(around()).asks);
        assert!(!screen(Surroundings { stderr: false, ..around() }).moves);
        assert!(!screen(Surroundings { dumb: true, ..around() }).moves);
        assert!(!screen(Surroundings { stdin: false, ..around() }).asks);
        assert!(!screen(Surroundings { stderr: false, ..around() }).asks);
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        assert_eq!(forgiving(Err(ErrorKind::BrokenPipe.into())).unwrap(), Reader::Left);
        assert_eq!(forgiving(Ok(())).unwrap(), Reader::There);
        assert!(forgiving(Err(ErrorKind::StorageFull.into())).is_err());
    }
}
