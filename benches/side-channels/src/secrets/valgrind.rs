//! Requests to memcheck: which bytes are secret. Without valgrind they do nothing.
//!
//! What memcheck calls undefined stands for secret: it follows such bits through registers and memory, and reports each branch, address and
//! system call that depends on one.

use std::hint::black_box;

// Of valgrind.h and memcheck.h.
const RUNNING_ON_VALGRIND: usize = 0x1001;
const MEMCHECK: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
const MAKE_MEM_UNDEFINED: usize = MEMCHECK + 1;
const MAKE_MEM_DEFINED: usize = MEMCHECK + 2;

/// What valgrind answers; 0 without it, and on processors for which the sequence is another one.
#[cfg(not(target_arch = "x86_64"))]
fn request(_: usize, _: usize, _: usize) -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
fn request(code: usize, address: usize, len: usize) -> usize {
    let arguments = [code, address, len, 0, 0, 0];
    let mut answer = 0_usize;
    // SAFETY: the four rotations add up to 128 bits and the exchange is of a register with itself, so the processor changes nothing. Valgrind knows the
    // sequence, reads the arguments, which are 6 words as it expects, and writes the answer to rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(), inout("rdx") answer, options(nostack),
        );
    }
    answer
}

/// Whether valgrind runs this.
pub(crate) fn is_running() -> bool {
    request(RUNNING_ON_VALGRIND, 0, 0) != 0
}

/// Whether the processor that valgrind shows has AES.
pub(crate) fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// From now on these bytes are secret.
pub(crate) fn hide(bytes: &mut [u8]) {
    // The compiler must forget what it knows of them.
    let bytes = black_box(bytes);
    request(MAKE_MEM_UNDEFINED, bytes.as_mut_ptr().addr(), bytes.len());
    black_box(bytes);
}

/// From now on these bytes are public.
pub(crate) fn show(bytes: &[u8]) {
    let bytes = black_box(bytes);
    request(MAKE_MEM_DEFINED, bytes.as_ptr().addr(), bytes.len());
    black_box(bytes);
}

/// `bytes`, secret.
pub(crate) fn hidden<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    hide(&mut bytes);
    bytes
}

/// `text`, secret.
pub(crate) fn hidden_text(text: &str) -> String {
    let text = black_box(text.to_owned());
    request(MAKE_MEM_UNDEFINED, text.as_ptr().addr(), text.len());
    black_box(text)
}
