//! Names of results, for logs.

use core::ffi::c_char;
use core::ptr::null;

/// Of a name and the NUL behind it, at most.
const LEN: usize = 22;

/// What a function of this library can return. In one object: linkers leave texts of their own in firmware that has no use for them.
static NAMES: [(i32, [u8; LEN]); 17] = [
    (0, text("Ok")),
    (100, text("InvalidInput")),
    (101, text("NullPointer")),
    (102, text("BufferTooSmall")),
    (103, text("LimitExceeded")),
    (104, text("InvalidHandle")),
    (105, text("Overlap")),
    (200, text("Malformed")),
    (201, text("Unsupported")),
    (300, text("NoMatchingKey")),
    (301, text("DecryptionFailed")),
    (302, text("WrongScope")),
    (303, text("KeyState")),
    (304, text("RecordRejected")),
    (500, text("RandomnessUnavailable")),
    (601, text("Io")),
    (900, text("Internal")),
];

const fn text(name: &str) -> [u8; LEN] {
    let (mut text, mut at) = ([0; LEN], 0);
    while at < name.len() {
        text[at] = name.as_bytes()[at];
        at += 1;
    }
    assert!(at < LEN, "a NUL is behind it");
    text
}

/// The name of a result, such as "DecryptionFailed", or NULL where this library returns none of that number: functions of the program that it
/// calls may. Valid for ever. Firmware that does not call it does not have the texts.
#[unsafe(no_mangle)]
pub extern "C" fn kfd_result_name(result: i32) -> *const c_char {
    NAMES.iter().find(|(number, _)| *number == result).map_or(null(), |(_, name)| name.as_ptr().cast())
}
