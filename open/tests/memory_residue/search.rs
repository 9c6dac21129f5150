//! Copies of secrets in the memory of a process.

use crate::common::residue::{Mapping, count};
use crate::secrets::is_used;

/// Copies of a key.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub(crate) struct Copies {
    /// In pages that are locked and not in core dumps.
    pub(crate) guarded: usize,
    pub(crate) heap: usize,
    pub(crate) stack: usize,
    /// In other pages, such as stacks of threads.
    pub(crate) elsewhere: usize,
    /// Of those outside of guarded memory, copies of more than the first half.
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

/// Of keys that are expanded in guarded memory, the round keys there after the first two, which are the key itself. Two that follow each
/// other give the key away.
pub(crate) fn round_keys(memory: &[Mapping], keys: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    const LEN: usize = 15 * 16;
    let mut all = Vec::new();
    for (name, key) in keys.iter().filter(|(name, _)| name.ends_with("/01-field") || name.ends_with("/child-wrap")) {
        let expanded = memory.iter().filter(|mapping| mapping.is_guarded).find_map(|mapping| {
            let at = mapping.bytes.windows(key.len()).position(|bytes| bytes == key)?;
            mapping.bytes.get(at..at + LEN)
        });
        let rest = expanded.unwrap_or_default().as_chunks::<16>().0.iter().enumerate().skip(2);
        all.extend(rest.map(|(n, round_key)| (format!("{name}, round key {n}"), round_key.to_vec())));
    }
    all
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
