use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::io::{self, Cursor};

/// Hands out its bytes in pieces of the given length, so that every boundary is met.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(self.0.len()).min(buffer.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn options(columns: &[&str]) -> CsvOptions {
    CsvOptions::new(columns.iter().map(|&name| name.to_owned()).collect())
}

/// The names in the header, its bytes, and the batches after it.
type Parts = (Vec<String>, Vec<u8>, Vec<CsvBatch>);

/// All parts of `file`, read in pieces of `piece` bytes.
fn read(file: &[u8], piece: usize, options: CsvOptions) -> Result<Parts, CsvError> {
    let mut source = CsvSource::new(Pieces(file, piece), options)?;
    let mut batches = Vec::new();
    while let Some(batch) = source.next_batch()? {
        batches.push(batch);
    }
    Ok((source.header().to_vec(), source.header_changed(&[], &[]), batches))
}

fn rows(batches: &[CsvBatch], width: usize) -> Vec<Vec<Vec<u8>>> {
    let rows = batches.iter().flat_map(|batch| (0..batch.rows()).map(move |row| (batch, row)));
    rows.map(|(batch, row)| (0..width).map(|column| batch.cell(row, column).to_vec()).collect()).collect()
}

/// Replaces the columns of every row by what `change` makes of them.
fn rewrite(file: &[u8], piece: usize, columns: &[usize], change: fn(&[u8]) -> Vec<u8>) -> Result<Vec<u8>, CsvError> {
    let (_, mut out, batches) = read(file, piece, options(&[]))?;
    for batch in batches {
        batch.render(columns, &mut out, |row, k, out| out.extend(change(batch.cell(row, columns[k]))));
    }
    Ok(out)
}

fn seal(text: &[u8]) -> Vec<u8> {
    text.iter().fold(b"kf1.".to_vec(), |out, byte| [out, format!("{byte:02x}").into_bytes()].concat())
}

fn open(sealed: &[u8]) -> Vec<u8> {
    let hex = sealed.strip_prefix(b"kf1.").expect("sealed");
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex");
    hex.chunks(2).map(digits).collect()
}

fn message(file: &[u8], columns: &[&str]) -> String {
    let pieces = [1, 7, usize::MAX].map(|piece| match read(file, piece, options(columns)) {
        Err(error) => error.to_string(),
        Ok((_, _, batches)) => {
            let batch = |batch: &CsvBatch| (0..batch.rows()).try_for_each(|row| batch.text(row, 0).map(drop));
            batches.iter().try_for_each(batch).expect_err("accepted").to_string()
        }
    });
    assert!(pieces.iter().all(|piece| *piece == pieces[0]), "{pieces:?}");
    pieces[0].clone()
}

#[test]
fn reads_cells_and_keeps_every_byte() {
    let file = b"\xEF\xBB\xBFid,\"na,\"\"me\"\"\",note\r\n\r\n1,\"a \"\"b\"\"\",\"x\ny\"\n\n\n2,,5'10\"\r\n\r\n3,\"\",";
    for piece in 1..=file.len() {
        let (header, header_raw, batches) = read(file, piece, options(&[])).expect("valid");
        assert_eq!(header, ["id", "na,\"me\"", "note"]);
        assert!(header_raw.starts_with(b"\xEF\xBB\xBFid") && header_raw.ends_with(b"note\r\n"));
        let expected: [[&[u8]; 3]; 3] = [[b"1", b"a \"b\"", b"x\ny"], [b"2", b"", b"5'10\""], [b"3", b"", b""]];
        assert_eq!(rows(&batches, 3), expected, "piece {piece}");
        assert!(batches[0].was_quoted(0, 1) && batches[0].was_quoted(2, 1));
        assert!(!batches[0].was_quoted(0, 0) && !batches[0].was_quoted(1, 1) && !batches[0].was_quoted(1, 2));
        assert_eq!(rewrite(file, piece, &[], seal).expect("valid"), file);
        assert_eq!(batches[0].place(2, 1).to_string(), "row 3 (line 9), column 2");
    }
}

#[test]
fn only_one_byte_order_mark_is_a_mark() {
    for piece in 1..9 {
        let (header, header_raw, _) = read("\u{FEFF}\u{FEFF}a,b\n".as_bytes(), piece, options(&[])).expect("valid");
        assert_eq!(header, ["\u{FEFF}a", "b"]);
        assert_eq!(header_raw, "\u{FEFF}\u{FEFF}a,b\n".as_bytes());
    }
    let (header, _, batches) = read("a\n\u{FEFF}b".as_bytes(), 2, options(&[])).expect("valid");
    assert_eq!((header.len(), batches[0].cell(0, 0)), (1, "\u{FEFF}b".as_bytes()));
}

#[test]
fn other_delimiters() {
    let file = b"a;b\n\"x;y\";1,5\n";
    let options = CsvOptions { delimiter: b';', ..options(&[]) };
    let (_, mut out, batches) = read(file, 3, options).expect("valid");
    assert_eq!(rows(&batches, 2), [[b"x;y".to_vec(), b"1,5".to_vec()]]);
    batches[0].render(&[1], &mut out, |_, _, out| out.extend(b"p;q"));
    assert_eq!(out, b"a;b\n\"x;y\";\"p;q\"\n");
    for delimiter in [b'"', b'\r', b'\n', 0xC3] {
        let options = CsvOptions { delimiter, ..self::options(&[]) };
        assert!(matches!(read(b"a", 1, options), Err(CsvError::Delimiter { .. })));
    }
}

#[test]
fn a_replaced_cell_keeps_its_quotes() {
    let render = |file: &[u8], new: &[u8]| {
        let (_, _, batches) = read(file, usize::MAX, options(&[])).expect("valid");
        let mut out = Vec::new();
        batches[0].render(&[0], &mut out, |_, _, out| out.extend(new));
        String::from_utf8(out).expect("UTF-8")
    };
    assert_eq!(render(b"a,b\nx,y\n", b"kf1.A"), "kf1.A,y\n");
    assert_eq!(render(b"a,b\n\"x\",y\n", b"kf1.A"), "\"kf1.A\",y\n");
    assert_eq!(render(b"a,b\n\"x\",y\n", b"1 \"2\""), "\"1 \"\"2\"\"\",y\n");
    assert_eq!(render(b"a,b\n\"x\",y\n", b""), "\"\",y\n");
    assert_eq!(render(b"a,b\nx,y\n", b""), ",y\n");
    for special in ["1,2", "1\n2", "1\r2"] {
        assert_eq!(render(b"a,b\nx,y\n", special.as_bytes()), format!("\"{special}\",y\n"));
    }
    assert_eq!(render(b"a,b\nx,y\n", b"1\"2"), "\"1\"\"2\",y\n");
    // An unquoted empty cell that is alone on its line would be no row at all.
    assert_eq!(render(b"a\nx\n\n\"\"\n", b""), "\"\"\n\n\"\"\n");
}

#[test]
fn columns_in_any_order() {
    let (_, _, batches) = read(b"a,b,c\n1,2,3\n", 1, options(&[])).expect("valid");
    let mut out = Vec::new();
    batches[0].render(&[2, 0], &mut out, |_, k, out| out.extend([b"zx"[k]]));
    assert_eq!(out, b"x,2,z\n");
}

#[test]
fn finds_the_columns_of_the_policy() {
    let source = CsvSource::new(Cursor::new("id,ssn,name"), options(&["name", "mrn", "id"])).expect("valid");
    assert_eq!(source.positions(), [Some(2), None, Some(0)]);
}

#[test]
fn names_the_place_and_not_the_content() {
    let cases: [(&[u8], &str); 15] = [
        (b"", "the input is empty, not even a header line"),
        (b"\r\n\n", "the input is empty, not even a header line"),
        (b"\xEF\xBB\xBF", "the input is empty, not even a header line"),
        (b"id,ssn,SECRET,x,SECRET\n", "header: columns 3 and 5 have the same name"),
        (b"id,ssn,x,ssn\n", "header: columns 2 and 4 have the same name, \"ssn\""),
        (b"id,SECRET\xFF\n", "header: the name of column 2 is not UTF-8 (is the file in another encoding?)"),
        (b"id,\"SECRET\n", "header (line 1), column 2: the quoted cell is never closed"),
        (b"id,ssn\n1,2\n\n3,SECRET,5,6\n", "row 2 (line 4): 2 cells expected as in the header, 4 found"),
        (b"id,ssn\n\"1\n2\",3\r\nSECRET", "row 2 (line 4): 2 cells expected as in the header, 1 found"),
        (b"id,ssn\n1,\"SECRET\n2,3\n", "row 1 (line 2), column 2 (\"ssn\"): the quoted cell is never closed"),
        (b"id,ssn\n1,\"SECRET\"\"", "row 1 (line 2), column 2 (\"ssn\"): the quoted cell is never closed"),
        (b"id,ssn\n1,\"SEC\"RET\n", "row 1 (line 2), column 2 (\"ssn\"): the cell goes on after its closing quote"),
        (b"id,x\n1,\"SEC\"RET\"\n", "row 1 (line 2), column 2: the cell goes on after its closing quote"),
        (b"id,x\n1,\"SECRET\" ,3\n", "row 1 (line 2), column 2: the cell goes on after its closing quote"),
        (b"id,x\n1,2\nSECRET\xC3,2\n", "row 2 (line 3), column 1: the cell is not UTF-8"),
    ];
    for (file, expected) in cases {
        assert_eq!(message(file, &["ssn"]), expected);
        if let Err(error) = read(file, 5, options(&["ssn"])) {
            assert!(!format!("{error:?}").contains("SECRET"));
        }
    }
}

/// Counts what is read of it, and never ends.
struct Endless<'a>(&'a [u8], u8, usize);

impl Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let start = self.0.len().min(buffer.len());
        buffer[..start].copy_from_slice(&self.0[..start]);
        buffer[start..].fill(self.1);
        self.0 = &self.0[start..];
        self.2 += buffer.len();
        Ok(buffer.len())
    }
}

fn endless(start: &[u8], fill: u8) -> (String, usize) {
    let mut input = Endless(start, fill, 0);
    let mut error = None;
    if let Ok(mut source) = CsvSource::new(&mut input, options(&["ssn"])).map_err(|e| error = Some(e)) {
        while error.is_none() {
            error = source.next_batch().err();
        }
    }
    (error.expect("refused").to_string(), input.2)
}

#[test]
fn long_cells_are_refused_early() {
    for start in ["ssn,x\n1,2\n", "ssn,x\n1,2\n\""] {
        let (error, read) = endless(start.as_bytes(), b'x');
        assert_eq!(error, "row 2 (line 3), column 1 (\"ssn\"): the cell is longer than 1048576 bytes");
        assert!(read < 3 * DEFAULT_MAX_FIELD_LEN, "{read}");
    }
    let (error, read) = endless(b"ssn,x\n1,\"", b'x');
    assert_eq!(error, "row 1 (line 2), column 2: the row is longer than 16777216 bytes (is a quote missing?)");
    assert!(read < MAX_ROW_LEN + DEFAULT_MAX_FIELD_LEN, "{read}");
    let (error, _) = endless(b"ssn,x\n1,2\n", b',');
    assert!(error.contains("the row is longer"), "{error}");
    let (error, _) = endless(b"ssn,x", b',');
    assert_eq!(error, "header: more than 65536 columns");
}

#[test]
fn the_limits_are_exact() {
    let accepts = |text: &str| {
        let options = CsvOptions { max_field_len: 4, ..options(&["ssn"]) };
        let file = format!("x,ssn\n123456,{text}\n");
        [1, 1000].map(|piece| read(file.as_bytes(), piece, options.clone()).is_ok())
    };
    for fine in ["1234", "\"1234\"", "\"\"\"\"\"\"\"\"\"\""] {
        assert_eq!(accepts(fine), [true; 2], "{fine}");
    }
    for long in ["12345", "\"12345\"", "\"\"\"\"\"\"\"\"\"\"\"\""] {
        assert_eq!(accepts(long), [false; 2], "{long}");
    }
    for (len, fits) in [(MAX_ROW_LEN, true), (MAX_ROW_LEN + 1, false)] {
        let file = [b"x\n", vec![b'1'; len].as_slice(), b"\n1\n"].concat();
        assert_eq!(read(&file, CHUNK, options(&[])).is_ok(), fits, "{len}");
    }
}

const CHUNK: usize = crate::files::CHUNK_LEN;

#[test]
fn batches_are_bounded() {
    let mut file = b"a,b\n".to_vec();
    file.extend(b"1,2\n".repeat(10_000));
    file.extend(b"\n".repeat(MAX_BATCH_LEN + 5));
    file.extend([b'x'].repeat(MAX_BATCH_LEN + 5));
    file.extend(b",\n3,4");
    let (_, header, batches) = read(&file, CHUNK, options(&[])).expect("valid");
    let sizes: Vec<_> = batches.iter().map(CsvBatch::rows).collect();
    assert_eq!(sizes, [4096, 4096, 1808, 1, 1]);
    let numbers: Vec<_> = batches.iter().map(|batch| (batch.place(0, 0).row, batch.place(0, 0).line)).collect();
    let after = 10_000 + MAX_BATCH_LEN as u64 + 5;
    assert_eq!(numbers, [(1, 2), (4097, 4098), (8193, 8194), (10_001, after + 2), (10_002, after + 3)]);
    let len: usize = batches.iter().map(CsvBatch::raw_len).sum();
    assert_eq!(header.len() + len, file.len());
    // The seam between two batches may be inside a CR LF of blank lines.
    let file = [b"a\n".as_slice(), &b"\r\n".repeat(MAX_BATCH_LEN)].concat();
    assert_eq!(rewrite(&file, CHUNK, &[0], seal).expect("valid"), file);
}

#[test]
fn a_failing_read_is_reported() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let input = Cursor::new("a,b\n1,2\n").chain(Broken);
    let mut source = CsvSource::new(input, options(&[])).expect("header");
    assert!(matches!(source.next_batch(), Err(CsvError::Io(_))));
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Minimal,
    All,
    Mixed,
}

/// A table of texts that are likely to need quotes, and a file of it with noise that must survive.
fn table() -> impl Strategy<Value = (Vec<Vec<String>>, Vec<u8>)> {
    let text = prop_oneof!["[ab,\"\r\n ]{0,5}", "\\PC{0,6}"];
    let style = prop_oneof![Just(Style::Minimal), Just(Style::All), Just(Style::Mixed)];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r"), Just("\n\n"), Just("\r\n\r\n\n")];
    let shape = (1_usize..5, 0_usize..8);
    (shape, style, any::<bool>(), any::<bool>()).prop_flat_map(move |((width, height), style, bom, last)| {
        let cells = vec(vec((text.clone(), any::<bool>()), width), height);
        (cells, vec(end.clone(), height + 1)).prop_map(move |(cells, mut ends)| {
            if last {
                ends[height] = "";
            }
            let names = (0..width).map(|column| (format!("c{column}"), column % 2 == 0)).collect();
            let mut file = if bom { BYTE_ORDER_MARK.to_vec() } else { Vec::new() };
            for (row, end) in [names].iter().chain(&cells).zip(ends) {
                let written: Vec<_> = row.iter().map(|(text, quoted)| write(text, *quoted, style, width)).collect();
                file.extend(written.join(",").bytes().chain(end.bytes()));
            }
            (cells.into_iter().map(|row| row.into_iter().map(|cell| cell.0).collect()).collect(), file)
        })
    })
}

fn write(text: &str, quoted: bool, style: Style, width: usize) -> String {
    let needed = text.contains([',', '"', '\r', '\n']) || width == 1 && text.is_empty();
    let quotes = match style {
        Style::Minimal => needed,
        Style::All => true,
        Style::Mixed => needed || quoted,
    };
    if quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_was_written_is_read(((cells, file), piece) in (table(), 1_usize..40)) {
        let (header, _, batches) = read(&file, piece, options(&[])).expect("valid");
        let read: Vec<Vec<Vec<u8>>> = rows(&batches, header.len());
        let written: Vec<Vec<Vec<u8>>> = cells.iter().map(|row| row.iter().map(|c| c.clone().into_bytes()).collect()).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn identity_and_protect_then_reveal_restore_every_byte(
        ((_, file), piece, columns) in (table(), 1_usize..40, proptest::sample::subsequence(vec![0, 1, 2, 3], 0..=4)),
    ) {
        let width = read(&file, piece, options(&[])).expect("valid").0.len();
        let columns: Vec<_> = columns.into_iter().filter(|&column| column < width).collect();
        prop_assert_eq!(&rewrite(&file, piece, &columns, <[u8]>::to_vec).expect("valid"), &file);
        let sealed = rewrite(&file, piece, &columns, seal).expect("valid");
        prop_assert_eq!(rewrite(&sealed, piece, &columns, open).expect("valid"), file);
    }

    /// Whatever the bytes: refused, or understood as csv-core does and passed through unchanged.
    #[test]
    fn any_bytes((tail, piece) in (r#"(?s)[a,"\r\n]{0,14}"#, 1_usize..9)) {
        let file = format!("a,b\n{tail}").into_bytes();
        if let Ok((_, _, batches)) = read(&file, piece, options(&[])) {
            let (mut parser, mut out, mut ends) = (Reader::new(), vec![0; 99], [0; 99]);
            let mut rest = file.as_slice();
            let mut peer = Vec::new();
            loop {
                let (result, read, _, count) = parser.read_record(rest, &mut out, &mut ends);
                rest = &rest[read..];
                let (result, count) = match result {
                    csv_core::ReadRecordResult::InputEmpty => {
                        prop_assert!(rest.is_empty());
                        let (result, _, _, more) = parser.read_record(rest, &mut out, &mut ends[count..]);
                        (result, count + more)
                    }
                    result => (result, count),
                };
                if result == csv_core::ReadRecordResult::End {
                    break;
                }
                let starts = [0].into_iter().chain(ends);
                peer.push(starts.zip(ends).take(count).map(|(s, e)| out[s..e].to_vec()).collect::<Vec<_>>());
            }
            prop_assert_eq!(&rows(&batches, 2), &peer[1..]);
            prop_assert_eq!(rewrite(&file, piece, &[], seal).expect("valid"), file);
        }
    }
}
