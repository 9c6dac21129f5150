//! Files with key IDs that were found in data.

use crate::failure::{Exit, Failure};
use keyfold::wire::KeyId;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// Longer than every line: a key ID and a count.
const MAX_LINE_LEN: u64 = 256;

/// The key IDs in `file`, one in each line, with a tab and a count behind it or not; `-` is standard input.
pub(crate) fn read(file: &OsStr) -> Result<BTreeSet<KeyId>, Failure> {
    let name = file.display().to_string();
    let failed = |error: io::Error| Failure::new(Exit::Storage, format!("cannot read {name}: {error}"));
    let input: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file).map_err(failed)?),
    };
    let mut input = BufReader::new(input);
    let mut key_ids = BTreeSet::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        if (&mut input).take(MAX_LINE_LEN).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            break;
        }
        let key_id = std::str::from_utf8(&line).ok().and_then(|line| parse(line.trim_end_matches(['\r', '\n'])));
        let wrong = "expected a key ID, 48 lower-case hexadecimal digits, and perhaps a tab and a count";
        key_ids.insert(key_id.ok_or_else(|| Failure::new(Exit::Data, format!("{name}, line {number}: {wrong}")))?);
    }
    Ok(key_ids)
}

fn parse(line: &str) -> Option<KeyId> {
    let (key_id, count) = line.split_once('\t').map_or((line, None), |(key_id, count)| (key_id, Some(count)));
    if count.is_some_and(|count| count.parse::<u64>().is_err()) {
        return None;
    }
    key_id.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_and_perhaps_a_count() {
        let key_id = "00000001".to_owned() + &"ab".repeat(20);
        assert!(parse(&key_id).is_some() && parse(&format!("{key_id}\t17")).is_some());
        for wrong in ["", "x", &key_id[1..], &format!("{key_id}\t"), &format!("{key_id} 17"), &key_id.to_uppercase()] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
