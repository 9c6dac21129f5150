//! The report as Markdown.

use crate::document::sections;
use crate::page::{Block, Cell, Table};
use crate::{Report, text};

pub(crate) fn render(report: &Report) -> String {
    let mut out = format!("# {}\n", escape(&report.title()));
    for section in sections(report) {
        out.push_str(&format!("\n## {}\n", section.title));
        for block in section.blocks {
            out.push('\n');
            match block {
                Block::Text(said) => out.push_str(&format!("{}\n", escape(&said))),
                Block::List(items) => items.iter().for_each(|item| out.push_str(&format!("- {}\n", escape(item)))),
                Block::Table(table) => push_table(&table, &mut out),
                // A chart is its numbers here.
                Block::Chart(chart) => push_table(&chart.table(), &mut out),
            }
        }
    }
    out
}

fn push_table(table: &Table, out: &mut String) {
    out.push_str(&format!("**{}**\n\n", escape(&table.caption)));
    out.push_str(&format!("| {} |\n|{}\n", table.head.join(" | "), " --- |".repeat(table.head.len())));
    for row in &table.rows {
        let cells: Vec<_> = row
            .iter()
            .map(|Cell(lines)| lines.iter().map(|line| escape(line)).collect::<Vec<_>>().join("<br>"))
            .collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// Names come from configurations: none of them becomes markup.
fn escape(said: &str) -> String {
    let mut out = String::with_capacity(said.len());
    for c in said.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c => text::push(&mut out, c),
        }
    }
    out
}
