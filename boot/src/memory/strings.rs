//! The memory functions that compiled Rust calls: `memcpy` and its kin.
//!
//! A host program gets them from the C library; this kernel has none. Measured
//! under QEMU's TCG, copying 4 KiB: `rep movsb` 0.6 GB/s, `rep movsq` 4 GB/s,
//! 16-byte SSE moves 2.2 GB/s, 8-byte moves 6.5 GB/s. Where source and target
//! share an entry of TCG's software TLB (1 MiB apart, for one), every change
//! between them is slow, and what counts is how much is loaded before anything
//! is stored: `rep movsb` 20 MB/s, `rep movsq` 170 MB/s, 64 bytes a turn nearly
//! 1 GB/s. So a turn is eight 8-byte loads and then as many stores, which
//! hardware also runs near the speed of memory. Ends are covered by a move that
//! overlaps what is done already instead of by a loop over bytes; filling is
//! best with 16-byte stores. The self-test `memory: bandwidth` prints figures.
//!
//! None of them moves the stack pointer, so a backtrace can pass through; four
//! registers are kept in the red zone.
//!
//! They are assembly because a compiler may turn any loop that copies into a
//! call of `memcpy`, which here would be itself. Under the host's test harness
//! they keep out of the C library's way: no symbol is exported.

use core::{arch::naked_asm, ffi::c_int};

/// Copies `n` bytes that do not overlap and returns `dst`.
///
/// # Safety
///
/// `src` is readable and `dst` writable for `n` bytes; they do not overlap.
#[cfg_attr(panic = "abort", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!("jmp {}", sym memmove)
}

/// Copies `n` bytes, as if through a buffer in between, and returns `dst`.
///
/// Every path loads what it is going to overwrite before it stores: the small
/// ones load everything first, the loops load the end they run towards first.
///
/// # Safety
///
/// `src` is readable and `dst` writable for `n` bytes.
#[cfg_attr(panic = "abort", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 20f",
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 10f",
        // Upwards: the last 16 bytes are loaded now and stored last.
        "movups xmm4, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 16]",
        "sub rdx, 64",
        "jbe 3f",
        "mov [rsp - 8], rbx",
        "mov [rsp - 16], rbp",
        "mov [rsp - 24], r12",
        "mov [rsp - 32], r13",
        "2:",
        "mov rcx, [rsi]",
        "mov rbx, [rsi + 8]",
        "mov rbp, [rsi + 16]",
        "mov r9, [rsi + 24]",
        "mov r10, [rsi + 32]",
        "mov r11, [rsi + 40]",
        "mov r12, [rsi + 48]",
        "mov r13, [rsi + 56]",
        "mov [rdi], rcx",
        "mov [rdi + 8], rbx",
        "mov [rdi + 16], rbp",
        "mov [rdi + 24], r9",
        "mov [rdi + 32], r10",
        "mov [rdi + 40], r11",
        "mov [rdi + 48], r12",
        "mov [rdi + 56], r13",
        "add rsi, 64",
        "add rdi, 64",
        "sub rdx, 64",
        "ja 2b",
        "mov rbx, [rsp - 8]",
        "mov rbp, [rsp - 16]",
        "mov r12, [rsp - 24]",
        "mov r13, [rsp - 32]",
        "3:",
        "add rdx, 48",
        "jle 5f",
        "4:",
        "movups xmm0, [rsi]",
        "movups [rdi], xmm0",
        "add rsi, 16",
        "add rdi, 16",
        "sub rdx, 16",
        "jg 4b",
        "5:",
        "movups [r8], xmm4",
        "ret",
        // Downwards: the first 16 bytes are loaded now and stored last.
        "10:",
        "movups xmm4, [rsi]",
        "sub rdx, 64",
        "jbe 13f",
        "mov [rsp - 8], rbx",
        "mov [rsp - 16], rbp",
        "mov [rsp - 24], r12",
        "mov [rsp - 32], r13",
        "12:",
        "mov rcx, [rsi + rdx]",
        "mov rbx, [rsi + rdx + 8]",
        "mov rbp, [rsi + rdx + 16]",
        "mov r9, [rsi + rdx + 24]",
        "mov r10, [rsi + rdx + 32]",
        "mov r11, [rsi + rdx + 40]",
        "mov r12, [rsi + rdx + 48]",
        "mov r13, [rsi + rdx + 56]",
        "mov [rdi + rdx], rcx",
        "mov [rdi + rdx + 8], rbx",
        "mov [rdi + rdx + 16], rbp",
        "mov [rdi + rdx + 24], r9",
        "mov [rdi + rdx + 32], r10",
        "mov [rdi + rdx + 40], r11",
        "mov [rdi + rdx + 48], r12",
        "mov [rdi + rdx + 56], r13",
        "sub rdx, 64",
        "ja 12b",
        "mov rbx, [rsp - 8]",
        "mov rbp, [rsp - 16]",
        "mov r12, [rsp - 24]",
        "mov r13, [rsp - 32]",
        "13:",
        "add rdx, 48",
        "jle 15f",
        "14:",
        "movups xmm0, [rsi + rdx]",
        "movups [rdi + rdx], xmm0",
        "sub rdx, 16",
        "jg 14b",
        "15:",
        "movups [rax], xmm4",
        "ret",
        // Fewer than 16: two moves that may overlap each other.
        "20:",
        "cmp edx, 8",
        "jae 21f",
        "cmp edx, 4",
        "jae 22f",
        "cmp edx, 2",
        "jae 23f",
        "test edx, edx",
        "jz 24f",
        "movzx ecx, byte ptr [rsi]",
        "mov [rdi], cl",
        "24: ret",
        "21:",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "22:",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "23:",
        "movzx ecx, word ptr [rsi]",
        "movzx r8d, word ptr [rsi + rdx - 2]",
        "mov [rdi], cx",
        "mov [rdi + rdx - 2], r8w",
        "ret",
    )
}

/// Sets `n` bytes to `byte` and returns `dst`.
///
/// # Safety
///
/// `dst` is writable for `n` bytes.
#[cfg_attr(panic = "abort", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memset(dst: *mut u8, byte: c_int, n: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "movzx esi, sil",
        "mov rcx, 0x0101010101010101",
        "imul rcx, rsi",
        "cmp rdx, 16",
        "jb 20f",
        "movq xmm0, rcx",
        "punpcklqdq xmm0, xmm0",
        "lea r8, [rdi + rdx - 16]",
        "sub rdx, 64",
        "jbe 3f",
        "2:",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm0",
        "movups [rdi + 32], xmm0",
        "movups [rdi + 48], xmm0",
        "add rdi, 64",
        "sub rdx, 64",
        "ja 2b",
        "3:",
        "add rdx, 48",
        "jle 5f",
        "4:",
        "movups [rdi], xmm0",
        "add rdi, 16",
        "sub rdx, 16",
        "jg 4b",
        "5:",
        "movups [r8], xmm0",
        "ret",
        "20:",
        "cmp edx, 8",
        "jae 21f",
        "cmp edx, 4",
        "jae 22f",
        "cmp edx, 2",
        "jae 23f",
        "test edx, edx",
        "jz 24f",
        "mov [rdi], cl",
        "24: ret",
        "21:",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], rcx",
        "ret",
        "22:",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], ecx",
        "ret",
        "23:",
        "mov [rdi], cx",
        "mov [rdi + rdx - 2], cx",
        "ret",
    )
}

/// Compares `n` bytes: negative, 0 or positive as the first differing byte of
/// `a` is smaller, absent or greater.
///
/// # Safety
///
/// `a` and `b` are readable for `n` bytes.
#[cfg_attr(panic = "abort", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> c_int {
    naked_asm!(
        "sub rdx, 16",
        "jb 3f",
        "2:",
        "movups xmm0, [rdi]",
        "movups xmm1, [rsi]",
        "pcmpeqb xmm0, xmm1",
        "pmovmskb ecx, xmm0",
        "xor ecx, 0xffff",
        "jnz 6f",
        "add rdi, 16",
        "add rsi, 16",
        "sub rdx, 16",
        "jae 2b",
        "3:",
        "add rdx, 16",
        "jz 5f",
        "4:",
        "movzx eax, byte ptr [rdi]",
        "movzx ecx, byte ptr [rsi]",
        "sub eax, ecx",
        "jnz 7f",
        "inc rdi",
        "inc rsi",
        "dec rdx",
        "jnz 4b",
        "5: xor eax, eax",
        "7: ret",
        "6:",
        "bsf ecx, ecx",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx ecx, byte ptr [rsi + rcx]",
        "sub eax, ecx",
        "ret",
    )
}

/// Says whether `n` bytes differ: 0 if they do not.
///
/// # Safety
///
/// As for [`memcmp`].
#[cfg_attr(panic = "abort", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> c_int {
    naked_asm!("jmp {}", sym memcmp)
}

/// Counts the bytes before the first NUL.
///
/// # Safety
///
/// `s` is readable up to and with a NUL byte.
#[cfg_attr(panic = "abort", unsafe(no_mangle))]
#[unsafe(naked)]
pub unsafe extern "C" fn strlen(s: *const u8) -> usize {
    naked_asm!(
        "mov rax, rdi",
        "2: cmp byte ptr [rax], 0",
        "je 3f",
        "inc rax",
        "jmp 2b",
        "3: sub rax, rdi",
        "ret",
    )
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    /// Bytes around what a call may touch.
    const MARGIN: usize = 80;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 37 + i / 251) as u8).collect()
    }

    #[test]
    fn memmove_equals_copy_within_for_every_small_length_and_overlap() {
        for len in 0..200usize {
            for shift in [
                -129isize, -65, -17, -16, -15, -3, -1, 0, 1, 3, 15, 16, 17, 65, 129,
            ] {
                let mut ours = pattern(len + 2 * 2 * MARGIN);
                let mut theirs = ours.clone();
                let from = 2 * MARGIN;
                let to = from.saturating_add_signed(shift);
                theirs.copy_within(from..from + len, to);
                // SAFETY: both ranges lie inside `ours`, which has room for
                // the largest length and shift.
                unsafe {
                    let base = ours.as_mut_ptr();
                    let out = super::memmove(base.add(to), base.add(from), len);
                    assert_eq!(out, base.add(to));
                }
                assert_eq!(ours, theirs, "length {len}, shift {shift}");
            }
        }
    }

    #[test]
    fn memset_touches_exactly_its_range() {
        for len in 0..200 {
            let mut ours = pattern(len + 2 * MARGIN);
            let mut theirs = ours.clone();
            theirs[MARGIN..MARGIN + len].fill(0xa5);
            // SAFETY: the range lies inside `ours`.
            unsafe { super::memset(ours.as_mut_ptr().add(MARGIN), 0x1a5, len) };
            assert_eq!(ours, theirs, "length {len}");
        }
    }

    #[test]
    fn memcmp_orders_by_the_first_difference() {
        for len in 0..100usize {
            let a = pattern(len);
            let same = a.clone();
            // SAFETY: both are `len` bytes long.
            let order = unsafe { super::memcmp(a.as_ptr(), same.as_ptr(), len) };
            assert_eq!(order, 0);
            for at in 0..len {
                let mut b = a.clone();
                b[at] = b[at].wrapping_add(100);
                if at + 1 < len {
                    b[at + 1] = b[at + 1].wrapping_sub(1);
                }
                // SAFETY: both are `len` bytes long.
                let order = unsafe { super::memcmp(a.as_ptr(), b.as_ptr(), len) };
                assert_eq!(order.signum(), a.cmp(&b) as i32, "length {len}, at {at}");
            }
        }
    }

    #[test]
    fn strlen_stops_at_the_nul() {
        for len in 0..40 {
            let mut s = vec![b'x'; len];
            s.push(0);
            // SAFETY: `s` ends in a NUL.
            assert_eq!(unsafe { super::strlen(s.as_ptr()) }, len);
        }
    }
}
