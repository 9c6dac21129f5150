//! The report as Markdown.

use crate::Report;
use crate::document::{Block, Cell, Table, sections};

pub(crate) fn render(report: &Report) -> String {
    let mut out = format!("# {}\n", text(&report.title()));
    for section in sections(report) {
        out.push_str(&format!("\n## {}\n", section.title));
        for block in section.blocks {
            out.push('\n');
            match block {
                Block::Text(said) => out.push_str(&format!("{}\n", text(&said))),
                Block::List(items) => items.iter().for_each(|item| out.push_str(&format!("- {}\n", text(item)))),
                Block::Table(table) => push_table(&table, &mut out),
                // A chart is its numbers here.
                Block::Chart(chart) => push_table(&chart.table(), &mut out),
            }
        }
    }
    out
}

fn push_table(table: &Table, out: &mut String) {
    out.push_str(&format!("**{}**\n\n", text(&table.caption)));
    out.push_str(&format!("| {} |\n|{}\n", table.head.join(" | "), " --- |".repeat(table.head.len())));
    for row in &table.rows {
        let cells: Vec<_> = row
            .iter()
            .map(|Cell(lines)| lines.iter().map(|line| text(line)).collect::<Vec<_>>().join("<br>"))
            .collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// Names come from configurations: none of them becomes markup.
fn text(said: &str) -> String {
    let mut out = String::with_capacity(said.len());
    for c in said.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}
