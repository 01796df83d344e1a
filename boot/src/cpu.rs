//! Per-CPU data, found through the GS base, and the tables each CPU needs:
//! segments, task state with its interrupt stacks.

use core::{
    arch::asm,
    cell::UnsafeCell,
    ptr,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
};

use x86_64::{
    VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, SS, Segment},
        tables::load_tss,
    },
    registers::model_specific::GsBase,
    structures::{
        gdt::{Descriptor, GlobalDescriptorTable},
        tss::TaskStateSegment,
    },
};

use crate::{
    memory::stack::{self, Stack},
    thread, trap,
};

/// The most CPUs that are used.
pub const MAX: usize = 8;

/// What one CPU keeps for itself.
#[repr(C)]
pub struct Cpu {
    /// Its own address: what `gs:0` holds.
    this: UnsafeCell<*const Cpu>,
    /// Its number, 0 for the one that booted.
    id: AtomicUsize,
    apic_id: AtomicU32,
    online: AtomicBool,
    /// A driver's interrupt handler runs here.
    pub(crate) in_handler: AtomicBool,
    /// What runs here.
    pub(crate) threads: thread::PerCpu,
    gdt: UnsafeCell<GlobalDescriptorTable>,
    tss: UnsafeCell<TaskStateSegment>,
}

// SAFETY: the cells are written by the CPU itself while it starts, with
// interrupts off; the rest is atomic or guarded by the scheduler's lock.
unsafe impl Sync for Cpu {}

impl Cpu {
    const fn new() -> Self {
        Self {
            this: UnsafeCell::new(ptr::null()),
            id: AtomicUsize::new(0),
            apic_id: AtomicU32::new(0),
            online: AtomicBool::new(false),
            in_handler: AtomicBool::new(false),
            threads: thread::PerCpu::new(),
            gdt: UnsafeCell::new(GlobalDescriptorTable::empty()),
            tss: UnsafeCell::new(TaskStateSegment::new()),
        }
    }

    /// Returns the CPU's number: 0 for the one that booted, then counting.
    pub fn id(&self) -> usize {
        self.id.load(Ordering::Relaxed)
    }

    /// Returns the number under which the interrupt controllers know it.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Lets others send it interrupts, to `apic_id`.
    pub(crate) fn set_online(&self, apic_id: u32) {
        self.apic_id.store(apic_id, Ordering::Relaxed);
        self.online.store(true, Ordering::Release);
    }

    /// Loads this CPU's own tables and makes it the current one.
    ///
    /// # Safety
    ///
    /// Called once on each CPU, by that CPU, with interrupts off. Each of
    /// `stacks` is the top of a stack of its own use, or they are all the same
    /// while nothing but a fatal exception can happen.
    unsafe fn load(&'static self, id: usize, stacks: [u64; trap::STACKS]) {
        self.id.store(id, Ordering::Relaxed);
        // SAFETY: the CPU's own cells, before anything can read them.
        let code = unsafe {
            *self.this.get() = self;
            self.set_stacks(stacks);
            let gdt = &mut *self.gdt.get();
            *gdt = GlobalDescriptorTable::empty();
            let code = gdt.append(Descriptor::kernel_code_segment());
            let data = gdt.append(Descriptor::kernel_data_segment());
            let task = gdt.append(Descriptor::tss_segment_unchecked(self.tss.get()));
            let gdt: &'static GlobalDescriptorTable = &*self.gdt.get();
            gdt.load();
            CS::set_reg(code);
            for set in [SS::set_reg, DS::set_reg, ES::set_reg] {
                set(data);
            }
            load_tss(task);
            code
        };
        GsBase::write(VirtAddr::from_ptr(self));
        trap::load(code.0);
    }

    /// # Safety
    ///
    /// As for [`load`](Self::load); no interrupt is being served here.
    unsafe fn set_stacks(&self, stacks: [u64; trap::STACKS]) {
        for (slot, top) in stacks.into_iter().enumerate() {
            // SAFETY: the task state is only read by the processor, on the next
            // interrupt, which is yet to come.
            unsafe { (*self.tss.get()).interrupt_stack_table[slot] = VirtAddr::new(top) };
        }
    }
}

static CPUS: [Cpu; MAX] = [const { Cpu::new() }; MAX];

/// The interrupt stack of the boot CPU until there is memory for real ones.
#[repr(align(16))]
struct EarlyStack(UnsafeCell<[u8; 16 << 10]>);

// SAFETY: only the boot CPU uses it, as a stack.
unsafe impl Sync for EarlyStack {}

static EARLY_STACK: EarlyStack = EarlyStack(UnsafeCell::new([0; 16 << 10]));

/// Sets the boot CPU up so far that an exception is reported instead of
/// resetting the machine.
///
/// # Safety
///
/// The first thing the kernel does, once.
pub unsafe fn init_boot() {
    let top = EARLY_STACK.0.get() as u64 + (16 << 10);
    // SAFETY: the caller's promise; before memory is up, all exceptions are fatal.
    unsafe { CPUS[0].load(0, [top; trap::STACKS]) };
}

/// Gives the boot CPU an interrupt stack for each purpose, each with a guard.
///
/// # Panics
///
/// If memory is too short for them.
pub fn init_stacks() {
    // SAFETY: interrupts are still off and this code is no exception handler.
    unsafe { CPUS[0].set_stacks(interrupt_stacks()) };
}

/// Sets up CPU `id` from its first Rust code on.
///
/// # Safety
///
/// Called once, on that CPU, with interrupts off.
pub(crate) unsafe fn init_secondary(id: usize) {
    // SAFETY: the caller's promise.
    unsafe { CPUS[id].load(id, interrupt_stacks()) };
}

fn interrupt_stacks() -> [u64; trap::STACKS] {
    core::array::from_fn(|_| {
        let stack = Stack::new().expect("memory for interrupt stacks");
        let top = stack.top();
        // The CPU uses it from now on, for good.
        core::mem::forget(stack);
        debug_assert!(stack::in_guard(top - 2 * stack::SIZE));
        top
    })
}

/// Returns the data of the CPU that runs this.
///
/// A thread may be moved to another CPU right after; who cares turns interrupts
/// off first.
pub fn current() -> &'static Cpu {
    let cpu: *const Cpu;
    // SAFETY: `load` made the GS base point at a `Cpu` that begins with its own
    // address; it is the first thing each CPU does.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) cpu, options(nostack, readonly, preserves_flags));
        &*cpu
    }
}

/// Returns the CPUs that run.
pub fn online() -> impl Iterator<Item = &'static Cpu> {
    CPUS.iter().filter(|cpu| cpu.online.load(Ordering::Acquire))
}

/// Returns CPU `id` if it runs.
pub fn get(id: usize) -> Option<&'static Cpu> {
    CPUS.get(id)
        .filter(|cpu| cpu.online.load(Ordering::Acquire))
}
