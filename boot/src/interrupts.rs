//! Interrupt vectors and their handlers.
//!
//! A driver calls [`allocate`] with a handler and programs the returned
//! [`Message`] into its device's MSI-X table; or it routes an interrupt line to
//! the vector with [`Interrupt::route`]. Dropping the [`Interrupt`] takes the
//! handler away. Handlers run with interrupts off, on the stack of whatever
//! thread was interrupted; they must not block, and should wake a thread.

use alloc::sync::Arc;
use core::{fmt, sync::atomic::Ordering};

use crate::{
    acpi::Machine,
    apic::{self, IO_APICS, IoApicRegisters, Line, Polarity, Trigger},
    cpu,
    sync::IrqMutex,
    thread,
};

/// Vectors below belong to exceptions and to the old PICs, which are masked.
const FIRST: u8 = 48;
/// Vectors for devices end here.
const LAST: u8 = 239;
const TIMER: u8 = 240;
/// Another CPU has put work into the ready queue.
pub(crate) const RESCHEDULE: u8 = 241;
/// Another CPU has removed a mapping.
pub(crate) const SHOOTDOWN: u8 = 242;
const SPURIOUS: u8 = 255;

type Handler = Arc<dyn Fn() + Send + Sync>;

static HANDLERS: [IrqMutex<Option<Handler>>; 256] = [const { IrqMutex::new(None) }; 256];
static OVERRIDES: IrqMutex<alloc::vec::Vec<crate::acpi::Override>> =
    IrqMutex::new(alloc::vec::Vec::new());

/// Why an interrupt cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterruptError {
    /// All vectors are taken.
    NoVector,
    /// No interrupt controller serves this line.
    NoLine(u32),
    /// The CPU does not exist, or its number does not fit in a message.
    Cpu(usize),
}

impl fmt::Display for InterruptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVector => f.write_str("all interrupt vectors are taken"),
            Self::NoLine(line) => write!(f, "no interrupt controller serves line {line}"),
            Self::Cpu(cpu) => write!(f, "CPU {cpu} cannot be sent interrupts"),
        }
    }
}

impl core::error::Error for InterruptError {}

/// What a device writes to raise a message-signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Physical address of the write.
    pub addr: u64,
    /// The 32-bit word that is written.
    pub data: u32,
}

/// A vector with a handler. Dropping it detaches the handler; the device must
/// not raise the interrupt any more (a late one is counted as spurious).
#[derive(Debug)]
pub struct Interrupt {
    vector: u8,
    line: Option<u32>,
}

/// Finds a free vector and attaches `handler`.
///
/// # Errors
///
/// [`InterruptError::NoVector`].
pub fn allocate(handler: impl Fn() + Send + Sync + 'static) -> Result<Interrupt, InterruptError> {
    let handler: Handler = Arc::new(handler);
    for vector in FIRST..=LAST {
        let mut slot = HANDLERS[usize::from(vector)].lock();
        if slot.is_none() {
            *slot = Some(handler);
            return Ok(Interrupt { vector, line: None });
        }
    }
    Err(InterruptError::NoVector)
}

impl Interrupt {
    /// Returns the message that raises the interrupt on CPU `cpu`.
    ///
    /// # Errors
    ///
    /// [`InterruptError::Cpu`].
    pub fn message(&self, cpu: usize) -> Result<Message, InterruptError> {
        Ok(Message {
            addr: 0xfee0_0000 | u64::from(destination(cpu)?) << 12,
            data: self.vector.into(),
        })
    }

    /// Lets interrupt line `global` raise it on CPU `cpu`.
    ///
    /// # Errors
    ///
    /// [`InterruptError::NoLine`], [`InterruptError::Cpu`].
    pub fn route(&mut self, global: u32, line: Line, cpu: usize) -> Result<(), InterruptError> {
        let apic_id = destination(cpu)?;
        let routed = IO_APICS
            .lock()
            .iter_mut()
            .any(|apic| apic.route(global, line, self.vector, apic_id));
        if !routed {
            return Err(InterruptError::NoLine(global));
        }
        self.line = Some(global);
        Ok(())
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        if let Some(line) = self.line {
            for apic in IO_APICS.lock().iter_mut() {
                apic.mask(line);
            }
        }
        let handler = HANDLERS[usize::from(self.vector)].lock().take();
        drop(handler);
    }
}

/// The 8-bit address of a CPU in messages and I/O APIC entries.
fn destination(cpu: usize) -> Result<u32, InterruptError> {
    cpu::get(cpu)
        .map(|cpu| cpu.apic_id())
        .filter(|&id| id < 255)
        .ok_or(InterruptError::Cpu(cpu))
}

/// Attaches `handler` to an ISA interrupt for good, wherever it is wired to.
///
/// # Errors
///
/// As [`allocate`] and [`Interrupt::route`].
pub fn attach_isa(
    irq: u8,
    handler: impl Fn() + Send + Sync + 'static,
) -> Result<(), InterruptError> {
    let found = OVERRIDES.lock().iter().find(|o| o.irq == irq).copied();
    let (global, flags) = found.map_or((u32::from(irq), 0), |o| (o.global, o.flags));
    let line = Line {
        polarity: if flags & 3 == 3 {
            Polarity::Low
        } else {
            Polarity::High
        },
        trigger: if flags >> 2 & 3 == 3 {
            Trigger::Level
        } else {
            Trigger::Edge
        },
    };
    let mut interrupt = allocate(handler)?;
    interrupt.route(global, line, 0)?;
    core::mem::forget(interrupt);
    Ok(())
}

/// Sets the interrupt controllers up and turns interrupts on.
pub fn init(machine: &Machine) {
    apic::silence_pics();
    apic::init(machine.local_apic);
    *OVERRIDES.lock() = machine.overrides.clone();
    let io_apics = machine.io_apics.iter().filter_map(IoApicRegisters::new);
    IO_APICS.lock().extend(io_apics);
    init_cpu();
    x86_64::instructions::interrupts::enable();
}

/// Sets this CPU's own controller up.
pub(crate) fn init_cpu() {
    let id = apic::init_cpu(SPURIOUS);
    apic::init_timer(TIMER);
    cpu::current().set_online(id);
}

/// Serves `vector`. Interrupts are off.
pub(crate) fn dispatch(vector: u8) {
    match vector {
        // An interrupt that went away before it was served has no end to signal.
        SPURIOUS | 32..FIRST => return,
        TIMER => thread::timer(),
        RESCHEDULE => {}
        SHOOTDOWN => crate::memory::paging::serve_shootdown(),
        _ => {
            let handler = HANDLERS[usize::from(vector)].lock().clone();
            match handler {
                Some(handler) => {
                    let cpu = cpu::current();
                    cpu.in_handler.store(true, Ordering::Relaxed);
                    handler();
                    cpu.in_handler.store(false, Ordering::Relaxed);
                }
                None => log::debug!("interrupt {vector} has no handler"),
            }
        }
    }
    apic::end_of_interrupt();
}

/// Sends `message` from this CPU, as a device would: for tests.
pub fn raise(message: Message) {
    let apic_id = (message.addr >> 12 & 0xff) as u32;
    apic::send(apic_id, message.data as u8);
}
