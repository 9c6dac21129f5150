//! Times in reports: seconds since 1970, all in UTC.

use crate::text::counted;
use keyfold::{Value, ValueType};

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 24 * HOUR;

/// The seconds that an RFC 3339 time in UTC (`2026-11-26T09:00:00Z`) or the start of a date (`2026-11-26`) stands for.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    match Value::from_text(ValueType::Timestamp, &whole).ok()? {
        Value::Timestamp { seconds, .. } => seconds.try_into().ok(),
        _ => None,
    }
}

/// The time as RFC 3339 writes it.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().map(|seconds| Value::Timestamp { seconds, nanoseconds: 0 });
    time.as_ref().and_then(Value::to_text).map_or_else(|| seconds.to_string(), std::borrow::Cow::into_owned)
}

/// The same for people, to the minute.
pub(crate) fn minute(seconds: u64) -> String {
    rfc3339(seconds).get(..16).map_or_else(|| seconds.to_string(), |text| text.replace('T', " "))
}

/// The date.
pub(crate) fn date(seconds: u64) -> String {
    rfc3339(seconds).get(..10).map_or_else(|| seconds.to_string(), str::to_owned)
}

/// The day of the week, 0 for Monday.
pub(crate) const fn weekday(seconds: u64) -> u8 {
    // 1 January 1970 was a Thursday.
    ((seconds / DAY + 3) % 7) as u8
}

/// The same date six years earlier, as 45 CFR 164.316(b)(2)(i) counts; 29 February becomes the 28th.
pub(crate) fn six_years_before(seconds: u64) -> u64 {
    let date = date(seconds);
    let (year, rest) = date.split_at(4);
    let year = year.parse::<u32>().unwrap_or(1970).saturating_sub(6).max(1970);
    let of_day = seconds % DAY;
    let moved = |rest: &str| parse(&format!("{year:04}{rest}"));
    moved(rest).or_else(|| moved("-02-28")).map_or(0, |day| day + of_day)
}

/// A length of time for people, in its largest whole unit.
pub(crate) fn length(seconds: u64) -> String {
    match seconds {
        s if s >= DAY => counted(s / DAY, "day"),
        s if s >= HOUR => counted(s / HOUR, "hour"),
        s if s >= 60 => counted(s / 60, "minute"),
        s => counted(s, "second"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_weekdays() {
        let at = parse("2026-11-26T09:05:07Z").expect("a time");
        assert_eq!((rfc3339(at).as_str(), minute(at).as_str()), ("2026-11-26T09:05:07Z", "2026-11-26 09:05"));
        assert_eq!(weekday(at), 3, "a Thursday");
        assert_eq!(parse("2026-11-26"), parse("2026-11-26T00:00:00Z"));
        assert_eq!(parse("yesterday"), None);
        assert_eq!(date(six_years_before(at)), "2020-11-26");
        assert_eq!(date(six_years_before(parse("2028-02-29").expect("a day"))), "2022-02-28");
        assert_eq!((length(DAY), length(2 * HOUR + 1)), ("1 day".to_owned(), "2 hours".to_owned()));
    }
}
