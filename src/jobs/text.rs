//! Text from the cluster that a person will see: ConfigMaps, events and pod states can be written by others, so what
//! steers a terminal is taken out, and lengths are bounded.

/// One line of at most `limit` characters: control characters, line breaks and marks that turn the writing direction
/// become spaces; what is cut ends with `…`.
pub(crate) fn line(text: &str, limit: usize) -> String {
    let harmless = |c: char| match c {
        c if c.is_control() => ' ',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => ' ',
        c => c,
    };
    let clean = text.chars().map(harmless).skip_while(|c| *c == ' ');
    let mut kept: String = clean.take(limit + 1).collect();
    kept.truncate(kept.trim_end().len());
    if let Some((at, _)) = kept.char_indices().nth(limit) {
        kept.truncate(at);
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_passes() {
        assert_eq!(line("a\u{1b}[31mred\nb\u{9b}2J\u{202e}c\t", 100), "a [31mred b 2J c");
        assert_eq!(line("\n\u{7} x", 1), "x");
        assert_eq!(line("  plain, with ümläuts and 漢字 ", 100), "plain, with ümläuts and 漢字");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(line("äöüä", 4), "äöüä");
        assert_eq!(line("äöüäö", 4), "äöüä…");
    }
}
