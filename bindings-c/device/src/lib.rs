//! The C library of keyfold for devices: seals and opens fields of one scope under a provisioned key.
//!
//! What a function does is said in the header, which is made of these files (tests/header.rs). Needs no operating system and never
//! allocates. Nothing here or in core can panic, which tests/run.py reads in the linked image.
#![no_std]
#![allow(
    non_camel_case_types,
    missing_docs,
    clippy::missing_safety_doc,
    reason = "names and documentation are those of the header"
)]
#![allow(unexpected_cfgs, reason = "kfd_planted is a test's")]

mod counter;
mod key;
mod memory;
mod name;
mod passphrase;
mod result;
mod seal;
mod value;

pub use counter::*;
pub use key::*;
pub use name::*;
pub use passphrase::*;
pub use result::kf_result;
pub use seal::*;
pub use value::*;

#[cfg(any(feature = "panic-handler", feature = "panic-abort"))]
#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    #[cfg(feature = "panic-handler")]
    {
        unsafe extern "C" {
            /// The firmware's own, as the header says.
            fn kfd_panicked(file: *const core::ffi::c_char, file_len: usize, line: u32) -> !;
        }
        let (file, line) = info.location().map_or(("", 0), |at| (at.file(), at.line()));
        // SAFETY: a function of the firmware that is given a text and a number.
        unsafe { kfd_panicked(file.as_ptr().cast(), file.len(), line) }
    }
    #[cfg(not(feature = "panic-handler"))]
    {
        unsafe extern "C" {
            /// Of C's own library.
            fn abort() -> !;
        }
        let _ = info;
        // SAFETY: it may be called at any time.
        unsafe { abort() }
    }
}
