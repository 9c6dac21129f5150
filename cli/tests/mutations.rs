//! One damaged value in a file: refused with the class that FORMAT.md names for the byte. Every bit and every length
//! is the business of the core's tests; here a sample goes through the whole command.

use crate::common::{self, DATA, KEY, POLICY, Table, World};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

/// Where in the table a value of the suite is, and how long its shortest value is in bytes.
const SUITES: [(&str, (usize, usize), usize); 2] = [("01", (2, 1), 67), ("02", (2, 0), 43)];

/// The bytes of a sealed text, without magic.
fn decode(text: &str) -> Vec<u8> {
    let (head, tail) = text.strip_prefix("kf1.").and_then(|rest| rest.split_once('.')).expect("a sealed text");
    let mut bytes = HEXLOWER.decode(head.as_bytes()).expect("suite and generation");
    bytes.extend(BASE64URL_NOPAD.decode(tail.as_bytes()).expect("base64url"));
    bytes
}

fn encode(bytes: &[u8]) -> String {
    let (head, tail) = bytes.split_at(5);
    format!("kf1.{}.{}", HEXLOWER.encode(head), BASE64URL_NOPAD.encode(tail))
}

struct Sample {
    world: World,
    table: Table,
}

impl Sample {
    fn new() -> Self {
        let world = World::new();
        let table = world.protect(&[]);
        Self { world, table }
    }

    fn value(&self, place: (usize, usize)) -> String {
        self.table.clone().cell(place).clone()
    }

    /// A file in which `text` stands at `place` is refused for `class`.
    #[track_caller]
    fn refuses(&self, place: (usize, usize), text: &str, classes: &[(i32, &str)]) {
        let mut table = self.table.clone();
        *table.cell(place) = text.to_owned();
        self.world.write("damaged.csv", table.render());
        let before = common::snapshot(&self.world.data());
        let run = self.world.run(&["reveal", "damaged.csv", "--output", "out.csv"]);
        let class = classes.iter().find(|(code, name)| run.code == Some(*code) && run.stderr.contains(name));
        assert!(class.is_some(), "{text}: {:?} is none of {classes:?}: {}", run.code, run.stderr);
        // A value that does not open may be where the others of the row are bound to.
        assert!(run.stderr.contains(&format!("row {} (line {}), column {}", place.0, place.0 + 1, place.1 + 1)));
        assert_eq!(common::snapshot(&self.world.data()), before);
    }
}

#[test]
fn flipped_bits_are_refused() {
    let sample = Sample::new();
    for (suite, place, _) in SUITES {
        let good = decode(&sample.value(place));
        assert_eq!(encode(&good), sample.value(place));
        // Suite, generation, fingerprint, nonce or synthetic IV, ciphertext, tag.
        let bits = [3, 4, 5, 6, 7, 8, 20, 39, 40, 100, 199, 200, 207, 300, 391, 392, good.len() * 8 - 1];
        for bit in bits {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 0x80 >> (bit % 8);
            let classes: &[(i32, &str)] = match bit / 8 {
                0 => &[(DATA, "Unsupported"), (DATA, "Malformed"), (POLICY, "PolicyRefused")],
                1..25 => &[(KEY, "NoMatchingKey")],
                _ => &[(KEY, "DecryptionFailed")],
            };
            sample.refuses(place, &encode(&bytes), classes);
        }
        assert!(sample.value(place).starts_with(&format!("kf1.{suite}")));
    }
}

// Failure C3
#[test]
fn cut_values_are_refused() {
    let sample = Sample::new();
    for (_, place, shortest) in SUITES {
        let good = decode(&sample.value(place));
        // Lengths of the whole value; magic is not in the text.
        for len in [0, 1, 4, shortest - 2, shortest - 1, shortest, good.len()] {
            let cut = &good[..len.min(good.len() - 1).max(5)];
            let class = if cut.len() < shortest - 1 { (DATA, "Malformed") } else { (KEY, "DecryptionFailed") };
            sample.refuses(place, &encode(cut), &[class]);
        }
        let longer = [&good[..], b"\0"].concat();
        sample.refuses(place, &encode(&longer), &[(KEY, "DecryptionFailed")]);
    }
}

// Failure C14
#[test]
fn other_spellings_of_a_value_are_refused() {
    let sample = Sample::new();
    for (_, place, _) in SUITES {
        let good = sample.value(place);
        let (head, tail) = good.split_at(15);
        let spellings = [
            good.replacen("kf1.", "kf2.", 1),
            good.replacen("kf1.", "KF1.", 1),
            good.replacen("kf1.0", "kf1.", 1),
            good.replacen("kf1.0", "kf1.+", 1),
            format!(" {good}"),
            format!("{good} "),
            format!("{good}="),
            format!("{good}\u{a0}"),
            format!("{head}={tail}"),
            format!("{good}{good}"),
            good[..good.len() - 1].to_owned() + "*",
        ];
        for text in spellings {
            sample.refuses(place, &text, &[(DATA, "Malformed")]);
        }
    }
}

// Failure C14
#[test]
fn the_last_character_has_one_spelling() {
    let world = World::new();
    world.write("policy.toml", "version = 1\n[fields.a]\ncolumns = [\"a\"]\n");
    let mut seen = std::collections::BTreeSet::new();
    for text in ["Canáry7391", "Canáry7391x", "Canáry7391xy"] {
        world.write("in.csv", format!("a\n{text}\n"));
        let sealed = world.protect(&[]).cell((1, 0)).clone();
        // Bits of the last character that no byte needs; setting one would be another text of the same value.
        let unused = [0, 6, 4, 2][(sealed.len() - "kf1.0100000001.".len()) % 4];
        seen.insert(unused);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let (rest, last) = sealed.split_at(sealed.len() - 1);
        let at = alphabet.iter().position(|&c| c == last.as_bytes()[0]).expect("base64url");
        for bit in 0..unused {
            let other = format!("{rest}{}", char::from(alphabet[at ^ (1 << bit)]));
            world.write("moved.csv", format!("a\n{other}\n"));
            world.refuses(&["reveal", "moved.csv", "--output", "out.csv"], DATA, &["Malformed", "row 1"]);
        }
    }
    assert_eq!(Vec::from_iter(seen), [0, 2, 4]);
}
