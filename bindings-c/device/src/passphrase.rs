//! Bundles under a passphrase, for gateways: Argon2id in memory of the caller's.

use crate::key::{both, kfd_key, open_under, put};
use crate::memory::{Output, input, range, range_of};
use crate::result::{Outcome, erased, kf_result, result};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use core::mem::{align_of, size_of};
use core::slice;
use keyfold::Secret;
use keyfold::device::{Bundle, PassphraseCost, Protection};
use zeroize::Zeroize;

/// Most bytes of a passphrase.
pub const KFD_MAX_PASSPHRASE_LEN: usize = 1024;

fn params(bundle: &Bundle<'_>) -> Outcome<(PassphraseCost, Params)> {
    let Protection::Passphrase(cost) = bundle.protection() else {
        return Err(kf_result::INVALID_INPUT);
    };
    let params = Params::new(cost.memory, cost.passes, cost.lanes, Some(32)).map_err(|_| kf_result::INVALID_INPUT)?;
    Ok((cost, params))
}

/// Bytes of that many blocks, wherever they begin.
fn work_len(params: &Params) -> Outcome<usize> {
    let blocks = params.block_count().checked_mul(size_of::<Block>());
    blocks.and_then(|len| len.checked_add(align_of::<Block>() - 1)).ok_or(kf_result::LIMIT_EXCEEDED)
}

/// Bytes of memory that kfd_key_open_passphrase needs for this bundle: at least 19 MiB, and as many as who made it wanted.
///
/// Threads: any.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_INVALID_INPUT: a wrong length, or the bundle is not under a passphrase;
/// KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: as for kfd_key_open; KF_ERR_LIMIT_EXCEEDED: more than this machine can address.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_passphrase_work_len(bundle: *const u8, bundle_len: usize, len: *mut usize) -> kf_result {
    result((|| {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let bundle = unsafe { input(bundle, bundle_len) }?;
        let mut out = Output::one(len)?;
        out.apart_from(&[range_of(bundle)])?;
        let needed = work_len(&params(&Bundle::parse(bundle)?)?.1)?;
        // SAFETY: the contract of the header; apart from the bundle.
        unsafe { out.set(needed) };
        Ok(())
    })())
}

/// As kfd_key_open, under a passphrase of 1 to KFD_MAX_PASSPHRASE_LEN bytes. `work` is memory of the caller's, of as many bytes as
/// kfd_passphrase_work_len says; it is erased. Takes seconds: the time is what makes guessing dear.
///
/// Threads: any; nobody uses `*key` and `work` meanwhile.
///
/// Returns what kfd_key_open does, and KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT also if the bundle is not under a passphrase;
/// KF_ERR_DECRYPTION_FAILED: another passphrase, or the bundle was changed.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kfd_key_open_passphrase(
    bundle: *const u8,
    bundle_len: usize,
    passphrase: *const core::ffi::c_char,
    passphrase_len: usize,
    least_generation: u32,
    work: *mut u8,
    work_cap: usize,
    key: *mut kfd_key,
) -> kf_result {
    erased(|| {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let inputs = unsafe { both((bundle, bundle_len), (passphrase.cast(), passphrase_len), key) }?;
        let open = || {
            let (bundle, passphrase) = inputs?;
            if passphrase.is_empty() || passphrase.len() > KFD_MAX_PASSPHRASE_LEN {
                return Err(kf_result::INVALID_INPUT);
            }
            let parsed = Bundle::parse(bundle)?;
            let (cost, params) = params(&parsed)?;
            let blocks = params.block_count();
            let mut room = Output::new(work, work_cap, work_len(&params)?)?;
            room.apart_from(&[range(key, 1), range_of(bundle), range_of(passphrase)])?;
            // SAFETY: the contract of the header; apart from all else.
            let room = unsafe { room.get() };
            let transport = Secret::try_with(|out: &mut [u8; 32]| derive(passphrase, &cost, params, blocks, room, out));
            room.zeroize();
            open_under(&parsed, &transport?, least_generation)
        };
        // SAFETY: the contract of the header; apart from the inputs.
        unsafe { put(key, open) }
    })
}

fn derive(
    passphrase: &[u8],
    cost: &PassphraseCost,
    params: Params,
    blocks: usize,
    room: &mut [u8],
    out: &mut [u8; 32],
) -> Outcome<()> {
    let skip = room.as_ptr().align_offset(align_of::<Block>());
    let start = room
        .get_mut(skip..)
        .filter(|rest| rest.len() / size_of::<Block>() >= blocks)
        .ok_or(kf_result::BUFFER_TOO_SMALL)?;
    // SAFETY: aligned, long enough, and a block is numbers, which any bytes are.
    let memory = unsafe { slice::from_raw_parts_mut(start.as_mut_ptr().cast::<Block>(), blocks) };
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(passphrase, &cost.salt, out, memory).map_err(|_| kf_result::INVALID_INPUT)
}
