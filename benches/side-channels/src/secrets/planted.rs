//! Faults that must be found, or what finds nothing finds nothing.

use crate::Case;
use crate::valgrind::hidden;
use std::hint::black_box;

pub(crate) const CASES: &[Case] =
    &[("planted_branch", planted_branch), ("planted_index", planted_index), ("planted_comparison", planted_comparison)];

/// Branches on a bit of a key.
#[inline(never)]
fn planted_branch() {
    if hidden([7; 32])[0] & 1 == 1 {
        black_box(());
        black_box(0);
    }
}

/// Looks up a byte of a key, as AES with tables does.
#[inline(never)]
fn planted_index() {
    let table: [u8; 256] = std::array::from_fn(|i| i as u8 ^ 0x63);
    black_box(black_box(&table)[usize::from(hidden([7; 32])[0])]);
}

/// Compares a MAC as slices are compared: up to the first byte that differs.
#[inline(never)]
fn planted_comparison() {
    let (computed, given) = (hidden([7; 32]), [7; 32]);
    black_box(black_box(&computed[..]) == black_box(&given[..]));
}
