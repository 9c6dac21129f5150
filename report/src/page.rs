//! What a page is made of: headings, texts, tables and charts. As HTML it loads nothing and runs nothing.

pub use crate::chart::Chart;
pub use crate::html::page as html;

/// A part of a page.
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What is in it.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A list.
    List(Vec<String>),
    /// A table.
    Table(Table),
    /// A chart, with a table of its numbers.
    Chart(Chart),
}

/// A table.
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// The names of its columns.
    pub head: Vec<String>,
    /// The first cell of each names the row.
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table of `rows`, each as long as `head`.
    #[must_use]
    pub fn new(caption: impl Into<String>, head: &[&str], rows: Vec<Vec<Cell>>) -> Self {
        Self { caption: caption.into(), head: head.iter().map(ToString::to_string).collect(), rows }
    }
}

/// The lines of a cell.
pub struct Cell(pub Vec<String>);

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(vec![text.into()])
    }
}
