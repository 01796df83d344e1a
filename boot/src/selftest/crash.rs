//! Crashes on purpose, so that a runner can check what they look like from outside.

use core::hint::black_box;

/// Crashes in the way that `how` names; returns if it names none.
pub fn crash(how: &str) {
    match how {
        "panic" => panic!("asked to"),
        // SAFETY: never sound; page 0 is not mapped, which is what this shows.
        "fault" => unsafe { black_box(8 as *mut u8).write_volatile(1) },
        "jump" => {
            // SAFETY: as above; the address is not even canonical code.
            let nowhere: fn() = unsafe { core::mem::transmute(black_box(16usize)) };
            nowhere();
        }
        // SAFETY: the divide error is what this shows.
        "divide" => unsafe {
            core::arch::asm!("div {0:r}", in(reg) 0u64, inout("rax") 1u64 => _, inout("rdx") 0u64 => _);
        },
        "overflow" => {
            black_box(recurse(black_box(0)));
        }
        // SAFETY: constants cannot be written, which is what this shows.
        "constant" => unsafe {
            black_box(crate::memory::image::rodata().start as *mut u8).write_volatile(1);
        },
        _ => {}
    }
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn recurse(depth: u64) -> u64 {
    let kept = black_box([depth; 64]);
    recurse(depth + 1) + kept[depth as usize % 64]
}
