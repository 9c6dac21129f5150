//! What the tests with hostile bytes share: bounds, the table of FORMAT.md §9.3, mutations.

use keyfold::ErrorKind;
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};

#[allow(dead_code, reason = "shared with the tests of every change")]
#[path = "bounds.rs"]
mod bounds;

pub(crate) use bounds::{MAX_EXTRA_ALLOCATION, allocated};

/// FORMAT.md §9.3: what a change of the byte at `at` comes to in the record of a key that a root wraps.
pub(crate) fn class_of_record_byte(at: usize, record: &[u8], environment_len: usize) -> &'static [ErrorKind] {
    use ErrorKind::{Malformed, RecordRejected, Unsupported};
    let end = 183 + environment_len;
    match at {
        0..=2 => &[Malformed],
        3 => &[Unsupported],
        4 if (1..=4).contains(&record[4]) => &[RecordRejected],
        5 if (1..=5).contains(&record[5]) => &[RecordRejected],
        5 if record[5] == 6 => &[Malformed],
        4 | 5 => &[Unsupported],
        6..=9 => &[RecordRejected],
        10..=49 => &[Malformed],
        50..=181 => &[RecordRejected],
        // Lengths, counts and text: whatever the bytes happen to spell then, but always one of the three.
        182 => &[Malformed, Unsupported],
        at if at < end => &[RecordRejected, Malformed],
        at if at <= end + 5 => &[Malformed, Unsupported, RecordRejected],
        at if at < end + 78 => &[RecordRejected],
        at if at < end + 81 => &[Malformed],
        _ => &[RecordRejected],
    }
}

/// The operations of mutations.json, at places and with values that `draw` chooses.
pub(crate) fn mutate(a: &[u8], b: &[u8], draw: &mut impl FnMut() -> u32) -> Vec<u8> {
    let mut out = a.to_vec();
    let n = out.len();
    let op = draw() % 18;
    let at = draw() as usize % n;
    let value = draw();
    match op {
        0 => out.truncate(at),
        1 => out[at] ^= 1 << (value % 8),
        2 => out[at] = [0, 1, 127, 128, 254, 255][value as usize % 6],
        3 => out.insert(at, [0, 0xFF][value as usize % 2]),
        4 => drop(out.drain(at..=at)),
        5 => match value % 4 {
            0 => out.push(0),
            1 => out.push(0xFF),
            2 => out.extend_from_slice(b"\r\n"),
            _ => out.extend_from_slice(a),
        },
        6 => drop(out.splice(..0, if value.is_multiple_of(2) { vec![0] } else { vec![0xEF, 0xBB, 0xBF] })),
        7 => out.swap(at, (at + 1) % n),
        8 | 9 => {
            let n = n as u32;
            let number = [0, 1, n - 1, n, n + 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, u32::MAX]
                [value as usize % 11];
            let number = if value & 64 == 0 { number.to_be_bytes() } else { number.to_le_bytes() };
            let part = match (op, value & 64) {
                (9, _) => &number[..],
                (_, 0) => &number[2..],
                _ => &number[..2],
            };
            let at = at.min(out.len().saturating_sub(part.len()));
            out[at..at + part.len()].copy_from_slice(part);
        }
        10 => out = [&a[..at], &b[at.min(b.len())..]].concat(),
        11 => {
            out = if value.is_multiple_of(2) {
                [&a[..26.min(n)], &b[26.min(b.len())..]].concat()
            } else {
                [&b[..26.min(b.len())], &a[26.min(n)..]].concat()
            }
        }
        12 => out[0] = value as u8,
        13 => out[1] = value as u8,
        14 => drop(out.splice(..0, a[..26.min(n)].to_vec())),
        15 => {
            out = if value.is_multiple_of(2) {
                data_encoding::BASE64.encode(a)
            } else {
                data_encoding::HEXLOWER.encode(a)
            }
            .into_bytes()
        }
        16 => out.reverse(),
        _ => out = (0..value % 4097).map(|_| draw() as u8).collect(),
    }
    out
}

pub(crate) fn generator(seed: &str) -> impl FnMut() -> u32 {
    let mut shake = Shake128::default();
    shake.update(seed.as_bytes());
    let mut stream = shake.finalize_xof();
    let mut buffer = [0; 4096];
    let mut at = buffer.len();
    move || {
        if at == buffer.len() {
            stream.read(&mut buffer);
            at = 0;
        }
        at += 4;
        u32::from_le_bytes(buffer[at - 4..at].try_into().unwrap())
    }
}
