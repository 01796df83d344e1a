//! Interrupt controllers: the local APIC of each CPU, by memory (xAPIC) or by
//! model-specific registers (x2APIC), the I/O APIC, and the old PICs, which are
//! moved out of the way. Intel SDM, volume 3, chapter 11; 82093AA data sheet.

use core::{
    arch::x86_64::__cpuid,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use x86_64::{instructions::port::Port, registers::model_specific::Msr};

use crate::{
    acpi::IoApic,
    clock,
    memory::{CacheMode, map_mmio},
    sync::IrqMutex,
};

const APIC_BASE: u32 = 0x1b;
const X2APIC: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;

/// Registers, by their offset divided by 16: the x2APIC's numbers.
const ID: u32 = 0x02;
const PRIORITY: u32 = 0x08;
const EOI: u32 = 0x0b;
const SPURIOUS: u32 = 0x0f;
const COMMAND: u32 = 0x30;
const COMMAND_HIGH: u32 = 0x31;
const TIMER: u32 = 0x32;
const INITIAL_COUNT: u32 = 0x38;
const CURRENT_COUNT: u32 = 0x39;
const DIVIDE: u32 = 0x3e;

/// Where the registers are mapped; 0 selects the x2APIC.
static REGISTERS: AtomicU64 = AtomicU64::new(0);
/// Timer counts per second.
static TIMER_RATE: AtomicU64 = AtomicU64::new(0);

fn read(register: u32) -> u32 {
    match REGISTERS.load(Ordering::Relaxed) {
        // SAFETY: a register of the x2APIC, which `init` switched on.
        0 => unsafe { Msr::new(0x800 + register).read() as u32 },
        // SAFETY: `init` mapped the page of registers.
        base => unsafe { ((base + u64::from(register) * 16) as *const u32).read_volatile() },
    }
}

fn write(register: u32, value: u32) {
    match REGISTERS.load(Ordering::Relaxed) {
        // SAFETY: as in `read`; no register here makes memory unsafe by itself.
        0 => unsafe { Msr::new(0x800 + register).write(value.into()) },
        // SAFETY: as in `read`.
        base => unsafe { ((base + u64::from(register) * 16) as *mut u32).write_volatile(value) },
    }
}

/// Finds the local APICs, at physical address `addr`, and measures their timer.
/// On the boot CPU, once; it still needs [`init_cpu`].
pub(crate) fn init(addr: u64) {
    if __cpuid(1).ecx & 1 << 21 == 0 {
        let base = map_mmio(addr, 4096, CacheMode::Uncached).expect("room for the APIC");
        REGISTERS.store(base as u64, Ordering::Relaxed);
    }
}

/// Switches this CPU's local APIC on and returns its id.
pub(crate) fn init_cpu(spurious: u8) -> u32 {
    let mut base = Msr::new(APIC_BASE);
    let x2 = REGISTERS.load(Ordering::Relaxed) == 0;
    // SAFETY: sets the enable bits and leaves the address as it is.
    unsafe {
        let value = base.read() | ENABLE;
        base.write(value);
        if x2 {
            base.write(value | X2APIC);
        }
    }
    write(PRIORITY, 0);
    write(SPURIOUS, 0x100 | u32::from(spurious));
    if x2 { read(ID) } else { read(ID) >> 24 }
}

/// Measures the timer against the clock and lets it raise `vector`, once per
/// [`arm_timer`]. On each CPU; measures on the first.
pub(crate) fn init_timer(vector: u8) {
    write(DIVIDE, 0b1011);
    write(TIMER, vector.into());
    if TIMER_RATE.load(Ordering::Relaxed) == 0 {
        const MASKED: u32 = 1 << 16;
        write(TIMER, MASKED | u32::from(vector));
        write(INITIAL_COUNT, u32::MAX);
        let start = clock::now();
        clock::spin(Duration::from_millis(5));
        let left = read(CURRENT_COUNT);
        let elapsed = clock::now() - start;
        write(INITIAL_COUNT, 0);
        write(TIMER, vector.into());
        let counts = u128::from(u32::MAX - left);
        let rate = counts * 1_000_000_000 / elapsed.as_nanos().max(1);
        TIMER_RATE.store((rate as u64).max(1), Ordering::Relaxed);
        log::debug!("local APIC timer at {} kHz", rate / 1000);
    }
}

/// Raises the timer's interrupt once, `after` from now or a little later, but
/// sooner where that is more than the counter holds.
pub(crate) fn arm_timer(after: Duration) {
    let rate = u128::from(TIMER_RATE.load(Ordering::Relaxed));
    let count = after.as_nanos() * rate / 1_000_000_000 + 1;
    write(INITIAL_COUNT, count.min(u128::from(u32::MAX)) as u32);
}

/// Tells this CPU's local APIC that an interrupt was served.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends interrupt `vector` to another CPU.
pub(crate) fn send(apic_id: u32, vector: u8) {
    command(apic_id, u32::from(vector) | 1 << 14);
}

/// Writes an interrupt command.
pub(crate) fn command(apic_id: u32, command: u32) {
    if REGISTERS.load(Ordering::Relaxed) == 0 {
        // SAFETY: the interrupt command register of the x2APIC; the interrupts
        // that this kernel sends have handlers.
        unsafe { Msr::new(0x800 + COMMAND).write(u64::from(apic_id) << 32 | u64::from(command)) };
        return;
    }
    const PENDING: u32 = 1 << 12;
    crate::sync::without_interrupts(|| {
        write(COMMAND_HIGH, apic_id << 24);
        write(COMMAND, command);
        while read(COMMAND) & PENDING != 0 {
            core::hint::spin_loop();
        }
    });
}

/// Moves the old PICs' interrupts to vectors 32 to 47 and masks them all.
pub(crate) fn silence_pics() {
    let ports: [(u16, [u8; 4]); 2] = [(0x20, [0x11, 32, 4, 1]), (0xa0, [0x11, 40, 2, 1])];
    for (port, words) in ports {
        let (mut command, mut data) = (Port::<u8>::new(port), Port::<u8>::new(port + 1));
        // SAFETY: the PICs' initialisation sequence, then all lines masked.
        unsafe {
            command.write(words[0]);
            for word in &words[1..] {
                data.write(*word);
            }
            data.write(0xff);
        }
    }
}

/// How an interrupt line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether a low level (or a falling edge) means an interrupt.
    pub polarity: Polarity,
    /// Whether the line is watched for edges or levels.
    pub trigger: Trigger,
}

/// The voltage that means an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// High, as ISA has it.
    High,
    /// Low, as PCI has it.
    Low,
}

/// What a line is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A change, as ISA has it.
    Edge,
    /// A level that stays until the device is served, as PCI has it.
    Level,
}

/// The mapped registers of an I/O APIC.
#[derive(Debug)]
pub(crate) struct IoApicRegisters {
    base: *mut u32,
    first: u32,
    lines: u32,
}

// SAFETY: the registers may be used from any CPU; the lock around the list of
// these keeps index and data accesses together.
unsafe impl Send for IoApicRegisters {}

/// All I/O APICs.
pub(crate) static IO_APICS: IrqMutex<alloc::vec::Vec<IoApicRegisters>> =
    IrqMutex::new(alloc::vec::Vec::new());

impl IoApicRegisters {
    pub(crate) fn new(table: &IoApic) -> Option<Self> {
        let base = map_mmio(table.addr.into(), 32, CacheMode::Uncached).ok()?;
        let mut registers = Self {
            base: base.cast(),
            first: table.first,
            lines: 0,
        };
        registers.lines = (registers.read(1) >> 16 & 0xff) + 1;
        Some(registers)
    }

    fn select(&mut self, register: u32) {
        // SAFETY: the index register, mapped by `new`.
        unsafe { self.base.write_volatile(register) };
    }

    fn read(&mut self, register: u32) -> u32 {
        self.select(register);
        // SAFETY: the data register, mapped by `new`.
        unsafe { self.base.add(4).read_volatile() }
    }

    fn write(&mut self, register: u32, value: u32) {
        self.select(register);
        // SAFETY: as in `read`.
        unsafe { self.base.add(4).write_volatile(value) };
    }

    /// Sends global interrupt `global` to a CPU as `vector`. False if the line
    /// belongs to another controller.
    pub(crate) fn route(&mut self, global: u32, line: Line, vector: u8, apic_id: u32) -> bool {
        let Some(pin) = global
            .checked_sub(self.first)
            .filter(|&pin| pin < self.lines)
        else {
            return false;
        };
        let polarity = u32::from(line.polarity == Polarity::Low) << 13;
        let trigger = u32::from(line.trigger == Trigger::Level) << 15;
        self.write(0x11 + 2 * pin, apic_id << 24);
        self.write(0x10 + 2 * pin, u32::from(vector) | polarity | trigger);
        true
    }

    /// Masks global interrupt `global`, if it is this controller's.
    pub(crate) fn mask(&mut self, global: u32) {
        if let Some(pin) = global
            .checked_sub(self.first)
            .filter(|&pin| pin < self.lines)
        {
            self.write(0x10 + 2 * pin, 1 << 16);
        }
    }
}
