//! Working hours, outside of which a use is worth a look.

use crate::time::{DAY, HOUR, weekday};
use std::fmt;
use std::str::FromStr;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Working hours, such as `mon-fri 07:00-19:00 +01:00`: days, times, and how far local time is ahead of UTC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hours {
    first_day: u8,
    last_day: u8,
    from: u64,
    to: u64,
    ahead: i64,
    text: String,
}

impl Hours {
    /// Whether a time, in seconds since 1970, is within.
    #[must_use]
    pub fn contain(&self, seconds: u64) -> bool {
        let local = seconds.saturating_add_signed(self.ahead);
        let (day, of_day) = (weekday(local), local % DAY);
        let within =
            |first: u8, last: u8| if first <= last { day >= first && day <= last } else { day >= first || day <= last };
        within(self.first_day, self.last_day) && of_day >= self.from && of_day < self.to
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split_ascii_whitespace();
            let (days, times, ahead) = (parts.next()?, parts.next()?, parts.next());
            let day = |name: &str| DAYS.iter().position(|known| *known == name).map(|at| at as u8);
            let (first, last) = days.split_once('-').unwrap_or((days, days));
            let (from, to) = times.split_once('-')?;
            let (from, to) = (of_day(from)?, of_day(to)?);
            let ahead = match ahead {
                None => 0,
                Some(zone) => {
                    let seconds = of_day(zone.get(1..)?)? as i64;
                    match zone.as_bytes()[0] {
                        b'+' => seconds,
                        b'-' => -seconds,
                        _ => return None,
                    }
                }
            };
            let is_whole = parts.next().is_none() && from < to;
            is_whole.then_some(Self {
                first_day: day(first)?,
                last_day: day(last)?,
                from,
                to,
                ahead,
                text: text.to_owned(),
            })
        };
        parse().ok_or_else(|| {
            "days, times and the zone, such as 'mon-fri 07:00-19:00 +01:00'; without a zone UTC".to_owned()
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
    let seconds = number(hours)? * HOUR + number(minutes).filter(|minutes| *minutes < 60)? * 60;
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
        for wrong in [
            "",
            "mon",
            "mon-fri 19:00-07:00",
            "mon-fri 7-19",
            "mon-fri 07:00-25:00",
            "mon 07:00-08:00 01:00",
            "x 07:00-08:00",
        ] {
            assert!(wrong.parse::<Hours>().is_err(), "{wrong}");
        }
    }
}
