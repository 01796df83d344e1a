//! A small x86-64 kernel.
#![no_std]

extern crate alloc;
#[cfg(test)]
#[macro_use]
extern crate std;

pub mod acpi;
pub mod memory;
pub mod rtc;
pub mod sync;

#[cfg(panic = "abort")]
mod bare {
}
#[cfg(panic = "abort")]
pub mod apic;
#[cfg(panic = "abort")]
pub mod backtrace;
#[cfg(panic = "abort")]
pub mod clock;
#[cfg(panic = "abort")]
pub mod console;
#[cfg(panic = "abort")]
pub mod cpu;
#[cfg(panic = "abort")]
mod crash;
#[cfg(panic = "abort")]
mod entry;
#[cfg(panic = "abort")]
pub mod exit;
#[cfg(panic = "abort")]
pub mod hal;
#[cfg(panic = "abort")]
pub mod interrupts;
#[cfg(panic = "abort")]
pub mod pci;
#[cfg(panic = "abort")]
pub mod thread;
#[cfg(panic = "abort")]
pub mod trap;

#[cfg(panic = "abort")]
unsafe fn boot(info: u64) -> ! {
    unsafe { cpu::init_boot() };
    console::init();
    let info = unsafe { memory::start_info::StartInfo::read(info) };
    println!("cmdline {:?}", info.command_line());
    clock::init();
    unsafe { memory::init(&info.memory) };
    cpu::init_stacks();
    log::set_max_level(log::LevelFilter::Debug);
    println!("memory ok {} free, {} huge", memory::frames::available(), info.memory.usable_bytes());
    println!("now {:?} {:?}", clock::now(), clock::realtime());
    if info.command_line() == Some("panic") { panic!("hello"); }
    if info.command_line() == Some("pf") { unsafe { (8 as *mut u8).write_volatile(1) } }
    exit::exit(0)
}
