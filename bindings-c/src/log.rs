//! What the library logs, in a function of the program's.

use crate::boundary::boundary;
use crate::callback::{User, kf_release_fn};
use crate::result::kf_result;
use arc_swap::ArcSwapOption;
use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use tracing::Level;

/// How much a line of the log matters.
#[repr(u8)]
#[derive(Clone, Copy)]
pub enum kf_log_level {
    /// Something is wrong that somebody has to look at.
    KF_LOG_ERROR = 1,
    /// Something is wrong, and keyfold goes on.
    KF_LOG_WARNING = 2,
    /// What was done to keys and configuration.
    KF_LOG_INFO = 3,
}

/// Is given a line of the log: its kf_log_level, and one line of UTF-8 without a newline, safe to store as texts of errors are. Programs
/// do not parse it. It does not block for long, and calls no function of this header.
pub type kf_log_fn = Option<unsafe extern "C" fn(user: *mut c_void, level: u8, text: *const c_char, text_len: usize)>;

type Log = unsafe extern "C" fn(*mut c_void, u8, *const c_char, usize);

struct Logger {
    log: Log,
    user: User,
}

static LOGGER: ArcSwapOption<Logger> = ArcSwapOption::const_empty();

/// Has `log` get what keyfold logs in this process, such as that one of several KEKs cannot be reached; NULL: nobody, as at first. It
/// runs on any thread, several at once, and is given `user`, for which `release` (may be NULL) is called once, when another call of
/// this function has taken its place and it runs no more. Where `log` is NULL neither is looked at.
///
/// Threads: any. Never blocks, but for a `release` of the program's that does.
///
/// Returns KF_OK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_set_log(log: kf_log_fn, release: kf_release_fn, user: *mut c_void) -> kf_result {
    boundary(null_mut(), || {
        keyfold_open::listen(pass_on);
        LOGGER.store(log.map(|log| Arc::new(Logger { log, user: User::new(user, release) })));
        Ok(())
    })
}

fn pass_on(level: Level, text: String) {
    let Some(logger) = LOGGER.load_full() else { return };
    let level = match level {
        Level::ERROR => kf_log_level::KF_LOG_ERROR,
        Level::WARN => kf_log_level::KF_LOG_WARNING,
        _ => kf_log_level::KF_LOG_INFO,
    };
    // SAFETY: the contract of the header for kf_log_fn; the text is valid for this call.
    unsafe { (logger.log)(logger.user.pointer(), level as u8, text.as_ptr().cast(), text.len()) };
}
