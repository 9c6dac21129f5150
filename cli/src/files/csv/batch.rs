//! Rows as they are written, with the place of every cell.

use std::sync::Arc;

use super::{CsvError, CsvPlace, Shared};

/// Where a cell is in the raw bytes, quotes included. Eight bytes, for there are millions.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    start: u32,
    /// The top bit is set if the text differs from what is between the quotes.
    end: u32,
}

const ESCAPED: u32 = 1 << 31;

impl Cell {
    fn start(self) -> usize {
        self.start as usize
    }

    fn end(self) -> usize {
        (self.end & !ESCAPED) as usize
    }
}

/// The text of a cell with doubled quotes, somewhere in `CsvBatch::texts`.
struct Unescaped {
    start: usize,
    end: usize,
    /// Start of the cell, which identifies it.
    cell: u32,
}

/// What is wrong with the quotes of a cell.
pub(super) enum Quotes {
    Open,
    Trailing,
}

/// A batch that is being read.
pub(super) struct Draft {
    /// Bytes read so far, those of later rows included.
    pub(super) raw: Vec<u8>,
    /// End of what is parsed.
    pub(super) position: usize,
    pub(super) rows: usize,
    pub(super) cells: Vec<Cell>,
    texts: Vec<u8>,
    unescaped: Vec<Unescaped>,
}

impl Draft {
    pub(super) fn new(raw: Vec<u8>, cells_hint: usize) -> Self {
        Self {
            raw,
            position: 0,
            rows: 0,
            cells: Vec::with_capacity(cells_hint),
            texts: Vec::new(),
            unescaped: Vec::new(),
        }
    }

    /// Examines the quotes of the cell at `start..end`; returns it with the length of its text.
    ///
    /// A cell is `"`, any bytes with every `"` doubled, `"`; or it does not start with `"` (RFC
    /// 4180, except that quotes inside an unquoted cell stand for themselves).
    pub(super) fn cell(&mut self, start: usize, end: usize) -> Result<(Cell, usize), Quotes> {
        let raw = &self.raw[start..end];
        // A batch is at most MAX_BATCH_LEN + max_row_len and a chunk long, far below 2³¹.
        let mut cell = Cell { start: start as u32, end: end as u32 };
        let Some((b'"', body)) = raw.split_first() else { return Ok((cell, raw.len())) };
        let text = self.texts.len();
        let mut rest = body;
        loop {
            let quote = rest.iter().position(|&byte| byte == b'"').ok_or(Quotes::Open)?;
            match rest.get(quote + 1) {
                None if rest.len() == body.len() => return Ok((cell, quote)),
                None => {
                    self.texts.extend_from_slice(&rest[..quote]);
                    break;
                }
                Some(b'"') => {
                    self.texts.extend_from_slice(&rest[..=quote]);
                    rest = &rest[quote + 2..];
                }
                Some(_) => return Err(Quotes::Trailing),
            }
        }
        self.unescaped.push(Unescaped { start: text, end: self.texts.len(), cell: cell.start });
        cell.end |= ESCAPED;
        Ok((cell, self.texts.len() - text))
    }
}

/// Some rows of a CSV file, and the blank lines around them.
///
/// Has no `Debug`: it holds plaintext.
pub(crate) struct CsvBatch {
    raw: Vec<u8>,
    cells: Vec<Cell>,
    texts: Vec<u8>,
    unescaped: Vec<Unescaped>,
    shared: Arc<Shared>,
    first_row: u64,
    first_line: u64,
}

impl CsvBatch {
    pub(super) fn new(draft: Draft, shared: Arc<Shared>, first_row: u64, first_line: u64) -> Self {
        let Draft { raw, position: _, rows: _, cells, texts, unescaped } = draft;
        Self { raw, cells, texts, unescaped, shared, first_row, first_line }
    }

    /// Number of rows. 0 for a batch of blank lines.
    pub(crate) fn rows(&self) -> usize {
        self.cells.len() / self.shared.width
    }

    /// Length of the batch as written, in bytes.
    pub(crate) fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// The text of a cell, without the quotes around it and with doubled quotes made single.
    ///
    /// # Panics
    ///
    /// If there is no such row or column; so do the other methods.
    pub(crate) fn cell(&self, row: usize, column: usize) -> &[u8] {
        let cell = self.at(row, column);
        if cell.end & ESCAPED != 0 {
            let found = self.unescaped.binary_search_by_key(&cell.start, |text| text.cell);
            let text = &self.unescaped[found.expect("recorded when the bit was set")];
            return &self.texts[text.start..text.end];
        }
        let quoted = usize::from(self.is_quoted(cell));
        &self.raw[cell.start() + quoted..cell.end() - quoted]
    }

    /// Length of a row as written, in bytes, without its terminator.
    pub(crate) fn row_len(&self, row: usize) -> usize {
        self.at(row, self.shared.width - 1).end() - self.at(row, 0).start()
    }

    /// Whether the cell is written with quotes around it.
    pub(crate) fn was_quoted(&self, row: usize, column: usize) -> bool {
        self.is_quoted(self.at(row, column))
    }

    /// The text of a cell that must be UTF-8.
    ///
    /// # Errors
    ///
    /// [`CsvError::NotUtf8`].
    pub(crate) fn text(&self, row: usize, column: usize) -> Result<&str, CsvError> {
        let text = std::str::from_utf8(self.cell(row, column));
        text.map_err(|_| CsvError::NotUtf8 { place: self.place(row, column) })
    }

    /// The text of a cell that is to be replaced, and to come back as it is written.
    ///
    /// # Errors
    ///
    /// [`CsvError::NotUtf8`]; [`CsvError::BareQuote`]: only with quotes around it could a cell that is written anew hold those in it.
    pub(crate) fn replaceable(&self, row: usize, column: usize) -> Result<&str, CsvError> {
        let text = self.text(row, column)?;
        match text.contains('"') && !self.was_quoted(row, column) {
            true => Err(CsvError::BareQuote { place: self.place(row, column) }),
            false => Ok(text),
        }
    }

    /// Where a cell is in the file, for a message. Counts the batch's lines, so not for every cell.
    pub(crate) fn place(&self, row: usize, column: usize) -> CsvPlace {
        let lines = crate::files::count_lines(&self.raw[..self.at(row, 0).start()]);
        let column = self.shared.column(column);
        CsvPlace { row: self.first_row + row as u64, line: self.first_line + lines, column }
    }

    /// The line of the file that each row starts on, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = u64> {
        let (mut line, mut counted) = (self.first_line, 0);
        (0..self.rows()).map(move |row| {
            let start = self.at(row, 0).start();
            line += crate::files::count_lines(&self.raw[counted..start]);
            counted = start;
            line
        })
    }

    /// Appends the batch to `out` with the cells of `columns` replaced and all else as it was.
    ///
    /// `replacement(row, k, out)` appends the new text of the cell at `columns[k]`, and only that,
    /// unescaped. It is called row by row, in the order of the columns in the file. A quoted
    /// cell stays quoted. One that is not becomes quoted only if the new text requires it: if it
    /// contains the delimiter, a quote or a line terminator; or if it is empty in a file of one
    /// column, where it would otherwise turn the row into a blank line.
    ///
    /// # Panics
    ///
    /// If `columns` names a column twice.
    pub(crate) fn render(
        &self,
        columns: &[usize],
        out: &mut Vec<u8>,
        replacement: impl FnMut(usize, usize, &mut Vec<u8>),
    ) {
        self.render_rows(columns, 0..self.rows(), out, replacement);
    }

    /// As [`render`](Self::render), but in `rows` only, which ascend. The other rows stay as they are.
    pub(crate) fn render_rows(
        &self,
        columns: &[usize],
        rows: impl IntoIterator<Item = usize>,
        out: &mut Vec<u8>,
        mut replacement: impl FnMut(usize, usize, &mut Vec<u8>),
    ) {
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|&k| columns[k]);
        assert!(order.windows(2).all(|pair| columns[pair[0]] != columns[pair[1]]), "a column is replaced twice");
        let mut copied = 0;
        for row in rows {
            for &k in &order {
                let cell = self.at(row, columns[k]);
                out.extend_from_slice(&self.raw[copied..cell.start()]);
                copied = cell.end();
                self.replace(cell, self.shared.width, out, |out| replacement(row, k, out));
            }
        }
        out.extend_from_slice(&self.raw[copied..]);
    }

    /// As [`render`](Self::render), but without the columns `dropped`, and with `added` more columns at the end of each row, whose cells
    /// `addition(row, k, out)` appends, unescaped. What is dropped takes the delimiter before it along, or behind it in the first column.
    pub(crate) fn render_changed(
        &self,
        columns: &[usize],
        dropped: &[usize],
        added: usize,
        out: &mut Vec<u8>,
        mut replacement: impl FnMut(usize, usize, &mut Vec<u8>),
        mut addition: impl FnMut(usize, usize, &mut Vec<u8>),
    ) {
        if dropped.is_empty() && added == 0 {
            return self.render(columns, out, replacement);
        }
        let replaced: Vec<Option<usize>> =
            (0..self.shared.width).map(|column| columns.iter().position(|known| *known == column)).collect();
        let width = self.shared.width - dropped.len() + added;
        let new_cell = Cell { start: 0, end: 0 };
        let mut copied = 0;
        for row in 0..self.rows() {
            out.extend_from_slice(&self.raw[copied..self.at(row, 0).start()]);
            let mut is_first = true;
            for (column, replaced) in replaced.iter().enumerate() {
                if dropped.contains(&column) {
                    continue;
                }
                if !is_first {
                    out.push(self.shared.delimiter);
                }
                is_first = false;
                let cell = self.at(row, column);
                match replaced {
                    Some(k) => self.replace(cell, width, out, |out| replacement(row, *k, out)),
                    None => out.extend_from_slice(&self.raw[cell.start()..cell.end()]),
                }
            }
            for k in 0..added {
                out.push(self.shared.delimiter);
                self.replace(new_cell, width, out, |out| addition(row, k, out));
            }
            copied = self.at(row, self.shared.width - 1).end();
        }
        out.extend_from_slice(&self.raw[copied..]);
    }

    /// Writes a cell of a file of `width` columns.
    fn replace(&self, cell: Cell, width: usize, out: &mut Vec<u8>, text: impl FnOnce(&mut Vec<u8>)) {
        let quoted = self.is_quoted(cell);
        let start = out.len();
        if quoted {
            out.push(b'"');
        }
        let text_start = out.len();
        text(out);
        let special = Special::of(&out[text_start..], self.shared.delimiter);
        if !quoted {
            let blank = width == 1 && out.len() == text_start;
            if !(special.quotes || special.separators || blank) {
                return;
            }
            out.insert(start, b'"');
        }
        if special.quotes {
            let text = out.split_off(start + 1);
            for byte in text {
                out.push(byte);
                if byte == b'"' {
                    out.push(byte);
                }
            }
        }
        out.push(b'"');
    }

    fn at(&self, row: usize, column: usize) -> Cell {
        assert!(column < self.shared.width, "no such column");
        self.cells[row * self.shared.width + column]
    }

    fn is_quoted(&self, cell: Cell) -> bool {
        cell.end() > cell.start() && self.raw[cell.start()] == b'"'
    }
}

/// Which bytes with a meaning a text contains.
#[derive(Clone, Copy)]
struct Special {
    quotes: bool,
    separators: bool,
}

impl Special {
    fn of(text: &[u8], delimiter: u8) -> Self {
        // Without an early exit, since that is what vectorises, and nearly every text has none.
        let quotes = text.iter().fold(false, |any, &byte| any | (byte == b'"'));
        let separates = |byte| (byte == delimiter) | (byte == b'\r') | (byte == b'\n');
        let separators = text.iter().fold(false, |any, &byte| any | separates(byte));
        Self { quotes, separators }
    }
}
