//! Names in texts. They come from configurations and audit files, and are to be read as what they are.

use std::fmt::Display;

/// Whether a character stands for itself. Controls do not, nor what is not seen or turns others around: zero-width characters, marks of
/// writing direction, unusual spaces. A name could be made to read as another one by these.
#[must_use]
pub fn is_plain(c: char) -> bool {
    // The standard library knows which characters are printable, but says it by escaping alone, and escapes quotes as well. Behind another
    // character combining marks stay as they are.
    matches!(c, ' '..='~') || ['a', c].iter().collect::<String>().escape_debug().nth(1) != Some('\\')
}

/// Adds a character, escaped unless it is plain.
pub(crate) fn push(out: &mut String, c: char) {
    match is_plain(c) {
        true => out.push(c),
        false => out.extend(c.escape_default()),
    }
}

/// So many things of a kind that is named by its singular.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(n: N, what: &str) -> String {
    let end = if n == N::from(1) { "" } else { "s" };
    format!("{n} {what}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Failure T11
    #[test]
    fn what_is_not_seen_is_escaped() {
        let shown = |text: &str| {
            let mut out = String::new();
            text.chars().for_each(|c| push(&mut out, c));
            out
        };
        for (text, expected) in [
            ("patient.ssn 'a' \"b\" \\", "patient.ssn 'a' \"b\" \\"),
            ("Ångström, e\u{301}, 患者, नाम", "Ångström, e\u{301}, 患者, नाम"),
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{200b}\u{feff}\u{2066}\u{ad}b", "a\\u{200b}\\u{feff}\\u{2066}\\u{ad}b"),
            ("a\u{a0}b\u{2028}", "a\\u{a0}b\\u{2028}"),
            ("\n\0\u{e0041}", "\\n\\u{0}\\u{e0041}"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
