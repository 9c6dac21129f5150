//! Copies of secrets in the memory of a process.

use crate::common::residue::{Mapping, count};
use crate::secrets::{is_expanded, is_used};

/// Copies of a key.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(crate) struct Copies {
    /// In pages that are locked and not in core dumps.
    pub(crate) guarded: usize,
    pub(crate) heap: usize,
    pub(crate) stack: usize,
    /// In other pages, such as stacks of threads.
    pub(crate) elsewhere: usize,
    /// Of those outside of guarded memory, copies of more than the first half: which one would like to know when there is any.
    pub(crate) whole: usize,
}

impl Copies {
    pub(crate) fn open_to_swap(self) -> usize {
        self.heap + self.stack + self.elsewhere
    }
}

/// Bytes of half of a key, which is too much as well.
const HALF: usize = 16;

/// Copies of the first halves of keys, and of keys as far as 32 bytes.
pub(crate) fn halves_and_whole(bytes: &[u8], keys: &[(String, Vec<u8>)]) -> [Vec<usize>; 2] {
    [HALF, 2 * HALF].map(|len| count(bytes, keys.iter().map(|(_, key)| key.get(..len).unwrap_or(key))))
}

/// What else gives keys away: their second halves, and those of AES-SIV for CTR; and what HMAC makes of a key before it hashes it.
pub(crate) fn disguised(keys: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for (name, key) in keys.iter().filter(|(name, key)| is_used(name) && key.len() >= 2 * HALF) {
        all.extend(key.chunks(HALF).enumerate().skip(1).map(|(n, part)| (format!("{name}, part {n}"), part.to_vec())));
        for pad in [0x36, 0x5c] {
            let padded = key[..HALF].iter().map(|byte| byte ^ pad).collect();
            all.push((format!("{name}, in HMAC, {pad:x}"), padded));
        }
    }
    all
}

/// In the names of round keys.
pub(crate) const ROUND_KEY: &str = ", round key ";

/// Of keys that are expanded, the round keys after the first two, which are the halves of the key itself. Two that follow each other give the key away.
pub(crate) fn round_keys(keys: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    let expanded = keys.iter().filter(|(name, _)| is_expanded(name)).flat_map(|(name, key)| {
        let round_keys = expand(key[..].try_into().unwrap()).into_iter().enumerate().skip(2);
        round_keys.map(move |(n, round_key)| (format!("{name}{ROUND_KEY}{n}"), round_key.to_vec()))
    });
    expanded.collect()
}

/// The key schedule of AES-256 (FIPS 197 §5.2).
fn expand(key: &[u8; 32]) -> [[u8; 16]; 15] {
    let (s_box, mut round) = (s_box(), 1);
    let mut words: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
    for n in 8..60 {
        let mut word = words[n - 1];
        if n % 8 == 0 {
            word.rotate_left(1);
        }
        if n % 4 == 0 {
            word = word.map(|byte| s_box[usize::from(byte)]);
        }
        if n % 8 == 0 {
            word[0] ^= round;
            round <<= 1;
        }
        word.iter_mut().zip(words[n - 8]).for_each(|(byte, before)| *byte ^= before);
        words.push(word);
    }
    std::array::from_fn(|n| words[4 * n..][..4].concat().try_into().unwrap())
}

/// The table of SubBytes (FIPS 197 §5.1.1): `p` goes through all that has an inverse, `q`.
fn s_box() -> [u8; 256] {
    let (mut table, mut p, mut q) = ([0x63; 256], 1_u8, 1_u8);
    loop {
        p ^= (p << 1) ^ (0x1b * (p >> 7));
        q ^= q << 1;
        q ^= q << 2;
        q ^= q << 4;
        q ^= 0x09 * (q >> 7);
        table[usize::from(p)] = (0..5).fold(0x63, |byte, n| byte ^ q.rotate_left(n));
        if p == 1 {
            return table;
        }
    }
}

/// Copies of each key in this memory.
pub(crate) fn search(memory: &[Mapping], keys: &[(String, Vec<u8>)]) -> Vec<Copies> {
    let mut found = vec![Copies::default(); keys.len()];
    for Mapping { name, is_guarded, bytes } in memory {
        let [halves, whole] = halves_and_whole(bytes, keys);
        for ((copies, half), whole) in found.iter_mut().zip(halves).zip(whole) {
            copies.whole += if *is_guarded { 0 } else { whole };
            *match &name[..] {
                _ if *is_guarded => &mut copies.guarded,
                "[heap]" => &mut copies.heap,
                "[stack]" => &mut copies.stack,
                _ => &mut copies.elsewhere,
            } += half;
        }
    }
    found
}

pub(crate) fn print(when: &str, keys: &[(String, Vec<u8>)], found: &[Copies]) {
    println!("{when}: copies in guarded memory, heap, main stack, elsewhere; whole ones outside of guarded memory");
    for ((name, _), copies) in keys.iter().zip(found).filter(|(_, copies)| **copies != Copies::default()) {
        let Copies { guarded, heap, stack, elsewhere, whole } = copies;
        println!("{guarded:4}{heap:4}{stack:4}{elsewhere:4};{whole:4}  {name}");
    }
}

/// Nothing less than a key is let pass: one half, either of them; one round key.
#[test]
fn what_is_planted_is_found() {
    let name = "data 4: keyfold/v1/data/01-field";
    let key: Vec<u8> = (0x60..0x80).collect();
    let mut keys = vec![(name.to_owned(), key.clone())];
    keys.extend([disguised(&keys), round_keys(&keys)].concat());
    assert_eq!(keys.len(), 1 + 3 + 13);
    let found_in = |planted: &[&[u8]]| {
        let bytes = planted.iter().flat_map(|part| [&[0; 5], *part].concat()).collect();
        let heap = Mapping { name: "[heap]".to_owned(), is_guarded: false, bytes };
        let found = search(&[heap], &keys);
        let outside = keys.iter().zip(found).filter(|(_, copies)| copies.open_to_swap() > 0);
        outside.map(|((name, _), _)| name.strip_prefix("data 4: keyfold/v1/data/01-field").unwrap()).collect::<Vec<_>>()
    };
    let round_key = &keys.iter().find(|(name, _)| name.ends_with("round key 7")).unwrap().1;
    assert!(found_in(&[]).is_empty());
    assert_eq!(found_in(&[&key]), ["", ", part 1"]);
    assert_eq!(found_in(&[&key[..16]]), [""]);
    assert_eq!(found_in(&[&key[16..], round_key]), [", part 1", ", round key 7"]);
}
