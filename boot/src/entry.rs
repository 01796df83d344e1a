//! The first instructions: from the PVH entry to Rust code.
//!
//! QEMU and every other PVH loader (Xen's `docs/misc/pvh.pandoc`) jump to
//! `pvh_start` in 32-bit protected mode with paging off and `ebx` at the start
//! info. Rust needs 64-bit mode, a stack, and SSE, which the precompiled `core`
//! uses. The tables made here map the first 4 GiB twice, at 0 and at
//! [`LINEAR`](crate::memory::LINEAR), with large pages and every permission;
//! [`memory::init`](crate::memory::init) replaces them by exact ones.

use core::arch::global_asm;

use crate::kernel::Program;

global_asm!(
    r#"
    # The ELF note in which loaders find the entry point: owner "Xen", type 18.
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long pvh_start

    .section .bss.boot, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pd: .skip 4 * 4096
    .globl boot_stack_guard
boot_stack_guard: .skip 4096
boot_stack: .skip 64 * 1024
boot_stack_end:

    .section .rodata.boot, "a"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff    # 0x08: 64-bit code
    .quad 0x00cf92000000ffff    # 0x10: data
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .quad boot_gdt

    .section .text.entry, "ax"
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    mov esp, offset boot_stack_end

    # Four page directories full of 2 MiB pages: present, writable, large.
    mov edi, offset boot_pd
    mov eax, 0x83
    mov ecx, 2048
2:  mov [edi], eax
    mov dword ptr [edi + 4], 0
    add eax, 0x200000
    add edi, 8
    loop 2b
    mov eax, offset boot_pd + 3
    mov edi, offset boot_pdpt
    mov ecx, 4
2:  mov [edi], eax
    add eax, 4096
    add edi, 8
    loop 2b
    mov eax, offset boot_pdpt + 3
    mov [boot_pml4], eax
    mov [boot_pml4 + 256 * 8], eax

    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, cr4
    or eax, 0x6a0               # PAE, PGE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080         # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010033         # PG, WP, NE, ET, MP, PE; EM and TS clear
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    push 8
    mov eax, offset pvh_long
    push eax
    retf

    .code64
pvh_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov edi, ebx
    # A zero return address ends every backtrace.
    push 0
    push 0
    call {start}
    ud2
"#,
    start = sym start,
);

/// Where each DWARF section's companion makes it loadable, see kernel.ld.
macro_rules! keep_loadable {
    ($($section:literal),* $(,)?) => {
        $(global_asm!(concat!(".section .keep", $section, ", \"a\"\n.byte 0"));)*
    };
}

keep_loadable!(
    ".debug_abbrev",
    ".debug_addr",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
);

// SAFETY: the binary's `kernel!` defines it, as a static of this type.
unsafe extern "Rust" {
    #[link_name = "virtio_fs_boot_program"]
    safe static PROGRAM: Program;
}

/// The first Rust code, on the boot stack and the boot page tables.
extern "C" fn start(info: u64) -> ! {
    // SAFETY: this is the only call, and the first thing that happens.
    unsafe { crate::kernel::boot(info, &PROGRAM) }
}
