//! The serial console, a 16550 on COM1, and the log that goes there.
//!
//! Output is polled: whenever the transmitter is empty, a burst fills its FIFO
//! of 16 bytes. Input arrives by interrupt (see [`init_input`]) in a ring from
//! which [`read`] takes it.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use log::{LevelFilter, Log, Metadata, Record};
use x86_64::instructions::port::Port;

use crate::{clock, sync::IrqMutex, wait::WaitQueue};

const COM1: u16 = 0x3f8;
const FIFO: usize = 16;
/// Input that nobody has read yet; more is dropped.
const INPUT: usize = 1024;
/// COM1 of a PC raises ISA interrupt 4.
const IRQ: u8 = 4;

static UART: IrqMutex<Uart> = IrqMutex::new(Uart);
static RING: IrqMutex<Ring> = IrqMutex::new(Ring {
    bytes: [0; INPUT],
    start: 0,
    len: 0,
});
static READERS: WaitQueue = WaitQueue::new();
/// Whether input comes by interrupt; if not, readers poll.
static INTERRUPTS: AtomicBool = AtomicBool::new(false);

struct Uart;

impl Uart {
    fn port(register: u16) -> Port<u8> {
        Port::new(COM1 + register)
    }

    fn read(&mut self, register: u16) -> u8 {
        // SAFETY: a register of the UART, which this type alone drives.
        unsafe { Self::port(register).read() }
    }

    fn write_register(&mut self, register: u16, value: u8) {
        // SAFETY: as in `read`.
        unsafe { Self::port(register).write(value) }
    }

    fn init(&mut self) {
        self.write_register(1, 0); // no interrupts
        self.write_register(3, 0x80); // divisor latch
        self.write_register(0, 1); // 115200 baud
        self.write_register(1, 0);
        self.write_register(3, 0x03); // 8 bits, no parity, 1 stop
        self.write_register(2, 0xc7); // FIFOs on and empty
        self.write_register(4, 0x0b); // ready, and the interrupt line open
    }

    fn send(&mut self, bytes: &[u8]) {
        for burst in bytes.chunks(FIFO) {
            // A UART that never gets empty is not there: output goes nowhere,
            // but the kernel runs on.
            for _ in 0..1_000_000 {
                if self.read(5) & 0x20 != 0 {
                    break;
                }
            }
            for &byte in burst {
                self.write_register(0, byte);
            }
        }
    }
}

impl Write for Uart {
    /// Sends text, a carriage return before every line feed.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.send(line.as_bytes());
                    self.send(b"\r\n");
                }
                None => self.send(line.as_bytes()),
            }
        }
        Ok(())
    }
}

struct Ring {
    bytes: [u8; INPUT],
    start: usize,
    len: usize,
}

impl Ring {
    fn push(&mut self, byte: u8) {
        if self.len < INPUT {
            self.bytes[(self.start + self.len) % INPUT] = byte;
            self.len += 1;
        }
    }

    fn pop(&mut self) -> Option<u8> {
        (self.len > 0).then(|| {
            let byte = self.bytes[self.start];
            self.start = (self.start + 1) % INPUT;
            self.len -= 1;
            byte
        })
    }
}

/// Prints to the console, without a line end.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::console::print(format_args!($($arg)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints formatted text; [`print!`](crate::print) is the usual way here.
pub fn print(text: fmt::Arguments) {
    // The UART itself never fails; a failing Display in `text` loses its rest.
    let _ = UART.lock().write_fmt(text);
}

/// Sends bytes as they are, without line-end translation.
pub fn write(bytes: &[u8]) {
    UART.lock().send(bytes);
}

/// Prints although the console's lock may be held by the code that crashed.
pub(crate) fn print_crash(text: fmt::Arguments) {
    let _ = Uart.write_fmt(text);
}

/// The console for a crash report, past the lock.
pub(crate) struct Crash;

impl Write for Crash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        Uart.write_str(text)
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let now = clock::now();
            print(format_args!(
                "[{:4}.{:06}] {:5} {}: {}\n",
                now.as_secs(),
                now.subsec_micros(),
                record.level(),
                record.target().trim_start_matches("virtio_fs_boot::"),
                record.args()
            ));
        }
    }

    fn flush(&self) {}
}

/// Sets up output and the log, at level `warn` until told otherwise.
pub fn init() {
    UART.lock().init();
    log::set_max_level(LevelFilter::Warn);
    // Fails only if a logger is set already, and then logging works anyway.
    let _ = log::set_logger(&Logger);
}

/// Lets input arrive by interrupt. Without it, [`read`] polls.
pub fn init_input() {
    let handler = || {
        receive();
        READERS.wake_all();
    };
    match crate::interrupts::attach_isa(IRQ, handler) {
        Ok(()) => {
            UART.lock().write_register(1, 1);
            INTERRUPTS.store(true, Ordering::Relaxed);
            receive();
        }
        Err(error) => log::warn!("console input is polled: {error}"),
    }
}

/// Moves what the UART received into the ring.
fn receive() {
    let mut uart = UART.lock();
    let mut ring = RING.lock();
    // Bounded: a UART that is not there reads all ones for ever.
    for _ in 0..INPUT {
        if uart.read(5) & 1 == 0 {
            break;
        }
        let byte = uart.read(0);
        ring.push(byte);
    }
}

/// Waits for input and returns a byte of it. Blocks the thread.
pub fn read() -> u8 {
    loop {
        let interrupts = INTERRUPTS.load(Ordering::Relaxed);
        if !interrupts {
            receive();
        }
        let deadline = (!interrupts).then(|| clock::now() + core::time::Duration::from_millis(5));
        if let Some(byte) = READERS.wait_for(deadline, || RING.lock().pop()) {
            return byte;
        }
    }
}

/// Returns a byte of input if there is one.
pub fn try_read() -> Option<u8> {
    receive();
    RING.lock().pop()
}
