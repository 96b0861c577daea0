//! How numbers and other people's texts are written for a person: ages as kubectl writes them, sizes in binary units,
//! and names out of a cluster or bucket without anything that steers a terminal.

use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// How long ago something was, as kubectl writes it (`k8s.io/apimachinery/pkg/util/duration`, HumanDuration): two units
/// while the second one says something, one after that.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(then))
}

/// A span of time in the words of [`age`].
pub(crate) fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs();
    if seconds < -1 {
        return "<invalid>".to_owned(); // the clocks differ; kubectl says the same
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let two = |a: i64, unit_a: &str, b: i64, unit_b: &str| {
        if b == 0 { format!("{a}{unit_a}") } else { format!("{a}{unit_a}{b}{unit_b}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => two(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

/// How long something took: tenths of a second while they matter.
pub(crate) fn took(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1}s");
    }
    span(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
}

/// Bytes in binary units: `512 B`, `1.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // what would be rounded to 1024 is one of the next unit
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number with commas, so that long ones can be read: `12,345`.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 object`, `2 objects`, `3 policies`.
pub(crate) fn count(how_many: u64, one: &str) -> String {
    let many = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    format!("{} {}", number(how_many), if how_many == 1 { one } else { &many })
}

/// Whether a character steers a terminal, or hides or turns the text around it.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Other people's text on one line: what steers a terminal is shown as an escape.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => clean.push_str("\\n"),
            '\t' => clean.push_str("\\t"),
            '\r' => clean.push_str("\\r"),
            c if steers(c) => {
                let _ = write!(clean, "\\u{{{:x}}}", u32::from(c)); // a String takes all that is written to it
            }
            c => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

/// JSON that can be shown on a terminal: what JSON needn't escape but steers a terminal is escaped, which changes
/// nothing of what it means, since such characters stand in strings only.
pub(crate) fn safe_json(json: &str) -> Cow<'_, str> {
    let outside_strings = |c: char| matches!(c, '\n' | ' ');
    if !json.chars().any(|c| steers(c) && !outside_strings(c)) {
        return Cow::Borrowed(json);
    }
    let mut clean = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if steers(c) && !outside_strings(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(clean, "\\u{unit:04x}");
            }
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

/// Reads a duration as kubectl's flags take it: `30s`, `5m`, `1h30m`, or a number of seconds.
///
/// # Errors
/// The sentence for the person.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write `30s`, `5m` or `1h30m`");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0).ok_or_else(wrong)?;
        let (number, unit) = rest.split_at(digits);
        let length = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(length);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let one = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(wrong()),
        };
        let part = u32::try_from(number).ok().and_then(|number| one.checked_mul(number)).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        // the table of k8s.io/apimachinery/pkg/util/duration/duration_test.go
        let (minute, hour, day) = (60, 3600, 24 * 3600);
        for (seconds, text) in [
            (0, "0s"),
            (-5, "<invalid>"),
            (70, "70s"),
            (minute + 59, "119s"),
            (2 * minute, "2m"),
            (2 * minute + 5, "2m5s"),
            (9 * minute + 59, "9m59s"),
            (10 * minute, "10m"),
            (3 * hour - 1, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 12 * minute, "3h12m"),
            (8 * hour, "8h"),
            (47 * hour, "47h"),
            (48 * hour, "2d"),
            (2 * day + hour, "2d1h"),
            (8 * day, "8d"),
            (2 * 365 * day - 1, "729d"),
            (2 * 365 * day, "2y"),
            (2 * 365 * day + 25 * hour, "2y1d"),
            (8 * 365 * day, "8y"),
        ] {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_and_numbers() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_468_006, "1.4 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((number(999), number(1000), number(1_234_567)), ("999".into(), "1,000".into(), "1,234,567".into()));
        assert_eq!((count(1, "object"), count(0, "entry")), ("1 object".into(), "0 entries".into()));
        assert_eq!(took(Duration::from_millis(2340)), "2.3s");
        assert_eq!(took(Duration::from_secs(75)), "75s");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(safe("plain, ümläut, 漢字"), "plain, ümläut, 漢字");
        assert_eq!(safe("a\u{1b}[31m\u{9b}2J\u{202e}x\n"), "a\\u{1b}[31m\\u{9b}2J\\u{202e}x\\n");
    }

    #[test]
    fn json_means_the_same_when_it_is_safe() {
        let value = serde_json::json!({"a\u{9b}": ["\u{7f}", "\u{202e}\u{e0041}\u{1b}\n", "ü", " "]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let clean = safe_json(&text);
        assert!(!clean.chars().any(|c| steers(c) && c != '\n'), "{clean}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&clean).unwrap(), value);
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h30m", 5400), ("90", 90), ("0", 0), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "5 m", "5x", "-5s", "1.5h", "99999999999999999999s", "5m3"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
