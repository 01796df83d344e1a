//! How the code got where it is: callers, by the unwind tables that every build
//! has (`.eh_frame`, read by gimli), named by the DWARF line tables that kernel.ld
//! keeps (read by addr2line). No frame pointers are needed, so the precompiled
//! `core` shows up as well.

use core::{arch::asm, fmt};

use gimli::{
    BaseAddresses, CfaRule, Dwarf, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule,
    SectionId, UnwindContext, UnwindSection, X86_64,
};

use crate::{
    memory::{image, translate},
    trap::Frame,
};

/// More frames than this are not shown.
const MAX_DEPTH: usize = 64;

type Slice = EndianSlice<'static, LittleEndian>;

/// The registers that unwinding follows, by DWARF number: 0 to 15 and the
/// address of the next instruction as 16.
#[derive(Clone, Copy, Debug)]
pub struct Registers([u64; 17]);

impl Registers {
    /// The registers of interrupted code.
    pub fn of(frame: &Frame) -> Self {
        Self([
            frame.rax, frame.rdx, frame.rcx, frame.rbx, frame.rsi, frame.rdi, frame.rbp, frame.rsp,
            frame.r8, frame.r9, frame.r10, frame.r11, frame.r12, frame.r13, frame.r14, frame.r15,
            frame.rip,
        ])
    }

    /// The registers of the caller, as far as a function call keeps them.
    #[inline(always)]
    pub fn here() -> Self {
        let mut all = [0u64; 17];
        // SAFETY: only stores registers into the array.
        unsafe {
            asm!(
                "mov [{all} + 3 * 8], rbx",
                "mov [{all} + 6 * 8], rbp",
                "mov [{all} + 7 * 8], rsp",
                "mov [{all} + 12 * 8], r12",
                "mov [{all} + 13 * 8], r13",
                "mov [{all} + 14 * 8], r14",
                "mov [{all} + 15 * 8], r15",
                "lea {rip}, [rip]",
                "mov [{all} + 16 * 8], {rip}",
                all = in(reg) all.as_mut_ptr(),
                rip = out(reg) _,
                options(nostack),
            );
        }
        Self(all)
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied()
    }
}

/// Calls `visit` with the number and address of each frame, innermost first.
pub fn walk(mut registers: Registers, mut visit: impl FnMut(usize, u64)) {
    let section = EhFrame::new(image::eh_frame(), LittleEndian);
    let bases = BaseAddresses::default()
        .set_eh_frame(image::eh_frame().as_ptr() as u64)
        .set_text(image::text().start);
    let mut context = UnwindContext::new();
    for number in 0..MAX_DEPTH {
        let at = registers.0[16];
        if at == 0 {
            return;
        }
        // A return address may be the first of the next function, when the call
        // was the last of this one; only frame 0 is not a return address.
        let address = if number == 0 { at } else { at - 1 };
        visit(number, address);
        let known = image::text()
            .contains(&address)
            .then(|| caller(&section, &bases, &mut context, registers, address))
            .flatten();
        let next = match known {
            None if number == 0 => leaf(registers),
            known => known,
        };
        match next {
            Some(next) if next.0[7] > registers.0[7] => registers = next,
            _ => return,
        }
    }
}

fn caller(
    section: &EhFrame<Slice>,
    bases: &BaseAddresses,
    context: &mut UnwindContext<usize>,
    registers: Registers,
    address: u64,
) -> Option<Registers> {
    let row = section
        .unwind_info_for_address(bases, context, address, EhFrame::cie_from_offset)
        .ok()?;
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return None;
    };
    let cfa = registers.get(*register)?.wrapping_add_signed(*offset);
    let mut next = registers;
    for (register, rule) in row.registers() {
        if let (RegisterRule::Offset(offset), Some(slot)) =
            (rule, next.0.get_mut(usize::from(register.0)))
        {
            *slot = read(cfa.wrapping_add_signed(*offset))?;
        }
    }
    next.0[usize::from(X86_64::RSP.0)] = cfa;
    Some(next)
}

/// The caller where no unwind table helps, after a jump to nowhere or in a
/// memory function written in assembly: its address is on top of the stack.
fn leaf(registers: Registers) -> Option<Registers> {
    let mut next = registers;
    next.0[16] = read(registers.0[7])?;
    next.0[7] += 8;
    Some(next)
}

/// Reads a word of a stack that may be broken.
fn read(addr: u64) -> Option<u64> {
    if !addr.is_multiple_of(8) {
        return None;
    }
    translate(addr)?;
    // SAFETY: mapped, aligned, and any value is a fine u64. Device registers are
    // not on a stack.
    Some(unsafe { (addr as *const u64).read_volatile() })
}

/// Names for code addresses. Making one reads the list of all units, so it is
/// worth keeping for a whole backtrace.
pub struct Symbols(Option<addr2line::Context<Slice>>);

impl Symbols {
    /// Reads the kernel's DWARF sections. Allocates.
    pub fn load() -> Self {
        let load = |id: SectionId| -> Result<Slice, gimli::Error> {
            Ok(EndianSlice::new(
                image::dwarf_section(id.name()),
                LittleEndian,
            ))
        };
        let dwarf = Dwarf::load(load);
        Self(dwarf.and_then(addr2line::Context::from_dwarf).ok())
    }

    /// Writes `address` as function, file and line, inlined functions first.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write(&self, address: u64, out: &mut impl fmt::Write) -> fmt::Result {
        write!(out, "{address:#018x}")?;
        // DWARF still describes functions that the linker dropped, at address 0.
        let frames = self
            .0
            .as_ref()
            .filter(|_| image::text().contains(&address))
            .and_then(|context| context.find_frames(address).skip_all_loads().ok());
        let Some(mut frames) = frames else {
            return out.write_str(" (no symbol)");
        };
        let mut inner = false;
        while let Ok(Some(frame)) = frames.next() {
            if inner {
                out.write_str("\n        inlined into     ")?;
            }
            inner = true;
            match frame
                .function
                .as_ref()
                .and_then(|name| name.demangle().ok())
            {
                Some(name) => write!(out, " {name}")?,
                None => out.write_str(" (no name)")?,
            }
            if let Some(location) = frame.location
                && let (Some(file), Some(line)) = (location.file, location.line)
            {
                write!(out, " ({file}:{line})")?;
            }
        }
        if !inner {
            out.write_str(" (no symbol)")?;
        }
        Ok(())
    }
}
