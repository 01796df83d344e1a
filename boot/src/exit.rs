//! Leaving QEMU with a status, through its `isa-debug-exit` device.
//!
//! QEMU was started with `-device isa-debug-exit,iobase=0xf4,iosize=0x04` and
//! turns a byte `v` written there into its own exit status `(v << 1) | 1`. The
//! kernel writes its status plus one: success (0) leaves QEMU with 3, failure 1
//! with 5. So 1 remains QEMU's own failure, and 0 a machine that was reset or
//! switched off.

use x86_64::instructions::{hlt, interrupts, port::Port};

/// The status of a kernel that ran into an exception or a panic.
pub const CRASHED: u8 = 101;
/// The status of a kernel on a machine that it cannot run on.
pub const UNUSABLE: u8 = 71;
/// The status of a kernel that was started wrongly: a bad command line.
pub const USAGE: u8 = 64;

/// Ends the virtual machine with `status`, 0 to 126. On a machine without the
/// device, stops this CPU for good.
pub fn exit(status: u8) -> ! {
    // SAFETY: 0xf4 is not decoded by any other device of a PC; where the exit
    // device is absent the write goes nowhere.
    unsafe { Port::<u32>::new(0xf4).write(u32::from(status.min(126)) + 1) };
    interrupts::disable();
    loop {
        hlt();
    }
}
