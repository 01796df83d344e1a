//! The end of a kernel that went wrong: exceptions and panics. Prints what
//! happened, where, and how it got there, then leaves with
//! [`exit::CRASHED`].

#[cfg(panic = "abort")]
use core::panic::PanicInfo;
use core::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

use crate::{
    backtrace, clock, console, cpu, exit,
    memory::{heap, stack},
    trap::{Frame, PAGE_FAULT},
};

/// How far the report has come, so that a crash inside it does not repeat it.
static STAGE: AtomicU8 = AtomicU8::new(0);

macro_rules! out {
    () => { console::print_crash(format_args!("\n")) };
    ($($arg:tt)*) => { console::print_crash(format_args!("{}\n", format_args!($($arg)*))) };
}

fn begin() {
    x86_64::instructions::interrupts::disable();
    match STAGE.fetch_add(1, Ordering::SeqCst) {
        0 => heap::enter_emergency(),
        1 => out!("\n(crashed again while reporting)"),
        _ => exit::exit(exit::CRASHED),
    }
}

fn finish(registers: backtrace::Registers) -> ! {
    // The second report only says where.
    if STAGE.load(Ordering::SeqCst) == 1 {
        out!("backtrace:");
        let symbols = backtrace::Symbols::load();
        backtrace::walk(registers, |number, address| {
            console::print_crash(format_args!("{number:>4}: "));
            // The console never fails.
            let _ = symbols.write(address, &mut console::Crash);
            out!();
        });
    }
    exit::exit(exit::CRASHED)
}

/// Reports an exception and ends the machine.
pub(crate) fn exception(frame: &Frame) -> ! {
    begin();
    let name = NAMES
        .get(frame.vector as usize)
        .copied()
        .unwrap_or("unknown exception");
    let overflow = stack::in_guard(frame.cr2) && matches!(frame.vector, 8 | PAGE_FAULT);
    out!(
        "\nEXCEPTION on CPU {} after {:?}: {}{} (vector {}, error code {:#x})",
        cpu::current().id(),
        clock::now(),
        name,
        if overflow { ": STACK OVERFLOW" } else { "" },
        frame.vector,
        frame.error
    );
    if frame.vector == PAGE_FAULT {
        out!("  {}", Cause(frame));
    } else if frame.vector == 8 {
        out!(
            "  the processor could not deliver an exception; cr2 = {:#018x}",
            frame.cr2
        );
    }
    out!(
        "  rip {:#018x}  rsp {:#018x}  rbp {:#018x}  rflags {:#x}",
        frame.rip,
        frame.rsp,
        frame.rbp,
        frame.rflags
    );
    out!(
        "  rax {:#018x}  rbx {:#018x}  rcx {:#018x}  rdx {:#018x}",
        frame.rax,
        frame.rbx,
        frame.rcx,
        frame.rdx
    );
    out!(
        "  rsi {:#018x}  rdi {:#018x}  r8  {:#018x}  r9  {:#018x}",
        frame.rsi,
        frame.rdi,
        frame.r8,
        frame.r9
    );
    out!(
        "  r10 {:#018x}  r11 {:#018x}  r12 {:#018x}  r13 {:#018x}",
        frame.r10,
        frame.r11,
        frame.r12,
        frame.r13
    );
    out!(
        "  r14 {:#018x}  r15 {:#018x}  cr2 {:#018x}",
        frame.r14,
        frame.r15,
        frame.cr2
    );
    finish(backtrace::Registers::of(frame))
}

/// Reports a panic and ends the machine.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    let registers = backtrace::Registers::here();
    begin();
    out!(
        "\nPANIC on CPU {} after {:?}: {}",
        cpu::current().id(),
        clock::now(),
        info.message()
    );
    if let Some(location) = info.location() {
        out!("  at {location}");
    }
    finish(registers)
}

/// What a page fault's error code says (Intel SDM, volume 3, 4.7).
struct Cause<'a>(&'a Frame);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |bit: u64| self.0.error & 1 << bit != 0;
        let access = match (has(4), has(1)) {
            (true, _) => "instruction fetch from",
            (_, true) => "write to",
            _ => "read of",
        };
        let reason = match (has(3), has(0)) {
            (true, _) => "a reserved bit is set in the page tables",
            (_, true) => "the page forbids it",
            _ => "nothing is mapped there",
        };
        write!(f, "{access} {:#018x}: {reason}", self.0.cr2)?;
        if self.0.cr2 < 4096 {
            f.write_str(" (null pointer)")?;
        }
        Ok(())
    }
}

const NAMES: [&str; 32] = [
    "divide error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range exceeded",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor segment overrun",
    "invalid task state",
    "segment not present",
    "stack segment fault",
    "general protection fault",
    "page fault",
    "reserved exception",
    "x87 floating-point error",
    "alignment check",
    "machine check",
    "SIMD floating-point error",
    "virtualization exception",
    "control protection exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "reserved exception",
    "hypervisor injection exception",
    "VMM communication exception",
    "security exception",
    "reserved exception",
];

/// What the linker wants because the precompiled `core` refers to it. Nothing
/// unwinds here, so neither is ever called.
#[cfg(panic = "abort")]
mod unwinding {
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}

    #[unsafe(export_name = "_Unwind_Resume")]
    extern "C" fn resume() -> ! {
        crate::exit::exit(crate::exit::CRASHED)
    }
}
