//! JSON documents: what was protected comes back byte for byte, and what nobody protected is refused.

use crate::lab::{PROTECT, documents, ring};
use crate::memory::bounded;
use keyfold_documents::{Direction, Document, DocumentCipher, DocumentCounts, DocumentError, DocumentText, Token};
use std::sync::OnceLock;

/// Sealed together under a header, in front and in an extension; each for itself; in bundles.
const POLICIES: [&str; 4] = [
    r#"version = 1
[fields.id]
mode = "deterministic"
row_binding = "none"
paths = ["$.id"]
[fields.any]
mode = "document"
paths = ["$.a", "$..b", "$.c[*]"]
[documents.all]
row_binding = "$.id"
"#,
    r#"version = 1
[fields.any]
mode = "document"
paths = ["$.a[*]", "$..b", "$.c['x','y']", "$.d[?@.u == 'u'].v"]
[documents.all]
row_binding = "none"
header = "fhir-extension"
manifest = "none"
"#,
    r#"version = 1
[fields.id]
mode = "deterministic"
row_binding = "none"
keep_prefix = "P/"
type = "text"
paths = ["$.id"]
[fields.any]
row_binding = { path = "$.id" }
paths = ["$.a", "$..b", "$.c[0:2]"]
[fields.number]
row_binding = "none"
type = "decimal"
padding = 16
paths = ["$.n"]
"#,
    r#"version = 1
[fields.any]
mode = "document"
paths = ["$..b", "$.a"]
[documents.all]
row_binding = "$.id"
root = "$.e[*].r"
"#,
];

struct Kind {
    protect: DocumentCipher<'static>,
    reveal: DocumentCipher<'static>,
}

/// The first byte chooses the policy; the rest is the document.
pub fn run(data: &[u8]) {
    static KINDS: OnceLock<Vec<Kind>> = OnceLock::new();
    let kinds = KINDS.get_or_init(|| {
        let kind = |policy: &&str| {
            let ring = ring(policy);
            let [protect, reveal] = [PROTECT, Direction::Reveal].map(|way| documents(&ring, way).expect("a policy"));
            Kind { protect, reveal }
        };
        POLICIES.iter().map(kind).collect()
    });
    let Some((&choice, text)) = data.split_first() else { return };
    let kind = &kinds[usize::from(choice) % kinds.len()];
    if let Ok(document) = bounded(text.len(), 128, || Document::parse(text, 1)) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(text);
        // serde_json refuses what it nests too deeply, and numbers that are none of its own.
        assert_eq!(parsed.ok().as_ref(), Some(document.value()));
        assert!(Token::parse(document.text().trim_matches([' ', '\t', '\n', '\r'])).is_some());
    }
    // Nothing here was sealed, so what is revealed has no values.
    if let Ok((same, counts)) = transform(&kind.reveal, text) {
        assert!(counts.values == 0 && same == text);
    }
    let Ok((sealed, counts)) = transform(&kind.protect, text) else { return };
    assert!(counts.values == 0 || sealed != text);
    assert!(Document::parse(&sealed, 1).is_ok(), "what is written is no JSON");
    match transform(&kind.reveal, &sealed) {
        Ok((opened, revealed)) => {
            assert_eq!(opened.escape_ascii().to_string(), text.escape_ascii().to_string());
            assert_eq!(revealed.values, counts.values);
        }
        Err(error) => panic!("{error}: {}", sealed.escape_ascii()),
    }
}

fn transform(cipher: &DocumentCipher<'_>, text: &[u8]) -> Result<(Vec<u8>, DocumentCounts), DocumentError> {
    let mut done = cipher.transform_all(&[DocumentText { content: text, line: 1 }])?;
    Ok((done.texts.remove(0).to_vec(), done.counts))
}
