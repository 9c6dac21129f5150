//! Large pages of memory. Where a page of 4 KiB is touched first, the kernel takes longer than it takes to seal the rows on it.
#![allow(unsafe_code, reason = "advice to the kernel about memory")]

/// Makes room for `more` bytes in all that follow, and asks for pages of 2 MiB where there is room for several.
pub(super) fn reserve(data: &mut Vec<u8>, more: usize) {
    data.reserve_exact(more);
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 * 1024 * 1024;
        let room = data.spare_capacity_mut();
        let start = room.as_mut_ptr().align_offset(PAGE);
        let len = room.len().saturating_sub(start) / PAGE * PAGE;
        if len > 0 {
            // SAFETY: whole pages that are the vector's alone. The advice changes nothing in them, and it may fail.
            unsafe { libc::madvise(room[start..].as_mut_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
    }
}
