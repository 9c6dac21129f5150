//! Working hours, outside of which a use is worth a look.

use crate::time::{DAY, HOUR, weekday};
use std::fmt;
use std::str::FromStr;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Working hours, such as `mon-fri 07:00-19:00, sat 22:00-06:00 +01:00`: days and times, and how far local time is ahead of UTC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hours {
    spans: Vec<Span>,
    ahead: i64,
    text: String,
}

/// Times of some days of the week. What ends no later than it begins ends on the day after.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Span {
    first_day: u8,
    last_day: u8,
    from: u64,
    to: u64,
}

impl Span {
    fn contains(&self, day: u8, of_day: u64) -> bool {
        let (first, last) = (self.first_day, self.last_day);
        let is_one_of =
            |day: u8| if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last };
        if self.from < self.to {
            return is_one_of(day) && (self.from..self.to).contains(&of_day);
        }
        is_one_of(day) && of_day >= self.from || is_one_of((day + 6) % 7) && of_day < self.to
    }

    fn parse(text: &str) -> Option<Self> {
        let (days, times) = text.trim().split_once(' ')?;
        let day = |name: &str| DAYS.iter().position(|known| *known == name).map(|at| at as u8);
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let (from, to) = times.trim().split_once('-')?;
        let (from, to) = (of_day(from)?, of_day(to)?);
        (from != to).then_some(Self { first_day: day(first)?, last_day: day(last)?, from, to })
    }
}

impl Hours {
    /// Whether a time, in seconds since 1970, is within.
    #[must_use]
    pub fn contain(&self, seconds: u64) -> bool {
        let local = seconds.saturating_add_signed(self.ahead);
        self.spans.iter().any(|span| span.contains(weekday(local), local % DAY))
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (spans, ahead) = match text.trim().rsplit_once(' ') {
                Some((spans, zone)) if zone.starts_with(['+', '-']) => {
                    let seconds = of_day(&zone[1..])? as i64;
                    (spans, if zone.starts_with('+') { seconds } else { -seconds })
                }
                _ => (text, 0),
            };
            let spans = spans.split(',').map(Span::parse).collect::<Option<_>>()?;
            Some(Self { spans, ahead, text: text.to_owned() })
        };
        parse().ok_or_else(|| {
            "days, times and the zone, such as 'mon-fri 07:00-19:00, sat 22:00-06:00 +01:00'; without a zone UTC"
                .to_owned()
        })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Seconds of a day from `HH:MM`, up to 24:00.
fn of_day(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
    let seconds =
        number(hours).filter(|hours| *hours <= 24)? * HOUR + number(minutes).filter(|minutes| *minutes < 60)? * 60;
    (seconds <= DAY).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse;

    #[test]
    fn days_times_and_zones() {
        let at = |text: &str| parse(text).expect("a time");
        let hours: Hours = "mon-fri 07:00-19:00 +01:00".parse().expect("hours");
        assert!(hours.contain(at("2026-11-26T06:00:00Z")) && !hours.contain(at("2026-11-26T05:59:59Z")));
        assert!(!hours.contain(at("2026-11-26T18:00:00Z")), "the end is outside");
        assert!(!hours.contain(at("2026-11-28T10:00:00Z")), "a Saturday");
        let night: Hours = "sat-mon 00:00-24:00".parse().expect("hours");
        assert!(night.contain(at("2026-11-29T23:59:59Z")) && !night.contain(at("2026-11-26T12:00:00Z")));
        let shifts: Hours = "mon-fri 22:00-06:00, sun 08:00-10:00 -01:00".parse().expect("hours");
        assert!(
            shifts.contain(at("2026-11-28T06:59:59Z")) && !shifts.contain(at("2026-11-28T07:00:00Z")),
            "Friday's ends on Saturday"
        );
        assert!(
            !shifts.contain(at("2026-11-23T05:00:00Z")) && shifts.contain(at("2026-11-23T23:00:00Z")),
            "Monday's begins on Monday"
        );
        assert!(shifts.contain(at("2026-11-29T09:30:00Z")) && !shifts.contain(at("2026-11-29T11:00:00Z")));
        for wrong in [
            "",
            "mon",
            "mon-fri 07:00-07:00",
            "mon-fri 07:00-19:00,",
            "mon-fri 7-19",
            "mon-fri 07:00-25:00",
            "mon 07:00-08:00 01:00",
            "mon 07:00-18446744073709551615:00",
            "x 07:00-08:00",
        ] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }
}
