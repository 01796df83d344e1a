//! Counts a guest's instructions under QEMU's translator, between marks.
//!
//!     -plugin libvirtio_fs_insns.so,out=FILE[,blocks=FILE]
//!
//! A mark is one execution of the no-op `nopl 0x52454550(%rax)`. At each, a line
//! with what was counted so far goes to FILE:
//!
//!     mark kernel=<n> user=<n> io=<n>
//!
//! Instructions at addresses in the upper half are the kernel's (all of the test
//! kernel's are counted there, wherever they lie: it has no user mode, so its
//! lower half is added by the reader), those in the lower half a program's. A
//! `rep` instruction counts once. `io` are accesses to device memory, which under
//! hardware virtualization would leave the guest; port I/O is not among them.
//!
//! With `blocks`, what was executed in the regions, block by block, goes to that file
//! when QEMU ends: for each piece of code its address and its instructions, times
//! the number of its executions.
//!
//! Follows QEMU's plugin interface (`qemu-plugin.h`), version 7: QEMU 11.1.

use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fs::File,
    io::Write,
    ptr::null_mut,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The no-op that is looked for.
const MARK: [u8; 7] = [0x0f, 0x1f, 0x80, 0x50, 0x45, 0x45, 0x52];

/// A 64-bit counter that QEMU keeps for each processor: `qemu_plugin_u64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Counter {
    scoreboard: *mut c_void,
    offset: usize,
}

// SAFETY: the pointer is only handed back to QEMU, which locks around its own.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

/// `QEMU_PLUGIN_INLINE_ADD_U64`
const ADD: c_int = 0;
/// `QEMU_PLUGIN_CB_NO_REGS`
const NO_REGISTERS: c_int = 0;
/// `QEMU_PLUGIN_MEM_RW`
const ALL_ACCESSES: c_int = 3;

type OnTranslation = extern "C" fn(block: *mut c_void, data: *mut c_void);
type OnEnd = extern "C" fn(id: u64, data: *mut c_void);
type OnExecution = extern "C" fn(cpu: c_uint, data: *mut c_void);
type OnAccess = extern "C" fn(cpu: c_uint, info: u32, address: u64, data: *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_scoreboard_new(size: usize) -> *mut c_void;
    fn qemu_plugin_u64_sum(counter: Counter) -> u64;
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, call: OnTranslation, data: *mut c_void);
    fn qemu_plugin_register_atexit_cb(id: u64, call: OnEnd, data: *mut c_void);
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut c_void,
        operation: c_int,
        counter: Counter,
        amount: u64,
    );
    fn qemu_plugin_tb_vaddr(block: *const c_void) -> u64;
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_data(insn: *const c_void, to: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_insn_vaddr(insn: *const c_void) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        insn: *mut c_void,
        operation: c_int,
        counter: Counter,
        amount: u64,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut c_void,
        call: OnExecution,
        registers: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut c_void,
        call: OnAccess,
        registers: c_int,
        which: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_get_hwaddr(info: u32, address: u64) -> *mut c_void;
    fn qemu_plugin_hwaddr_is_io(address: *const c_void) -> bool;
}

/// The version of the interface that is asked for. QEMU 11.1 takes no older one.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 7;

struct Counts {
    kernel: Counter,
    user: Counter,
    out: Mutex<File>,
    blocks: Option<Mutex<Blocks>>,
}

/// Blocks that are told apart; what is translated beyond is not counted.
const BLOCKS: usize = 1 << 16;

/// Executed instructions by block of code.
struct Blocks {
    out: File,
    scoreboard: Counter,
    /// The number of each block, by its address.
    known: HashMap<u64, usize>,
    /// At the last mark.
    before: Vec<u64>,
    /// In regions so far.
    within: Vec<u64>,
    inside: bool,
}

impl Blocks {
    fn counter(&self, index: usize) -> Counter {
        Counter {
            offset: index * size_of::<u64>(),
            ..self.scoreboard
        }
    }

    /// The counter of a block, if there is one left.
    fn of(&mut self, address: u64) -> Option<Counter> {
        let next = self.known.len();
        let index = *self.known.entry(address).or_insert(next);
        (index < BLOCKS).then(|| self.counter(index))
    }

    /// A region begins or ends here.
    fn mark(&mut self) {
        let used = self.known.len().min(BLOCKS);
        // SAFETY: counters of a scoreboard that was made at installation and stays.
        let now: Vec<u64> = (0..used)
            .map(|index| unsafe { qemu_plugin_u64_sum(self.counter(index)) })
            .collect();
        if self.inside {
            self.within.resize(used, 0);
            for (index, now) in now.iter().enumerate() {
                // A block that is new since the mark before began at 0.
                self.within[index] += now - self.before.get(index).copied().unwrap_or(0);
            }
        }
        self.inside = !self.inside;
        self.before = now;
    }

    fn write(&mut self) -> std::io::Result<()> {
        let mut text = String::new();
        for (address, index) in &self.known {
            let count = self.within.get(*index).copied().unwrap_or(0);
            if count > 0 {
                text += &format!("{address:#x} {count}\n");
            }
        }
        self.out.write_all(text.as_bytes())
    }
}

extern "C" fn ended(_: u64, _: *mut c_void) {
    if let Some(blocks) = COUNTS.get().and_then(|counts| counts.blocks.as_ref()) {
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = blocks.write() {
            eprintln!("instruction counts: {error}");
        }
    }
}

static COUNTS: OnceLock<Counts> = OnceLock::new();
static IO: AtomicU64 = AtomicU64::new(0);

extern "C" fn marked(_: c_uint, _: *mut c_void) {
    let Some(counts) = COUNTS.get() else { return };
    // SAFETY: counters of a scoreboard that was made at installation and stays.
    let [kernel, user] =
        [counts.kernel, counts.user].map(|counter| unsafe { qemu_plugin_u64_sum(counter) });
    let line = format!("mark kernel={kernel} user={user} io={}\n", IO.load(Relaxed));
    let mut out = counts.out.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = out.write_all(line.as_bytes()) {
        eprintln!("instruction counts: {error}");
    }
    if let Some(blocks) = &counts.blocks {
        blocks.lock().unwrap_or_else(PoisonError::into_inner).mark();
    }
}

extern "C" fn accessed(_: c_uint, info: u32, address: u64, _: *mut c_void) {
    // SAFETY: called with what QEMU passed to this callback, within it.
    let io = unsafe {
        let hardware = qemu_plugin_get_hwaddr(info, address);
        !hardware.is_null() && qemu_plugin_hwaddr_is_io(hardware)
    };
    if io {
        IO.fetch_add(1, Relaxed);
    }
}

extern "C" fn translated(block: *mut c_void, _: *mut c_void) {
    let Some(counts) = COUNTS.get() else { return };
    // SAFETY: a block that QEMU is translating, valid within this callback.
    let (len, address) = unsafe { (qemu_plugin_tb_n_insns(block), qemu_plugin_tb_vaddr(block)) };
    if let Some(blocks) = &counts.blocks {
        let mut blocks = blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = blocks.of(address) {
            // SAFETY: the same block, and a counter of the scoreboard's.
            unsafe {
                qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, ADD, counter, len as u64);
            }
        }
    }
    for index in 0..len {
        let mut bytes = [0; 16];
        // SAFETY: the index is below the block's length, the instruction is valid
        // within this callback, and `bytes` has room for as many as it says.
        let (insn, got, address) = unsafe {
            let insn = qemu_plugin_tb_get_insn(block, index);
            let got = qemu_plugin_insn_data(insn, bytes.as_mut_ptr().cast(), bytes.len());
            (insn, got, qemu_plugin_insn_vaddr(insn))
        };
        let counter = if address >> 63 == 1 {
            counts.kernel
        } else {
            counts.user
        };
        // SAFETY: the same instruction; the callbacks are of the types that the
        // interface asks for and use no data.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, ADD, counter, 1);
            qemu_plugin_register_vcpu_mem_cb(
                insn,
                accessed,
                NO_REGISTERS,
                ALL_ACCESSES,
                null_mut(),
            );
            if bytes[..got.min(bytes.len())] == MARK {
                qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, null_mut());
            }
        }
    }
}

/// Called by QEMU when it loads the plugin.
///
/// # Safety
///
/// `argv` holds `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let (mut out, mut blocks) = (None, None);
    let create = |path: &str| {
        let file = File::create(path);
        file.inspect_err(|error| eprintln!("instruction counts: {path}: {error}"))
            .ok()
    };
    for index in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: the caller's promise.
        let word = unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy();
        match word.split_once('=') {
            Some(("out", path)) => out = create(path).map(Mutex::new),
            Some(("blocks", path)) => blocks = create(path),
            _ => eprintln!("instruction counts: {word} is no option of this plugin"),
        }
    }
    let Some(out) = out else { return -1 };
    // SAFETY: called from the installation, as the interface wants it.
    let scoreboard = unsafe { qemu_plugin_scoreboard_new(2 * size_of::<u64>()) };
    let counter = |offset| Counter { scoreboard, offset };
    let blocks = blocks.map(|out| {
        // SAFETY: as above.
        let scoreboard = unsafe { qemu_plugin_scoreboard_new(BLOCKS * size_of::<u64>()) };
        Mutex::new(Blocks {
            out,
            scoreboard: Counter {
                scoreboard,
                offset: 0,
            },
            known: HashMap::new(),
            before: Vec::new(),
            within: Vec::new(),
            inside: false,
        })
    });
    let counts = Counts {
        kernel: counter(0),
        user: counter(size_of::<u64>()),
        out,
        blocks,
    };
    if COUNTS.set(counts).is_err() {
        return -1;
    }
    // SAFETY: the id is the one that this plugin was given.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated, null_mut());
        qemu_plugin_register_atexit_cb(id, ended, null_mut());
    }
    0
}
