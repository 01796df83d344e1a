//! Starting the other CPUs (Intel SDM, volume 3, 9.4).
//!
//! A CPU wakes up in 16-bit mode at a page below 1 MiB that the start-up message
//! names. The code copied there switches to 64-bit mode on the kernel's page
//! tables and calls `secondary`. While CPUs start, that page is mapped at its
//! physical address for execution; it is written through the linear map.

use core::{
    arch::global_asm,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use x86_64::registers::control::Cr3;

use crate::{
    apic, clock, cpu, interrupts,
    memory::{PAGE, linear, paging, stack::Stack},
    thread,
};

/// Where the code for starting CPUs is copied; no allocator hands out memory
/// below 1 MiB, and firmware's own data lies elsewhere.
const START: u64 = 0x8000;

global_asm!(
    r#"
    .section .rodata.smp, "a"
    .balign 8
    .globl smp_code
smp_code:
    .code16
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16    # lgdt, 32-bit base, from ds:
    .word smp_gdt_pointer - smp_code
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                # far jump
    .long {start} + smp_32 - smp_code
    .word 0x08
    .code32
smp_32:
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov eax, cr4
    or eax, 0x620                   # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    .byte 0xa1                      # mov eax, [address]
    .long {start} + smp_arguments - smp_code
    mov cr3, eax
    mov ecx, 0xc0000080             # EFER: LME, NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010033             # PG, WP, NE, ET, MP, PE; caches on
    mov cr0, eax
    .byte 0xea
    .long {start} + smp_64 - smp_code
    .word 0x18
    .code64
smp_64:
    mov rsp, [rip + smp_arguments + 8]
    mov rdi, [rip + smp_arguments + 16]
    mov rax, [rip + smp_arguments + 24]
    xor ebp, ebp
    push rbp
    jmp rax
    .balign 8
smp_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff        # 0x08: 32-bit code
    .quad 0x00cf92000000ffff        # 0x10: data
    .quad 0x00af9a000000ffff        # 0x18: 64-bit code
smp_gdt_pointer:
    .word . - smp_gdt - 1
    .long {start} + smp_gdt - smp_code
    .balign 8
    .globl smp_arguments
smp_arguments:
    .quad 0, 0, 0, 0
    .globl smp_end
smp_end:
"#,
    start = const START,
);

unsafe extern "C" {
    static smp_code: u8;
    static smp_arguments: u8;
    static smp_end: u8;
}

/// How many CPUs run.
static RUNNING: AtomicUsize = AtomicUsize::new(1);

/// Starts CPUs until `most` run, out of those with the local APIC ids in `ids`,
/// and returns how many run. One that does not answer is left out. Blocks for
/// about 10 ms each.
pub fn start(ids: &[u32], most: usize) -> usize {
    let me = cpu::current().apic_id();
    let others = ids.iter().copied().filter(|&id| id != me);
    let code = (&raw const smp_code) as u64;
    let len = (&raw const smp_end) as u64 - code;
    debug_assert!(len <= PAGE);
    // SAFETY: the page is below 1 MiB, so nobody else's (see START), and the
    // linear map covers it.
    unsafe { linear(START).copy_from_nonoverlapping(code as *const u8, len as usize) };
    if let Err(error) = paging::map_code(START) {
        log::error!("other CPUs cannot be started: {error}");
        return 1;
    }
    for apic_id in others {
        let id = RUNNING.load(Ordering::Acquire);
        if id >= most.min(cpu::MAX) {
            break;
        }
        let Some(stack) = Stack::new() else {
            break;
        };
        let arguments = [
            Cr3::read().0.start_address().as_u64(),
            stack.top(),
            id as u64,
            secondary as *const () as u64,
        ];
        // The CPU keeps it, as the stack of its idle loop.
        core::mem::forget(stack);
        let at = (&raw const smp_arguments) as u64 - code;
        // SAFETY: as above; no CPU is starting at this moment.
        unsafe {
            linear(START + at)
                .cast::<[u64; 4]>()
                .write_volatile(arguments)
        };
        if !wake(apic_id, id) {
            log::error!("CPU with APIC id {apic_id} does not start");
            // It may yet come and read the page, so no other can be started.
            break;
        }
    }
    // SAFETY: every CPU that started has left the page.
    unsafe { paging::unmap(START) };
    paging::shoot_down();
    RUNNING.load(Ordering::Acquire)
}

/// Sends the messages that start a CPU; says whether it came.
fn wake(apic_id: u32, id: usize) -> bool {
    const INIT: u32 = 0x4500;
    const STARTUP: u32 = 0x4600;
    let came = |within: Duration| {
        let end = clock::now() + within;
        while clock::now() < end {
            if RUNNING.load(Ordering::Acquire) > id {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    };
    apic::command(apic_id, INIT);
    thread::sleep(Duration::from_millis(10));
    apic::command(apic_id, STARTUP | (START / PAGE) as u32);
    if came(Duration::from_millis(50)) {
        return true;
    }
    apic::command(apic_id, STARTUP | (START / PAGE) as u32);
    came(Duration::from_secs(2))
}

/// The first Rust code of another CPU, on the stack of its idle loop.
extern "C" fn secondary(id: usize) -> ! {
    // SAFETY: this CPU's first call, interrupts are off.
    unsafe { cpu::init_secondary(id) };
    thread::init_cpu();
    interrupts::init_cpu();
    RUNNING.fetch_add(1, Ordering::AcqRel);
    thread::idle()
}
