//! CSV files: read whole whatever the pieces, and what was protected comes back byte for byte.

use crate::files::csv::{CsvBatch, CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use crate::lab::{fields, ring};
use crate::pieces::Pieces;
use keyfold::Value;
use keyfold::wire::looks_sealed_text;
use keyfold_documents::FieldCipher;
use std::sync::OnceLock;

/// The identifier is the first column, whatever its name, and the last one is bound to it.
const POLICY: &str = r#"version = 1
[fields.id]
mode = "deterministic"
row_binding = "none"
columns = ["id"]
[fields.name]
row_binding = "id"
columns = ["name"]
"#;

struct Lab {
    id: [FieldCipher; 2],
    name: [FieldCipher; 2],
}

/// The first byte chooses the delimiter and the pieces in which the file comes; the rest is the file.
pub fn run(data: &[u8]) {
    static LAB: OnceLock<Lab> = OnceLock::new();
    let lab = LAB.get_or_init(|| {
        let [id, name] = fields(&ring(POLICY), ["id", "name"]);
        Lab { id, name }
    });
    let Some((&choice, file)) = data.split_first() else { return };
    let delimiter = [b',', b';', b'\t', b'|'][usize::from(choice & 3)];
    let piece = 1 + usize::from(choice >> 2);
    let Some(copy) = rewrite(file, delimiter, piece, |batch, _, out| {
        batch.render(&[], out, |_, _, _| {});
        Some(())
    }) else {
        // Not a file of that kind, and the same is said however it comes.
        assert!(rewrite(file, delimiter, usize::MAX, |_, _, _| Some(())).is_none());
        return;
    };
    assert_eq!(copy, file, "bytes were lost");
    // What nobody protected is not revealed.
    let rows = rewrite(file, delimiter, piece, |batch, _, _| (batch.rows() == 0).then_some(()));
    let hostile = rewrite(file, delimiter, piece, |batch, width, out| lab.reveal(batch, width, out));
    assert_eq!(hostile.is_some(), rows.is_some());

    let Some(sealed) = rewrite(file, delimiter, piece, |batch, width, out| lab.protect(batch, width, out)) else {
        return;
    };
    let opened = rewrite(&sealed, delimiter, piece, |batch, width, out| lab.reveal(batch, width, out));
    assert_eq!(opened.as_deref(), Some(file), "{}", sealed.escape_ascii());
    let all_sealed = rewrite(&sealed, delimiter, piece, |batch, width, _| {
        (0..batch.rows())
            .all(|row| [0, width - 1].iter().all(|&column| looks_sealed_text(batch.cell(row, column))))
            .then_some(())
    });
    assert!(all_sealed.is_some(), "a cell stayed in clear");
}

/// The file with every batch as `write` makes it; `None` if it is refused.
fn rewrite(
    file: &[u8],
    delimiter: u8,
    piece: usize,
    mut write: impl FnMut(&CsvBatch, usize, &mut Vec<u8>) -> Option<()>,
) -> Option<Vec<u8>> {
    let options = CsvOptions {
        delimiter,
        columns: vec!["id".into()],
        max_field_len: DEFAULT_MAX_FIELD_LEN,
        max_row_len: MAX_ROW_LEN,
    };
    let mut source = CsvSource::new(Pieces(file, piece), options).ok()?;
    let (width, mut out) = (source.header().len(), source.header_changed(&[], &[]));
    while let Some(batch) = source.next_batch().ok()? {
        write(&batch, width, &mut out)?;
    }
    Some(out)
}

impl Lab {
    fn protect(&self, batch: &CsvBatch, width: usize, out: &mut Vec<u8>) -> Option<()> {
        // They may be the same.
        let [id, name] = [0, width - 1];
        let texts =
            |column| (0..batch.rows()).map(move |row| batch.replaceable(row, column).ok()).collect::<Option<Vec<_>>>();
        let (ids, names) = (texts(id)?, texts(name)?);
        if ids.iter().any(|text| text.is_empty()) {
            return None;
        }
        fn values<'t>(texts: &[&'t str]) -> Vec<Value<'t>> {
            texts.iter().map(|text| Value::Text(text)).collect()
        }
        let rows: Vec<&[u8]> = ids.iter().map(|text| text.as_bytes()).collect();
        let sealed_ids = self.id[0].protect(&values(&ids), None).expect("texts are protected");
        let sealed_names = self.name[0].protect(&values(&names), Some(&rows)).expect("texts are protected");
        if name == id {
            batch.render(&[id], out, |row, _, out| sealed_ids.push(row, out));
        } else {
            let sealed = [&sealed_ids, &sealed_names];
            batch.render(&[id, name], out, |row, k, out| sealed[k].push(row, out));
        }
        Some(())
    }

    fn reveal(&self, batch: &CsvBatch, width: usize, out: &mut Vec<u8>) -> Option<()> {
        // They may be the same.
        let [id, name] = [0, width - 1];
        let texts = |column| (0..batch.rows()).map(move |row| batch.text(row, column).ok()).collect::<Option<Vec<_>>>();
        let ids = self.id[1].reveal(&texts(id)?, None).ok()?;
        let clear: Option<Vec<String>> = (0..batch.rows()).map(|row| Some(ids.text(row)?.into_owned())).collect();
        let clear = clear?;
        let rows: Vec<&[u8]> = clear.iter().map(|text| text.as_bytes()).collect();
        if name == id {
            batch.render(&[id], out, |row, _, out| out.extend_from_slice(rows[row]));
            return Some(());
        }
        let names = self.name[1].reveal(&texts(name)?, Some(&rows)).ok()?;
        batch.render(&[id, name], out, |row, k, out| match k {
            0 => out.extend_from_slice(rows[row]),
            _ => out.extend_from_slice(names.text(row).expect("it was a text").as_bytes()),
        });
        Some(())
    }
}
