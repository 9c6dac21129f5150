//! What of this build runs in a FIPS 140 module.

use crate::boundary::boundary;
use crate::memory::Output;
use crate::result::{kf_error, kf_result};
use keyfold::fips::{self, Service};
use std::ffi::{CString, c_char};
use std::sync::LazyLock;

/// Which FIPS 140 module the library has. Its texts are of the library, in UTF-8 with a NUL behind, and stay.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_fips {
    /// Whether it has one.
    pub has_module: bool,
    /// Whether that says that it is in FIPS mode.
    pub is_in_fips_mode: bool,
    /// 0.
    pub reserved: [u8; 6],
    /// The name of the module, or nothing.
    pub module: *const c_char,
    /// The version of the library that the module is a part of, or nothing.
    pub version: *const c_char,
    /// Everything cryptographic that the library does but for KEKs, a line each: what for, by which algorithms, what computes them, and "approved" or
    /// "not approved", with a tab between.
    pub services: *const c_char,
}

struct Texts {
    module: CString,
    version: CString,
    services: CString,
}

static TEXTS: LazyLock<Texts> = LazyLock::new(|| {
    let text = |text: String| CString::new(text).expect("the texts of a status have no NUL");
    let status = fips::status();
    let line = |Service { name, algorithm, computed_by, is_approved, .. }: &Service| {
        let approved = if *is_approved { "approved" } else { "not approved" };
        format!("{name}\t{algorithm}\t{computed_by}\t{approved}\n")
    };
    Texts {
        module: text(status.module.map(|module| module.name.to_owned()).unwrap_or_default()),
        version: text(status.module.map(|module| module.version.to_owned()).unwrap_or_default()),
        services: text(status.services.iter().map(line).collect()),
    }
});

/// Says which FIPS 140 module this library has, whether it is in FIPS mode, and what runs in it. Keyfold itself is not validated.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_fips_status(status: *mut kf_fips, error: *mut kf_error) -> kf_result {
    boundary(error, || {
        let mut out = Output::one(status)?;
        let module = fips::status().module;
        let made = kf_fips {
            has_module: module.is_some(),
            is_in_fips_mode: module.is_some_and(|module| module.is_in_fips_mode),
            reserved: [0; 6],
            module: TEXTS.module.as_ptr(),
            version: TEXTS.version.as_ptr(),
            services: TEXTS.services.as_ptr(),
        };
        // SAFETY: the contract of the header: `status` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}
