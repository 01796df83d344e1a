//! The parts of the kernel's own image, from the symbols that kernel.ld defines.

use core::ops::Range;

/// The value of a symbol of kernel.ld: an address, or for `_len` a number.
macro_rules! value {
    ($name:ident) => {{
        // Nothing is read through it.
        unsafe extern "C" {
            static $name: u8;
        }
        (&raw const $name) as u64
    }};
}

/// Everything that was loaded, DWARF sections included.
pub fn whole() -> Range<u64> {
    value!(image_start)..value!(image_end)
}

/// Code.
pub fn text() -> Range<u64> {
    value!(image_start)..value!(text_end)
}

/// Constants and unwind tables.
pub fn rodata() -> Range<u64> {
    value!(text_end)..value!(rodata_end)
}

/// Variables.
pub fn data() -> Range<u64> {
    value!(rodata_end)..value!(data_end)
}

/// The DWARF sections, mapped like constants.
pub fn dwarf() -> Range<u64> {
    value!(data_end)..value!(image_end)
}

/// The page below the boot stack, left unmapped.
pub fn boot_stack_guard() -> u64 {
    value!(boot_stack_guard)
}

/// The unwind tables and their address.
pub fn eh_frame() -> &'static [u8] {
    let start = value!(eh_frame_start);
    // SAFETY: kernel.ld puts both symbols around one constant section.
    unsafe { bytes(start, value!(eh_frame_end) - start) }
}

/// Returns a DWARF section by its name in the ELF file; empty if it was not kept.
pub fn dwarf_section(name: &str) -> &'static [u8] {
    let (start, len) = match name {
        ".debug_abbrev" => (value!(dwarf_abbrev), value!(dwarf_abbrev_len)),
        ".debug_addr" => (value!(dwarf_addr), value!(dwarf_addr_len)),
        ".debug_info" => (value!(dwarf_info), value!(dwarf_info_len)),
        ".debug_line" => (value!(dwarf_line), value!(dwarf_line_len)),
        ".debug_line_str" => (value!(dwarf_line_str), value!(dwarf_line_str_len)),
        ".debug_ranges" => (value!(dwarf_ranges), value!(dwarf_ranges_len)),
        ".debug_rnglists" => (value!(dwarf_rnglists), value!(dwarf_rnglists_len)),
        ".debug_str" => (value!(dwarf_str), value!(dwarf_str_len)),
        ".debug_str_offsets" => (value!(dwarf_str_offsets), value!(dwarf_str_offsets_len)),
        _ => return &[],
    };
    // The last byte is the companion's that made the section loadable.
    let len = len.saturating_sub(1);
    // SAFETY: kernel.ld computes both from the section, which is loaded there
    // and never written.
    unsafe { bytes(start, len) }
}

/// # Safety
///
/// The range is a part of the image that nobody writes.
unsafe fn bytes(start: u64, len: u64) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(start as *const u8, len as usize) }
}
