//! What the first bytes of a value say. Nothing is opened: this is what a value claims.

use keyfold::ErrorKind;
use keyfold::wire::{BODY_TEXT_PREFIX, DocumentHeader, HEADER_LEN, KeyId, MAGIC, Suite, TEXT_PREFIX, from_text};
use keyfold_tables::Cell;

/// Bytes or characters of each value that are enough, behind a prefix in clear of ordinary length.
pub(crate) const EXTENT: u32 = 128;
/// Characters of the text form that say magic, suite and key ID: `kf1.`, ten digits, a dot, and 28 of base64url for the
/// fingerprint and one byte more.
const TEXT_LEN: usize = 4 + 10 + 1 + 28;

/// What a value looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    Null,
    Empty,
    /// It does not look sealed.
    Clear,
    /// A value of a document, whose header says the key.
    Part,
    /// It looks sealed, and is damaged or of a suite that this build does not know.
    Malformed,
    Sealed(Suite, KeyId),
}

impl Seen {
    pub(crate) fn cell(cell: &Cell) -> Self {
        match cell {
            Cell::Null => Self::Null,
            Cell::Text(text) => Self::text(text),
            Cell::Bytes(bytes) => Self::bytes(bytes),
        }
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::Empty,
            [MAGIC] => Self::Malformed,
            [MAGIC, suite, ..] => match (Suite::from_id(*suite), bytes[2..].first_chunk()) {
                (Ok(suite), Some(key_id)) if bytes.len() > HEADER_LEN => {
                    Self::Sealed(suite, KeyId::from_bytes(*key_id))
                }
                _ => Self::Malformed,
            },
            // Drivers hand text out as bytes from columns that are declared so.
            _ => std::str::from_utf8(bytes).map_or(Self::Clear, Self::text),
        }
    }

    /// A text, which may have a prefix in clear.
    pub(crate) fn text(text: &str) -> Self {
        if text.starts_with(BODY_TEXT_PREFIX) {
            return Self::Part;
        }
        if let Ok(header) = DocumentHeader::from_text(text) {
            return Self::Sealed(Suite::Document, header.key_id());
        }
        let Some(at) = text.find(TEXT_PREFIX) else {
            return if text.is_empty() { Self::Empty } else { Self::Clear };
        };
        let start = text.as_bytes()[at..].get(..TEXT_LEN).unwrap_or(&text.as_bytes()[at..]);
        let mut bytes = Vec::with_capacity(HEADER_LEN + 1);
        match from_text(start, &mut bytes) {
            Ok(()) if start.len() == TEXT_LEN => Self::bytes(&bytes),
            // A text that merely mentions the prefix is a text.
            Err(error) if at > 0 && error.kind() == ErrorKind::Malformed => Self::Clear,
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::wire::push_text;

    fn sealed(suite: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![MAGIC, suite, 0, 0, 0, 7];
        bytes.extend((0..len).map(|at| at as u8));
        bytes
    }

    #[test]
    fn reads_what_a_whole_value_says() {
        for (suite, known) in [(1, Suite::Field), (2, Suite::Deterministic)] {
            let bytes = sealed(suite, 80);
            let key_id = KeyId::from_bytes(*bytes[2..].first_chunk().expect("24 bytes"));
            let expected = Seen::Sealed(known, key_id);
            let mut text = b"Patient/".to_vec();
            push_text(&bytes, &mut text).expect("a text form");
            let text = String::from_utf8(text).expect("ASCII");
            assert_eq!(key_id.generation(), 7);
            assert_eq!(Seen::bytes(&bytes), expected);
            assert_eq!(Seen::text(&text), expected);
            assert_eq!(Seen::text(&text[8..]), expected);
            // The start is enough.
            assert_eq!(Seen::text(&text[..8 + TEXT_LEN]), expected);
            assert_eq!(Seen::bytes(&bytes[..HEADER_LEN + 1]), expected);
            assert_eq!(Seen::bytes(text.as_bytes()), expected);
        }
        assert!(matches!(Seen::bytes(&sealed(3, 80)), Seen::Sealed(Suite::Frame, _)));
    }

    #[test]
    fn tells_what_is_no_value() {
        let mut text = Vec::new();
        push_text(&sealed(1, 80), &mut text).expect("a text form");
        let text = String::from_utf8(text).expect("ASCII");
        for (seen, expected) in [
            (Seen::text(""), Seen::Empty),
            (Seen::bytes(b""), Seen::Empty),
            (Seen::text("999-81-5679"), Seen::Clear),
            (Seen::text("kf1d.AAAA"), Seen::Part),
            (Seen::text("see kf1.txt"), Seen::Clear),
            (Seen::bytes(&[0xFF, 0]), Seen::Clear),
            (Seen::text(&text[..TEXT_LEN - 1]), Seen::Malformed),
            (Seen::text("kf1.hello"), Seen::Malformed),
            (Seen::text(&text.replace("kf1.01", "kf1.09")), Seen::Malformed),
            (Seen::bytes(&sealed(1, 80)[..HEADER_LEN]), Seen::Malformed),
            (Seen::bytes(&[MAGIC]), Seen::Malformed),
            (Seen::bytes(&sealed(9, 80)), Seen::Malformed),
        ] {
            assert_eq!(seen, expected);
        }
    }
}
