//! Exceptions and interrupts, from the processor to Rust and back.
//!
//! Compiled code uses the 128 bytes below its stack pointer (the red zone), so
//! the processor must switch stacks on every interrupt. Each purpose has an
//! entry of the interrupt stack table (IST) and the processor resets the stack
//! to its top every time, so nothing may be kept there: an interrupt, and a page
//! fault that can be served, at once moves its frame to the interrupted thread's
//! own stack, below the red zone. From there on it is an ordinary call of that
//! thread, may be preempted, and another interrupt may use the IST again. Fatal
//! exceptions stay on the IST, because the thread's stack may be the problem.
//!
//! Handlers are Rust code and use SSE registers, which the interrupted code may
//! be using: FXSAVE around each.

use core::{
    arch::global_asm,
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

use x86_64::{VirtAddr, structures::DescriptorTablePointer};

use crate::{crash, interrupts, memory::MAPPINGS, mmap::copy, thread};

/// The number of interrupt stacks of a CPU.
pub const STACKS: usize = 5;

const DOUBLE_FAULT: u64 = 8;
pub(crate) const PAGE_FAULT: u64 = 14;

/// The registers of interrupted code, as `trap_common` lays them out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named as the processor's manual names them")]
pub struct Frame {
    _pad: u64,
    pub cr2: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

// The assembly below counts on these.
const _: () = assert!(size_of::<Frame>() == 192);
const _: () = assert!(core::mem::offset_of!(Frame, vector) == 136);
const _: () = assert!(core::mem::offset_of!(Frame, rsp) == 176);

global_asm!(
    r#"
    .section .text.traps, "ax"
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    # Exceptions 8, 10 to 14, 17, 21, 29 and 30 push an error code themselves.
    .if (((0x60227d00 >> (vector & 31)) & 1) == 0) || (vector > 31)
    push 0
    .endif
    .byte 0x68                  # push imm32
    .long vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rax, cr2
    push rax
    push rax
    cld
    cmp qword ptr [rsp + 136], 32
    jae 2f

    # An exception: look at it here.
    mov rbx, rsp
    sub rsp, 512
    fxsave64 [rsp]
    mov rdi, rbx
    call {exception}
    fxrstor64 [rsp]
    mov rsp, rbx
    test al, al
    jz 3f

    # Move to the interrupted stack, below its red zone.
2:  mov rdi, [rsp + 176]
    sub rdi, 128 + 192
    and rdi, -16
    mov rbx, rdi
    mov rsi, rsp
    mov ecx, 24
    rep movsq
    mov rsp, rbx
    sub rsp, 512
    fxsave64 [rsp]
    mov rdi, rbx
    call {interrupt}
    fxrstor64 [rsp]
    mov rsp, rbx

3:  add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq
"#,
    exception = sym exception,
    interrupt = sym interrupt,
);

unsafe extern "C" {
    static trap_stubs: u8;
}

/// A gate of the interrupt descriptor table (Intel SDM, volume 3, 6.14.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

#[repr(align(16))]
struct Table(UnsafeCell<[Gate; 256]>);

// SAFETY: the boot CPU fills it before any other runs; then it is only read,
// by the processors.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([Gate { low: 0, high: 0 }; 256]));

/// Loads the interrupt descriptor table on this CPU, filled first by the boot CPU.
pub(crate) fn load(code: u16) {
    for vector in 0..256u64 {
        let stack = match vector {
            DOUBLE_FAULT => 1,
            2 => 2,
            18 => 3,
            PAGE_FAULT => 4,
            _ => 5,
        };
        let entry = (&raw const trap_stubs) as u64 + vector * 16;
        let gate = Gate {
            // Present, interrupt gate: interrupts stay off on entry.
            low: entry & 0xffff
                | u64::from(code) << 16
                | stack << 32
                | 0x8e << 40
                | (entry >> 16 & 0xffff) << 48,
            high: entry >> 32,
        };
        // SAFETY: every CPU writes the same values.
        unsafe { (*TABLE.0.get())[vector as usize] = gate };
    }
    let pointer = DescriptorTablePointer {
        base: VirtAddr::from_ptr(TABLE.0.get()),
        limit: (size_of::<[Gate; 256]>() - 1) as u16,
    };
    // SAFETY: the table is static and complete.
    unsafe { x86_64::instructions::tables::lidt(&pointer) };
}

/// Serves page faults in [`MAPPINGS`]: address and error code; says whether the
/// access may be tried again.
pub type PageFaultHandler = fn(addr: u64, error: u64) -> bool;

static PAGE_FAULT_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Lets `handler` serve page faults in [`MAPPINGS`], in the thread that ran into
/// them and with interrupts on, so that it may block; returns the one before. A
/// fault with interrupts off is a crash; one that it refuses is, too, unless the
/// code that ran into it has a landing for that (see [`crate::mmap::copy`]).
pub fn replace_page_fault_handler(handler: Option<PageFaultHandler>) -> Option<PageFaultHandler> {
    let new = handler.map_or(0, |handler| handler as usize);
    decode(PAGE_FAULT_HANDLER.swap(new, Ordering::AcqRel))
}

fn page_fault_handler() -> Option<PageFaultHandler> {
    decode(PAGE_FAULT_HANDLER.load(Ordering::Acquire))
}

fn decode(handler: usize) -> Option<PageFaultHandler> {
    // SAFETY: only `replace_page_fault_handler` stores there, from this type.
    (handler != 0).then(|| unsafe { core::mem::transmute::<usize, PageFaultHandler>(handler) })
}

/// Looks at an exception on its interrupt stack. True moves it to the thread's.
extern "C" fn exception(frame: &Frame) -> bool {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let servable = frame.vector == PAGE_FAULT
        && MAPPINGS.contains(&frame.cr2)
        && frame.rflags & INTERRUPTS_ON != 0
        && page_fault_handler().is_some();
    if !servable {
        crash::exception(frame);
    }
    true
}

/// Serves an interrupt, or a page fault that can be, on the thread's own stack.
extern "C" fn interrupt(frame: &mut Frame) {
    if frame.vector == PAGE_FAULT {
        x86_64::instructions::interrupts::enable();
        let served = page_fault_handler().is_some_and(|serve| serve(frame.cr2, frame.error));
        x86_64::instructions::interrupts::disable();
        if !served {
            match copy::landing(frame.rip) {
                Some(landing) => frame.rip = landing,
                None => crash::exception(frame),
            }
        }
        return;
    }
    interrupts::dispatch(frame.vector as u8);
    thread::preempt();
}
