//! What a service's clock says, by the header `Date` of an answer.

use reqwest::header::{DATE, HeaderMap};
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// By how many whole seconds the service is ahead of this machine, which asked at `sent` and had the answer at `received`.
/// What the seconds of the header leave open, and the time that the answer took, counts as no difference.
pub(super) fn ahead(headers: &HeaderMap, sent: SystemTime, received: SystemTime) -> Option<i64> {
    let date = seconds(headers.get(DATE)?.to_str().ok()?)?;
    let since_1970 =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok());
    let (first, last) = (since_1970(sent)?, since_1970(received)?);
    Some(if date < first { date - first } else { (date - last).max(0) })
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7, the one form that may be sent).
fn seconds(date: &str) -> Option<i64> {
    let parts: Vec<&str> = date.split_once(", ")?.1.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts[..] else { return None };
    let number = |text: &str, len: usize, most: i64| {
        let digits = text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|number: &i64| digits && *number <= most)
    };
    let month = MONTHS.iter().position(|name| *name == month)? as i64 + 1;
    let (day, year) = (number(day, 2, 31)?, number(year, 4, 9999)?);
    let clock: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = clock[..] else { return None };
    let (hour, minute, second) = (number(hour, 2, 23)?, number(minute, 2, 59)?, number(second, 2, 60)?);
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1 January 1970 to a date of the Gregorian calendar, with years that begin in March so that leap days are last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_read_as_http_writes_them() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(seconds("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(seconds("Tue, 29 Feb 2028 23:59:59 GMT"), Some(1_835_481_599));
        for wrong in [
            "",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_time_that_an_answer_takes_is_no_skew() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let headers = HeaderMap::from_iter([(DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap())]);
        for (sent, received, expected) in [(777, 777, 0), (770, 780, 0), (700, 701, 76), (800, 810, -23)] {
            let found = ahead(&headers, at(784_111_000 + sent), at(784_111_000 + received));
            assert_eq!(found, Some(expected), "{sent} {received}");
        }
        assert_eq!(ahead(&HeaderMap::new(), at(1), at(2)), None);
    }
}
