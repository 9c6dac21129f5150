//! A page as one HTML file. It has no script, loads nothing, and its policy forbids both.

use crate::document::sections;
use crate::page::{Block, Cell, Section, Table};
use crate::{Report, text};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");
/// Tables with more columns are too wide for a phone.
const MAX_COLUMNS: usize = 3;

pub(crate) fn render(report: &Report) -> String {
    page(&report.title(), &sections(report))
}

/// The page with the heading `title`, as one HTML file. What comes from elsewhere becomes no markup.
#[must_use]
pub fn page(title: &str, sections: &[Section]) -> String {
    let title = escape(title);
    // The one thing that the page may use is the style in it, and no other.
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        BASE64.encode(&Sha256::digest(STYLE))
    );
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n</header>\n\
         <nav aria-label=\"Contents\">\n<ol>\n"
    );
    for (n, section) in sections.iter().enumerate() {
        let _ = writeln!(out, "<li><a href=\"#s{n}\">{}</a></li>", escape(section.title));
    }
    out.push_str("</ol>\n</nav>\n<main>\n");
    let mut charts = 0;
    for (n, section) in sections.iter().enumerate() {
        let _ = writeln!(out, "<section aria-labelledby=\"s{n}\">\n<h2 id=\"s{n}\">{}</h2>", escape(section.title));
        for block in &section.blocks {
            match block {
                Block::Text(said) => {
                    let _ = writeln!(out, "<p>{}</p>", escape(said));
                }
                Block::List(items) => {
                    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
                    let _ = writeln!(out, "<ul>\n{items}</ul>");
                }
                Block::Table(table) => push_table(table, &mut out),
                Block::Chart(chart) => {
                    charts += 1;
                    let _ = writeln!(
                        out,
                        "<figure aria-labelledby=\"f{charts}\">\n<h3 id=\"f{charts}\">{}</h3>\n{}",
                        escape(chart.title()),
                        chart.svg(&format!("c{charts}"))
                    );
                    push_table(&chart.table(), &mut out);
                    out.push_str("</figure>\n");
                }
            }
        }
        out.push_str("</section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn push_table(table: &Table, out: &mut String) {
    let class = if table.head.len() > MAX_COLUMNS { " class=\"wide\"" } else { "" };
    let caption = escape(&table.caption);
    // Wide ones scroll by themselves on a phone, with the keyboard as well.
    let _ = write!(
        out,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\n<table{class}>\n<caption>{caption}</caption>\n<thead><tr>"
    );
    for name in &table.head {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (at, Cell(lines)) in row.iter().enumerate() {
            let lines: Vec<_> = lines.iter().map(|line| escape(line)).collect();
            let text = match &lines[..] {
                [line] => line.clone(),
                lines => lines.iter().map(|line| format!("<span>{line}</span>")).collect(),
            };
            let _ = match at {
                0 => write!(out, "<th scope=\"row\">{text}</th>"),
                _ => write!(out, "<td>{text}</td>"),
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table>\n</div>\n");
}

/// Names come from configurations: none of them becomes markup.
pub(crate) fn escape(said: &str) -> String {
    let mut out = String::with_capacity(said.len());
    for c in said.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => text::push(&mut out, c),
        }
    }
    out
}
