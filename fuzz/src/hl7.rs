//! HL7 v2 messages: read whole whatever the pieces, and what was protected comes back.

use crate::files::hl7::{Delimiters, Located, MAX_MESSAGE_LEN, Message, MessageSource, SegmentPath, SegmentRules};
use crate::lab::{fields, ring};
use crate::pieces::Pieces;
use keyfold::Value;
use keyfold::wire::looks_sealed_text;
use keyfold_documents::{FieldCipher, splice};
use std::ops::Range;
use std::sync::OnceLock;

const POLICY: &str = r#"version = 1
[fields.name]
row_binding = "none"
segments = ["PID-5"]
"#;

/// Fields, components, subcomponents; the last two may be parts of a field that repeats.
const PLACES: [&str; 6] = ["MSH-3", "PID-5", "PID-3.1", "PID-3.2.1", "NK1-2", "OBX-5"];

struct Lab {
    name: [FieldCipher; 2],
    paths: Vec<SegmentPath>,
    rules: SegmentRules,
}

/// How values are spelled when they are sealed.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    /// As they stand, in the standard delimiters.
    Keep,
    /// Without escapes.
    Normalise,
}

/// The first byte chooses the spelling and the pieces in which the file comes; the rest is the file.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        let [name] = fields(&ring(POLICY), ["name"]);
        let paths: Vec<_> = PLACES.iter().map(|place| SegmentPath::parse(place).expect("a place")).collect();
        Lab { name, rules: SegmentRules::new(paths.clone()).expect("apart"), paths }
    });
    let Some((&choice, file)) = data.split_first() else { return };
    let spelling = if choice & 1 == 0 { Spelling::Keep } else { Spelling::Normalise };
    let messages = messages(file, 1 + usize::from(choice >> 1));
    assert_eq!(messages.concat(), file, "bytes were lost");
    assert!(self::messages(file, usize::MAX) == messages, "the pieces decide where messages end");
    for (raw, number) in messages.iter().zip(1..) {
        let Ok(Some(message)) = Message::parse(raw, number) else { continue };
        let walked = message.walk(|path, value| {
            assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "{path}: a value over several lines");
            Ok::<_, ()>(())
        });
        assert_eq!(walked, Ok(()));
        // What nobody protected is not revealed.
        let located = message.locate(&lab.rules).expect("few values");
        assert!(lab.reveal(&message, &located, spelling).is_none() || located.is_empty());
        let Some(sealed) = lab.protect(&message, &located, spelling) else { continue };
        let again = Message::parse(&sealed, number).expect("what is written is read").expect("a message");
        let places = again.locate(&lab.rules).expect("few values");
        let all =
            |located: &[Located]| located.iter().map(|at| (at.rule, at.segment, at.repetition)).collect::<Vec<_>>();
        assert_eq!(all(&places), all(&located), "values are at other places");
        assert!(places.iter().all(|at| looks_sealed_text(&sealed[at.span.clone()])), "a value stayed in clear");
        let opened = lab.reveal(&again, &places, spelling).expect("what was protected is revealed");
        match spelling {
            Spelling::Keep => assert_eq!(opened.escape_ascii().to_string(), raw.escape_ascii().to_string()),
            // Other escapes may say the same.
            Spelling::Normalise => {
                let back = Message::parse(&opened, number).expect("what is written is read").expect("a message");
                let found = back.locate(&lab.rules).expect("few values");
                assert_eq!(texts(&back, &found, spelling), texts(&message, &located, spelling));
            }
        }
    }
}

fn messages(file: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut source = MessageSource::new(Pieces(file, piece), MAX_MESSAGE_LEN);
    let mut messages = Vec::new();
    while let Some(batch) = source.next_batch().expect("a short file") {
        messages.extend(batch.messages().map(|(raw, _)| raw.to_vec()));
    }
    messages
}

/// The values as they are sealed; `None` if one has no such spelling.
fn texts(message: &Message<'_>, located: &[Located], spelling: Spelling) -> Option<Vec<String>> {
    let spell = |text, delimiters: &Delimiters| match spelling {
        Spelling::Keep => delimiters.to_standard(text).ok().map(|text| text.into_owned()),
        Spelling::Normalise => delimiters.decode(text).ok().map(|text| text.into_owned()),
    };
    located.iter().map(|at| spell(message.text(at.span.clone()).ok()?, message.delimiters())).collect()
}

fn spliced(raw: &[u8], located: &[Located], new: Vec<Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    let spans: Vec<(Range<usize>, Vec<u8>)> = located.iter().map(|at| at.span.clone()).zip(new).collect();
    splice(raw, spans, &mut out).expect("values do not overlap");
    out
}

impl Lab {
    fn protect(&self, message: &Message<'_>, located: &[Located], spelling: Spelling) -> Option<Vec<u8>> {
        let texts = texts(message, located, spelling)?;
        let values: Vec<_> = texts.iter().map(|text| Value::Text(text)).collect();
        let sealed = self.name[0].protect(&values, None).expect("texts are protected");
        let text = |row| {
            let mut out = Vec::new();
            sealed.push(row, &mut out);
            out
        };
        Some(spliced(message.raw(), located, (0..located.len()).map(text).collect()))
    }

    fn reveal(&self, message: &Message<'_>, located: &[Located], spelling: Spelling) -> Option<Vec<u8>> {
        let texts: Option<Vec<&str>> = located.iter().map(|at| message.text(at.span.clone()).ok()).collect();
        let opened = self.name[1].reveal(&texts?, None).ok()?;
        let spell = |(row, at): (usize, &Located)| {
            let (text, mut out) = (opened.text(row)?, String::new());
            match spelling {
                Spelling::Keep => message.delimiters().push_standard(&text, &self.paths[at.rule], &mut out).ok()?,
                Spelling::Normalise => message.delimiters().push_encoded(&text, &mut out),
            }
            Some(out.into_bytes())
        };
        let new: Option<Vec<Vec<u8>>> = located.iter().enumerate().map(spell).collect();
        Some(spliced(message.raw(), located, new?))
    }
}
