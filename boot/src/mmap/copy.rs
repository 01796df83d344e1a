//! Copies from and to mapped memory that survive a page fault which cannot be
//! served: the end of the file, a page that the server does not map.
//!
//! Any load or store to a mapping may fault, and a fault that is refused ends the
//! kernel: ordinary code cannot go on without its data. The two instructions here
//! can: they have a landing, where the trap handler sends them, and say how many
//! bytes are left.

use core::{arch::global_asm, ptr::NonNull};

global_asm!(
    r#"
    .section .text.mmap_copy, "ax"
    .balign 16
    .globl mmap_copy_words
    .globl mmap_copy_bytes
    .globl mmap_copy_words_landing
    .globl mmap_copy_bytes_landing
    .globl mmap_copy
mmap_copy:
    mov rcx, rdx
    shr rcx, 3
mmap_copy_words:
    rep movsq
    mov ecx, edx
    and ecx, 7
mmap_copy_bytes:
    rep movsb
    xor eax, eax
    ret
    # Whole words that are left, and the bytes behind them.
mmap_copy_words_landing:
    and edx, 7
    lea rax, [rdx + rcx * 8]
    ret
mmap_copy_bytes_landing:
    mov rax, rcx
    ret
"#
);

unsafe extern "C" {
    static mmap_copy_words: u8;
    static mmap_copy_bytes: u8;
    static mmap_copy_words_landing: u8;
    static mmap_copy_bytes_landing: u8;
    /// Returns how many bytes were not copied.
    fn mmap_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
}

/// Returns where code that may fault at `rip` goes on when the fault is refused.
pub(crate) fn landing(rip: u64) -> Option<u64> {
    let pairs = [
        (
            &raw const mmap_copy_words,
            &raw const mmap_copy_words_landing,
        ),
        (
            &raw const mmap_copy_bytes,
            &raw const mmap_copy_bytes_landing,
        ),
    ];
    let (_, landing) = pairs.into_iter().find(|(at, _)| *at as u64 == rip)?;
    Some(landing as u64)
}

/// Copies out of mapped memory. Returns how many bytes were copied; fewer than
/// `to` holds if a fault was refused.
///
/// # Safety
///
/// `from` and the bytes behind it belong to a mapping.
pub(super) unsafe fn load(to: &mut [u8], from: NonNull<u8>) -> usize {
    // SAFETY: `to` is ours; a fault at `from` is served or lands.
    to.len() - unsafe { mmap_copy(to.as_mut_ptr(), from.as_ptr(), to.len()) }
}

/// Copies into mapped memory. Returns how many bytes were copied; fewer than
/// `from` holds if a fault was refused.
///
/// # Safety
///
/// `to` and the bytes behind it belong to a mapping.
pub(super) unsafe fn store(to: NonNull<u8>, from: &[u8]) -> usize {
    // SAFETY: `from` is ours; a fault at `to` is served or lands.
    from.len() - unsafe { mmap_copy(to.as_ptr(), from.as_ptr(), from.len()) }
}
