//! CSV in batches of rows that remember their bytes.
//!
//! The boundaries of fields are those of `csv_core`, so they are what every other reader built on
//! it sees. On top of it this module is strict about quotes: where a lenient parse would lose the
//! spelling (`"ab"c`, a quote that never closes), the file is refused.

mod batch;
mod error;

pub(crate) use batch::CsvBatch;
pub(crate) use error::{CsvColumn, CsvError, CsvPlace};

use std::io::Read;
use std::sync::Arc;

use batch::{Cell, Draft};
use csv_core::{ReadFieldResult, Reader};

use super::{BYTE_ORDER_MARK, read_chunk};

/// Most rows in a batch.
const MAX_BATCH_ROWS: usize = 4096;

/// A batch ends with the row that reaches this many bytes.
const MAX_BATCH_LEN: usize = 8 * 1024 * 1024;

/// Default for [`CsvOptions::max_field_len`].
pub(crate) const DEFAULT_MAX_FIELD_LEN: usize = 1024 * 1024;

/// Default for [`CsvOptions::max_row_len`]. Twice this is fine, too: offsets into a batch fit in 31 bits.
pub(crate) const MAX_ROW_LEN: usize = 16 * 1024 * 1024;

/// Most columns in a file.
pub(crate) const MAX_COLUMN_COUNT: usize = 65_536;

/// How to read a CSV file.
#[derive(Clone, Debug)]
pub(crate) struct CsvOptions {
    /// The byte between fields: ASCII, and neither a quote nor a line terminator.
    pub(crate) delimiter: u8,
    /// Names of the columns that the policy speaks of. Only these are named in errors: in a file
    /// without a header the other names are the first patient.
    pub(crate) columns: Vec<String>,
    /// Most bytes in the text of a cell of these columns.
    pub(crate) max_field_len: usize,
    /// Most bytes in a row as written.
    pub(crate) max_row_len: usize,
}

impl CsvOptions {
    /// Comma-separated, with the limits of an input that is not sealed yet.
    #[cfg(test)]
    pub(crate) fn new(columns: Vec<String>) -> Self {
        Self { delimiter: b',', columns, max_field_len: DEFAULT_MAX_FIELD_LEN, max_row_len: MAX_ROW_LEN }
    }
}

/// The header and what it means.
struct Header {
    /// Not for messages: in a file without a header they are the first patient.
    names: Vec<String>,
    /// Everything from the first byte to the line terminator after the header, both included.
    /// One row.
    batch: CsvBatch,
    /// Where each of the policy's columns is.
    positions: Vec<Option<usize>>,
}

/// Reads a CSV file from `R` in batches.
pub(crate) struct CsvSource<R> {
    input: R,
    parser: Reader,
    options: CsvOptions,
    header: Header,
    shared: Arc<Shared>,
    /// `limited[column]`: the column is one of the policy's. Empty while the header is read.
    limited: Vec<bool>,
    /// Bytes that were read but belong to the next batch.
    ahead: Vec<u8>,
    /// How many cells the last batch had, which is how many the next will need room for.
    cells_hint: usize,
    /// Rows and lines in front of the next batch.
    rows: u64,
    lines: u64,
    /// csv-core copies every field; the copies are not needed.
    unused: Box<[u8]>,
}

/// What every batch of a file has in common.
pub(crate) struct Shared {
    delimiter: u8,
    width: usize,
    /// The names that may appear in errors, by position.
    names: Vec<Option<String>>,
}

/// What [`CsvSource::read_row`] found.
enum Next {
    Row,
    /// Enough blank lines for a batch.
    Blank,
    End,
}

impl<R: Read> CsvSource<R> {
    /// Starts to read `input`, and reads the header.
    ///
    /// # Errors
    ///
    /// [`CsvError`]; apart from the ones of every row: no header, a header that is not UTF-8 or that
    /// names a column twice, a delimiter that cannot be one.
    pub(crate) fn new(input: R, options: CsvOptions) -> Result<Self, CsvError> {
        if !options.delimiter.is_ascii() || matches!(options.delimiter, b'"' | b'\r' | b'\n') {
            return Err(CsvError::Delimiter { delimiter: options.delimiter });
        }
        let mut parser = csv_core::ReaderBuilder::new().delimiter(options.delimiter).build();
        // csv-core drops a byte order mark from whatever it reads first. That is done below, and
        // once is enough, so give it a first read in which nothing happens.
        let _ = parser.read_field(b"-", &mut []);
        let shared = Arc::new(Shared { delimiter: options.delimiter, width: 0, names: Vec::new() });
        let batch = CsvBatch::new(Draft::new(Vec::new(), 0), Arc::clone(&shared), 0, 1);
        let header = Header { names: Vec::new(), batch, positions: Vec::new() };
        let unused = vec![0; 4096].into_boxed_slice();
        let (limited, ahead) = (Vec::new(), Vec::new());
        let (cells_hint, rows, lines) = (0, 0, 0);
        let mut source =
            Self { input, parser, options, header, shared, limited, ahead, cells_hint, rows, lines, unused };
        source.read_header()?;
        Ok(source)
    }

    fn read_header(&mut self) -> Result<(), CsvError> {
        let mut draft = Draft::new(Vec::new(), 0);
        while draft.raw.len() < BYTE_ORDER_MARK.len() && read_chunk(&mut self.input, &mut draft.raw)? {}
        if draft.raw.starts_with(BYTE_ORDER_MARK) {
            draft.position = BYTE_ORDER_MARK.len();
        }
        if !matches!(self.read_row(&mut draft)?, Next::Row) {
            return Err(CsvError::Empty);
        }
        self.ahead = draft.raw.split_off(draft.position);
        self.lines = super::count_lines(&draft.raw);
        let width = draft.cells.len();
        let header = CsvBatch::new(
            draft,
            Arc::new(Shared { delimiter: self.options.delimiter, width, names: Vec::new() }),
            0,
            1,
        );
        let name = |column| match std::str::from_utf8(header.cell(0, column)) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(CsvError::HeaderNotUtf8 { position: column + 1 }),
        };
        let names = (0..width).map(name).collect::<Result<Vec<_>, _>>()?;
        let public = |name: &String| self.options.columns.contains(name).then(|| name.clone());
        let mut sorted: Vec<usize> = (0..width).collect();
        sorted.sort_by_key(|&column| (&names[column], column));
        if let Some(twice) = sorted.windows(2).find(|pair| names[pair[0]] == names[pair[1]]) {
            let (first, second) = (twice[0] + 1, twice[1] + 1);
            return Err(CsvError::DuplicateColumn { name: public(&names[twice[0]]), first, second });
        }
        let find = |wanted: &String| sorted.binary_search_by_key(&wanted, |&c| &names[c]).ok().map(|at| sorted[at]);
        let positions: Vec<_> = self.options.columns.iter().map(find).collect();
        self.limited = (0..width).map(|column| positions.contains(&Some(column))).collect();
        let shared = Shared { delimiter: self.options.delimiter, width, names: names.iter().map(public).collect() };
        self.shared = Arc::new(shared);
        self.header = Header { names, batch: header, positions };
        Ok(())
    }

    /// The names of all columns, each once.
    pub(crate) fn header(&self) -> &[String] {
        &self.header.names
    }

    /// The header as written, with any byte order mark and its line terminator, but without the columns `dropped` and with the
    /// columns `added` at its end.
    pub(crate) fn header_changed(&self, dropped: &[usize], added: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        let write = |_, k: usize, out: &mut Vec<u8>| out.extend_from_slice(added[k].as_bytes());
        self.header.batch.render_changed(&[], dropped, added.len(), &mut out, |_, _, _| {}, write);
        out
    }

    /// Where the columns of [`CsvOptions::columns`] are, in that order; `None` if the file has no
    /// such column.
    pub(crate) fn positions(&self) -> &[Option<usize>] {
        &self.header.positions
    }

    /// Reads the next batch: at most 4,096 rows, and no row after the one that reaches 8 MiB.
    ///
    /// The batches' bytes, in order and after the header, are the whole file;
    /// a batch of blank lines has bytes but no rows. Returns `None` at the end.
    ///
    /// # Errors
    ///
    /// [`CsvError`]. The source is then of no further use.
    pub(crate) fn next_batch(&mut self) -> Result<Option<CsvBatch>, CsvError> {
        let mut draft = Draft::new(std::mem::take(&mut self.ahead), self.cells_hint);
        while draft.rows < MAX_BATCH_ROWS && draft.position < MAX_BATCH_LEN {
            match self.read_row(&mut draft)? {
                Next::Row => draft.rows += 1,
                Next::Blank | Next::End => break,
            }
        }
        if draft.position == 0 {
            return Ok(None);
        }
        self.ahead = draft.raw.split_off(draft.position);
        let (rows, lines) = (self.rows + 1, self.lines + 1);
        self.rows += draft.rows as u64;
        self.cells_hint = draft.cells.len();
        self.lines += super::count_lines(&draft.raw);
        Ok(Some(CsvBatch::new(draft, Arc::clone(&self.shared), rows, lines)))
    }

    /// Parses the row at `draft.position`, reading as much of the input as that needs.
    fn read_row(&mut self, draft: &mut Draft) -> Result<Next, CsvError> {
        // csv-core would skip blank lines, too, and hide them inside the next row's first field.
        loop {
            match draft.raw.get(draft.position).copied() {
                Some(b'\r' | b'\n') if draft.position < MAX_BATCH_LEN => draft.position += 1,
                Some(b'\r' | b'\n') => return Ok(Next::Blank),
                Some(_) => break,
                None if read_chunk(&mut self.input, &mut draft.raw)? => {}
                None => return Ok(Next::End),
            }
        }
        let row_start = draft.position;
        // The header, for which the width is still unknown, sets it.
        let expected = self.shared.width;
        let mut found = 0;
        loop {
            let (cell, last) = self.read_field(draft, row_start, found)?;
            found += 1;
            // Cells too many are only counted: a row of commas must not cost eight times its size.
            if expected == 0 || found <= expected {
                draft.cells.push(cell);
            }
            if expected == 0 && found > MAX_COLUMN_COUNT {
                return Err(CsvError::TooManyColumns);
            }
            if last {
                break;
            }
        }
        if expected != 0 && found != expected {
            return Err(CsvError::Ragged { row: self.row(draft), line: self.line(draft, row_start), expected, found });
        }
        Ok(Next::Row)
    }

    /// Parses one field; true if it is the row's last.
    fn read_field(&mut self, draft: &mut Draft, row_start: usize, column: usize) -> Result<(Cell, bool), CsvError> {
        let start = draft.position;
        let limited = self.limited.get(column).is_some_and(|&limited| limited);
        let (max_len, max_row_len) = (self.options.max_field_len, self.options.max_row_len);
        let (end, last) = loop {
            // At the end of the input the slice is empty, which is how csv-core is told.
            let at_end = draft.position == draft.raw.len() && !read_chunk(&mut self.input, &mut draft.raw)?;
            let (result, read, _) = self.parser.read_field(&draft.raw[draft.position..], &mut self.unused);
            draft.position += read;
            match result {
                ReadFieldResult::Field { record_end } => {
                    // What ends a field is one byte, or the end of the input.
                    break (draft.position - usize::from(!at_end), record_end);
                }
                ReadFieldResult::End => break (draft.position, true),
                ReadFieldResult::OutputFull => {}
                ReadFieldResult::InputEmpty => {
                    // Every quote doubled, and two around: the longest spelling of `max_len` bytes.
                    if limited && draft.position - start > max_len.saturating_mul(2).saturating_add(2) {
                        return Err(CsvError::FieldTooLong { place: self.place(draft, row_start, column), max_len });
                    }
                    if draft.position - row_start > max_row_len {
                        return Err(CsvError::RowTooLong {
                            place: self.place(draft, row_start, column),
                            max_len: max_row_len,
                        });
                    }
                }
            }
        };
        if draft.position - row_start > max_row_len + 1 {
            return Err(CsvError::RowTooLong { place: self.place(draft, row_start, column), max_len: max_row_len });
        }
        // The line feed of a CR LF. csv-core would skip it at the start of the next row.
        if last && end < draft.position && draft.raw[end] == b'\r' {
            let more = draft.position < draft.raw.len() || read_chunk(&mut self.input, &mut draft.raw)?;
            draft.position += usize::from(more && draft.raw[draft.position] == b'\n');
        }
        let (cell, len) = match draft.cell(start, end) {
            Ok(cell) => cell,
            Err(batch::Quotes::Open) => {
                return Err(CsvError::OpenQuote { place: self.place(draft, row_start, column) });
            }
            Err(batch::Quotes::Trailing) => {
                return Err(CsvError::AfterQuote { place: self.place(draft, row_start, column) });
            }
        };
        if limited && len > max_len {
            return Err(CsvError::FieldTooLong { place: self.place(draft, row_start, column), max_len });
        }
        Ok((cell, last))
    }

    /// Number of the row that is being parsed; 0 is the header.
    fn row(&self, draft: &Draft) -> u64 {
        if self.shared.width == 0 { 0 } else { self.rows + draft.rows as u64 + 1 }
    }

    fn line(&self, draft: &Draft, row_start: usize) -> u64 {
        self.lines + super::count_lines(&draft.raw[..row_start]) + 1
    }

    fn place(&self, draft: &Draft, row_start: usize, column: usize) -> CsvPlace {
        let (row, line) = (self.row(draft), self.line(draft, row_start));
        CsvPlace { row, line, column: self.shared.column(column) }
    }
}

impl Shared {
    fn column(&self, column: usize) -> CsvColumn {
        CsvColumn { position: column + 1, name: self.names.get(column).cloned().flatten() }
    }
}

#[cfg(test)]
mod tests;
