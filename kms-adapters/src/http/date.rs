//! What a service's clock says, by the header `Date` of an answer.

use reqwest::header::{DATE, HeaderMap};
use std::time::{SystemTime, UNIX_EPOCH};

/// By how many whole seconds the service is ahead of this machine, which asked at `sent` and had the answer at `received`.
/// What the seconds of the header leave open, and the time that the answer took, counts as no difference.
pub(super) fn ahead(headers: &HeaderMap, sent: SystemTime, received: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let since_1970 =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok());
    let (date, first, last) = (since_1970(date)?, since_1970(sent)?, since_1970(received)?);
    Some(if date < first { date - first } else { (date - last).max(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
