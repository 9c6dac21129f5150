//! Vector registers, where work with keys leaves parts of them.

/// Empties the vector registers of an x86-64 processor. The system's `memcpy` uses some that compiled code never does, so that a part of the last key
/// that was moved stays there; and the dynamic linker writes all of them to the stack whenever it looks up a function that was not called before.
///
/// Elsewhere nothing is done. Neither is it on Windows, where a call must keep half of the registers: the compiler would put what is in them on the
/// stack, and back.
#[inline]
pub(crate) fn erase() {
    #[cfg(all(target_arch = "x86_64", not(any(miri, windows))))]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has it.
            unsafe { x86::avx512() }
        } else if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: the processor has it.
            unsafe { x86::avx() }
        } else {
            x86::sse();
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(any(miri, windows))))]
mod x86 {
    use std::arch::asm;

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512() {
        // SAFETY: no memory, no stack, no flag; the registers are those that a call need not keep.
        unsafe {
            asm!(
                "vzeroall",
                "vpxord zmm16, zmm16, zmm16",
                "vpxord zmm17, zmm17, zmm17",
                "vpxord zmm18, zmm18, zmm18",
                "vpxord zmm19, zmm19, zmm19",
                "vpxord zmm20, zmm20, zmm20",
                "vpxord zmm21, zmm21, zmm21",
                "vpxord zmm22, zmm22, zmm22",
                "vpxord zmm23, zmm23, zmm23",
                "vpxord zmm24, zmm24, zmm24",
                "vpxord zmm25, zmm25, zmm25",
                "vpxord zmm26, zmm26, zmm26",
                "vpxord zmm27, zmm27, zmm27",
                "vpxord zmm28, zmm28, zmm28",
                "vpxord zmm29, zmm29, zmm29",
                "vpxord zmm30, zmm30, zmm30",
                "vpxord zmm31, zmm31, zmm31",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    #[target_feature(enable = "avx")]
    pub(super) fn avx() {
        // SAFETY: as above.
        unsafe { asm!("vzeroall", clobber_abi("C"), options(nomem, nostack, preserves_flags)) }
    }

    pub(super) fn sse() {
        // SAFETY: as above.
        unsafe {
            asm!(
                "xorps xmm0, xmm0",
                "xorps xmm1, xmm1",
                "xorps xmm2, xmm2",
                "xorps xmm3, xmm3",
                "xorps xmm4, xmm4",
                "xorps xmm5, xmm5",
                "xorps xmm6, xmm6",
                "xorps xmm7, xmm7",
                "xorps xmm8, xmm8",
                "xorps xmm9, xmm9",
                "xorps xmm10, xmm10",
                "xorps xmm11, xmm11",
                "xorps xmm12, xmm12",
                "xorps xmm13, xmm13",
                "xorps xmm14, xmm14",
                "xorps xmm15, xmm15",
                clobber_abi("C"),
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

#[cfg(all(test, target_arch = "x86_64", not(any(miri, windows))))]
mod tests {
    use std::arch::asm;

    const PART: u64 = 0x5EC2_E75E_C2E7_5EC2;

    #[test]
    fn what_was_in_a_register_is_gone() {
        let mut low = [PART; 2];
        // SAFETY: 16 bytes are read and written at `low`, whose address a call keeps in r12; what the call changes is said.
        unsafe {
            asm!(
                "movups xmm13, [r12]",
                "call {erase}",
                "movups [r12], xmm13",
                in("r12") low.as_mut_ptr(),
                erase = sym super::erase,
                clobber_abi("C")
            );
        }
        assert_eq!(low, [0; 2]);
        if std::arch::is_x86_feature_detected!("avx512f") {
            let mut high = [PART; 8];
            // SAFETY: likewise, 64 bytes.
            unsafe {
                asm!(
                    "vmovdqu64 zmm20, [r12]",
                    "call {erase}",
                    "vmovdqu64 [r12], zmm20",
                    in("r12") high.as_mut_ptr(),
                    erase = sym super::erase,
                    clobber_abi("C")
                );
            }
            assert_eq!(high, [0; 8]);
        }
    }
}
