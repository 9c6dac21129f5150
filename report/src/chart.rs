//! Charts as SVG, each with a table of the same numbers and a description in words.

use crate::html::escape;
use crate::page::{Cell, Table};
use crate::time;
use std::fmt::Write as _;

/// Counts of one or more series at each of some labels.
pub struct Chart {
    title: &'static str,
    /// What is counted.
    unit: &'static str,
    /// What labels are, at the head of their column.
    label: &'static str,
    shape: Shape,
    labels: Vec<String>,
    series: Vec<(String, Vec<u64>)>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Shape {
    /// Labels are dates, at their place in time; a count holds until the next one.
    Steps,
    Bars,
}

/// Most dates of a chart of steps.
const MAX_STEPS: usize = 36;
// The drawing is small, so that its text stays readable on a phone.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = HEIGHT - 34.0;
/// Most labels below the axis.
const MAX_LABELS: usize = 5;

impl Chart {
    pub(crate) fn steps(
        title: &'static str,
        unit: &'static str,
        labels: Vec<String>,
        series: Vec<(String, Vec<u64>)>,
    ) -> Self {
        // Counts that only grow lose nothing but detail where some dates are left out; the last one stays.
        let stride = labels.len().div_ceil(MAX_STEPS).max(1);
        let kept = |at: usize, len: usize| at.is_multiple_of(stride) || at + 1 == len;
        let thin = |values: Vec<u64>| {
            let len = values.len();
            values.into_iter().enumerate().filter(|(at, _)| kept(*at, len)).map(|(_, value)| value).collect()
        };
        let len = labels.len();
        let labels = labels.into_iter().enumerate().filter(|(at, _)| kept(*at, len)).map(|(_, label)| label).collect();
        let series = series.into_iter().map(|(name, values)| (name, thin(values))).collect();
        Self { title, unit, label: "Date", shape: Shape::Steps, labels, series }
    }

    /// A chart of bars: `series` have a name and a count for each label; `unit` says what is counted.
    #[must_use]
    pub fn bars(title: &'static str, unit: &'static str, labels: Vec<String>, series: Vec<(String, Vec<u64>)>) -> Self {
        let label = if labels.iter().all(|label| is_date(label)) { "Date" } else { "Age" };
        Self { title, unit, label, shape: Shape::Bars, labels, series }
    }

    /// With `label` at the head of the column of labels, in the table.
    #[must_use]
    pub fn labelled(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    pub(crate) fn title(&self) -> &'static str {
        self.title
    }

    /// The same numbers.
    pub(crate) fn table(&self) -> Table {
        let head =
            std::iter::once(self.label.to_owned()).chain(self.series.iter().map(|(name, _)| name.clone())).collect();
        let row = |(at, label): (usize, &String)| {
            let counts =
                self.series.iter().map(|(_, values)| Cell::from(values.get(at).copied().unwrap_or(0).to_string()));
            std::iter::once(Cell::from(label.as_str())).chain(counts).collect()
        };
        Table {
            caption: format!("{}: {}", self.title, self.unit),
            head,
            rows: self.labels.iter().enumerate().map(row).collect(),
        }
    }

    /// What the chart shows, in words.
    fn description(&self) -> String {
        let mut said = format!(
            "{}, {} to {}.",
            self.unit,
            self.labels.first().map_or("", String::as_str),
            self.labels.last().map_or("", String::as_str)
        );
        for (name, values) in &self.series {
            let highest = values.iter().enumerate().max_by_key(|(at, value)| (**value, std::cmp::Reverse(*at)));
            if let Some((at, value)) = highest {
                let _ = write!(
                    said,
                    " {name}: highest {value} at {}, last {}.",
                    self.labels[at],
                    values.last().copied().unwrap_or(0)
                );
            }
        }
        said
    }

    fn ceiling(&self) -> u64 {
        let highest = self.series.iter().flat_map(|(_, values)| values).copied().max().unwrap_or(0).max(1);
        let magnitude = 10_u64.saturating_pow(highest.ilog10());
        // An even number, so that its half is one, too.
        let steps = [2, 4, 6, 8, 10, 20].into_iter().map(|n| magnitude.saturating_mul(n).max(2));
        steps.into_iter().find(|step| *step >= highest).unwrap_or(highest)
    }

    /// The drawing. `id` is unique in the page.
    pub(crate) fn svg(&self, id: &str) -> String {
        let ceiling = self.ceiling();
        let y = |value: u64| BOTTOM - (BOTTOM - TOP) * (value as f64 / ceiling as f64);
        let mut out = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\"><title id=\"{id}-t\">{}</title>\
             <desc id=\"{id}-d\">{}</desc>",
            escape(self.title),
            escape(&self.description())
        );
        for value in [0, ceiling / 2, ceiling] {
            let at = y(value);
            let _ = write!(
                out,
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{RIGHT}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(value)
            );
        }
        for (n, (name, _)) in self.series.iter().enumerate() {
            let x = LEFT + 110.0 * n as f64;
            let _ = write!(
                out,
                "<path class=\"line s{n}\" d=\"M{x} 14h26\"/><rect class=\"fill s{n}\" x=\"{:.1}\" y=\"9\" width=\"10\" height=\"10\"/>",
                x + 8.0
            );
            let _ = write!(out, "<text x=\"{:.1}\" y=\"18\">{}</text>", x + 32.0, escape(name));
        }
        match self.shape {
            Shape::Steps => self.push_steps(&mut out, &y),
            Shape::Bars => self.push_bars(&mut out, &y),
        }
        out.push_str("</svg>");
        out
    }

    fn push_steps(&self, out: &mut String, y: &impl Fn(u64) -> f64) {
        let times: Vec<u64> = self.labels.iter().filter_map(|label| time::parse(label)).collect();
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return };
        let span = (last - first).max(1) as f64;
        let x = |time: u64| LEFT + (RIGHT - LEFT) * ((time - first) as f64 / span);
        for (n, (_, values)) in self.series.iter().enumerate() {
            let mut path = format!("M{LEFT} {:.1}", y(values.first().copied().unwrap_or(0)));
            for (&time, &value) in times.iter().zip(values).skip(1) {
                let _ = write!(path, "H{:.1}V{:.1}", x(time), y(value));
            }
            let _ = write!(out, "<path class=\"line s{n}\" d=\"{path}H{RIGHT}\"/>");
        }
        push_label(out, LEFT, "start", &self.labels[0]);
        if self.labels.len() > 1 {
            push_label(out, RIGHT, "end", &self.labels[self.labels.len() - 1]);
        }
    }

    fn push_bars(&self, out: &mut String, y: &impl Fn(u64) -> f64) {
        let slot = (RIGHT - LEFT) / self.labels.len().max(1) as f64;
        let bar = slot * 0.8 / self.series.len().max(1) as f64;
        for (n, (_, values)) in self.series.iter().enumerate() {
            for (at, &value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
                let x = LEFT + slot * (at as f64 + 0.1) + bar * n as f64;
                let _ = write!(
                    out,
                    "<rect class=\"fill s{n}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{:.1}\"/>",
                    y(value),
                    BOTTOM - y(value)
                );
            }
        }
        let stride = self.labels.len().div_ceil(MAX_LABELS).max(1);
        for (at, label) in self.labels.iter().enumerate().step_by(stride) {
            // Of a date, month and day are enough here.
            let short = if is_date(label) { label.get(5..).unwrap_or(label) } else { label };
            push_label(out, LEFT + slot * (at as f64 + 0.5), "middle", short);
        }
    }
}

fn is_date(label: &str) -> bool {
    time::parse(label).is_some()
}

fn push_label(out: &mut String, x: f64, anchor: &str, label: &str) {
    let _ =
        write!(out, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>", BOTTOM + 18.0, escape(label));
}

/// A number of the axis, which has room for few digits. The ceiling and its half are round.
fn short(value: u64) -> String {
    let of = |unit: u64, name| match value % unit {
        0 => format!("{}{name}", value / unit),
        rest => format!("{}.{}{name}", value / unit, rest * 10 / unit),
    };
    match value {
        0..100_000 => value.to_string(),
        100_000..1_000_000 => of(1000, "k"),
        1_000_000..1_000_000_000 => of(1_000_000, "M"),
        _ => of(1_000_000_000, "G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_fit_their_numbers_and_say_them_in_words() {
        let values: Vec<u64> = (0..30).map(|n| n * 37).collect();
        let labels = (1..=30).map(|day| format!("2026-11-{day:02}")).collect();
        let chart = Chart::bars("Opens per day", "values", labels, vec![("opened".to_owned(), values)]);
        assert_eq!(chart.ceiling(), 2000);
        assert!(chart.description().contains("opened: highest 1073 at 2026-11-30, last 1073."));
        assert_eq!(chart.table().rows.len(), 30);
        let svg = chart.svg("c1");
        assert!(svg.contains(">11-01<") && !svg.contains(">2026-11-01<"), "the year is left out");
        let ages = Chart::bars("Key ages", "keys", vec!["to 30 days".to_owned()], vec![("data".to_owned(), vec![1])]);
        assert!(ages.svg("c2").contains(">to 30 days<"), "as long as a date, and none");
        let most = Chart::bars(
            "Opens per day",
            "values",
            vec!["2026-11-26".to_owned()],
            vec![("opened".to_owned(), vec![u64::MAX])],
        );
        assert!(most.ceiling() == u64::MAX && most.svg("c3").contains(&u64::MAX.to_string()));
        assert!(!svg.contains("NaN") && !svg.contains("style=") && svg.contains("aria-labelledby=\"c1-t c1-d\""));
    }

    #[test]
    fn many_dates_are_thinned_and_the_last_one_stays() {
        let labels: Vec<_> =
            (1..=31).flat_map(|day| (1..=9).map(move |month| format!("2026-{month:02}-{day:02}"))).collect();
        let mut labels: Vec<_> = labels.into_iter().filter(|label| time::parse(label).is_some()).collect();
        labels.sort();
        let values: Vec<u64> = (1..=labels.len() as u64).collect();
        let (last, count) = (labels[labels.len() - 1].clone(), labels.len() as u64);
        let chart = Chart::steps("Generations over time", "generations", labels, vec![("data".to_owned(), values)]);
        assert!(chart.labels.len() <= MAX_STEPS + 1);
        assert_eq!((chart.labels.last(), chart.series[0].1.last()), (Some(&last), Some(&count)));
        let one = Chart::steps(
            "Generations over time",
            "generations",
            vec!["2026-11-26".to_owned()],
            vec![("data".to_owned(), vec![1])],
        );
        assert!(!one.svg("c").contains("NaN"));
    }

    #[test]
    fn numbers_of_the_axis_are_short() {
        let shown = [0, 99_999, 100_000, 250_000, 1_000_000, 2_500_000, 50_000_000, 5_000_000_000].map(short);
        assert_eq!(shown, ["0", "99999", "100k", "250k", "1M", "2.5M", "50M", "5G"]);
    }
}
