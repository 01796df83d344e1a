//! Tests of threads, time and interrupts.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use super::Test;
use crate::{
    Kernel, acpi, check, clock, cpu, interrupts,
    memory::{
        MAPPINGS, PAGE, frames, heap, linear,
        paging::{self, Flags},
        stack,
    },
    pci,
    sync::IrqMutex,
    thread,
};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "threads: two of them wake each other in turn",
        run: ping_pong,
    },
    Test {
        name: "threads: an unpark before the park is not lost",
        run: permit,
    },
    Test {
        name: "threads: a sleeper wakes in time",
        run: sleeping,
    },
    Test {
        name: "threads: one that never yields is preempted",
        run: preemption,
    },
    Test {
        name: "threads: registers survive preemption",
        run: registers,
    },
    Test {
        name: "threads: hundreds come and go without a leak",
        run: many,
    },
    Test {
        name: "threads: parking and waking allocate nothing",
        run: no_allocation,
    },
    Test {
        name: "locks: counts from all threads add up",
        run: counting,
    },
    Test {
        name: "cpus: all of them run threads",
        run: all_cpus,
    },
    Test {
        name: "cpus: a removed mapping is gone on all of them",
        run: shootdown,
    },
    Test {
        name: "clock: never goes back and agrees with the timer",
        run: monotonic,
    },
    Test {
        name: "clock: the time of day goes on",
        run: time_of_day,
    },
    Test {
        name: "interrupts: a message reaches its handler until it is dropped",
        run: message,
    },
    Test {
        name: "pci: the host bridge is found",
        run: bridge,
    },
    Test {
        name: "acpi: the boot CPU is among the CPUs",
        run: processors,
    },
];

type Outcome = Result<(), String>;

fn ping_pong(_: &'static Kernel) -> Outcome {
    const ROUNDS: u64 = 2000;
    let turn = Arc::new(AtomicU64::new(0));
    let me = thread::current();
    let theirs = turn.clone();
    let other = thread::spawn("pong", move || {
        for round in 0..ROUNDS {
            while theirs.load(Ordering::Acquire) != 2 * round + 1 {
                thread::park(None);
            }
            theirs.store(2 * round + 2, Ordering::Release);
            me.unpark();
        }
    })
    .map_err(|error| alloc::format!("{error}"))?;
    for round in 0..ROUNDS {
        turn.store(2 * round + 1, Ordering::Release);
        other.thread().unpark();
        while turn.load(Ordering::Acquire) != 2 * round + 2 {
            thread::park(None);
        }
    }
    other.join();
    Ok(())
}

fn permit(_: &'static Kernel) -> Outcome {
    let start = clock::now();
    thread::current().unpark();
    thread::current().unpark();
    thread::park(Some(start + Duration::from_secs(5)));
    check!(
        clock::now() - start < Duration::from_secs(1),
        "the permit was lost"
    );
    // Two wake-ups before a park are one.
    let start = clock::now();
    thread::park(Some(start + Duration::from_millis(20)));
    check!(
        clock::now() - start >= Duration::from_millis(20),
        "a permit was left over"
    );
    Ok(())
}

fn sleeping(_: &'static Kernel) -> Outcome {
    for millis in [1, 5, 30] {
        let time = Duration::from_millis(millis);
        let start = clock::now();
        thread::sleep(time);
        let slept = clock::now() - start;
        check!(slept >= time, "slept {slept:?} instead of {time:?}");
        check!(
            slept < time + Duration::from_millis(500),
            "slept {slept:?} instead of {time:?}"
        );
    }
    Ok(())
}

fn preemption(_: &'static Kernel) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let spinners: Vec<_> = (0..=cpu::online().count())
        .map(|_| {
            let stop = stop.clone();
            thread::spawn("spinner", move || {
                while !stop.load(Ordering::Relaxed) {
                    core::hint::spin_loop();
                }
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| alloc::format!("{error}"))?;
    thread::sleep(Duration::from_millis(20));
    stop.store(true, Ordering::Relaxed);
    spinners.into_iter().for_each(thread::JoinHandle::join);
    Ok(())
}

fn registers(_: &'static Kernel) -> Outcome {
    let threads: Vec<_> = (0..3u32)
        .map(|n| {
            thread::spawn("sums", move || {
                // Floating-point sums that live in SSE registers all along.
                let start = clock::now();
                let mut rounds = 0u64;
                while clock::now() - start < Duration::from_millis(60) {
                    let (mut a, mut b) = (f64::from(n), f64::from(n) * 2.0);
                    for i in 0..20_000u32 {
                        a += f64::from(i);
                        b -= f64::from(i);
                    }
                    let want = 199_990_000.0;
                    if a - f64::from(n) != want || f64::from(n) * 2.0 - b != want {
                        return Err(rounds);
                    }
                    rounds += 1;
                }
                Ok(rounds)
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| alloc::format!("{error}"))?;
    for thread in threads {
        let result = thread.join();
        check!(result.is_ok(), "a sum went wrong in round {result:?}");
    }
    Ok(())
}

fn many(_: &'static Kernel) -> Outcome {
    let round = || -> Result<usize, thread::NoStack> {
        let threads: Vec<_> = (0..64usize)
            .map(|n| thread::spawn("short", move || n))
            .collect::<Result<_, _>>()?;
        Ok(threads.into_iter().map(thread::JoinHandle::join).sum())
    };
    // The first rounds make the stacks and the queues' room, which are kept.
    for _ in 0..4 {
        let _ = round();
    }
    thread::sleep(Duration::from_millis(10));
    let (heap, frames) = (heap::in_use(), frames::available());
    const ROUNDS: usize = 16;
    for _ in 0..ROUNDS {
        let sum = round().map_err(|error| alloc::format!("{error}"))?;
        check!(sum == 64 * 63 / 2, "the results add up to {sum}");
    }
    // The last ones still have to leave their stacks.
    thread::sleep(Duration::from_millis(10));
    // Queues may have grown once more; a leak of anything would be 16 bytes or
    // more for each of a thousand threads.
    let lost = heap::in_use().saturating_sub(heap);
    check!(lost < 64 * ROUNDS * 16, "{lost} bytes were lost");
    // One round's stacks at most may have been made anew.
    let lost = frames.saturating_sub(frames::available()) as u64 * PAGE;
    check!(
        lost <= 64 * stack::SIZE + (8 << 20),
        "{lost} bytes of frames were lost"
    );
    Ok(())
}

fn no_allocation(_: &'static Kernel) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let (me, flag) = (thread::current(), stop.clone());
    let other = thread::spawn("waker", move || {
        while !flag.load(Ordering::Relaxed) {
            me.unpark();
            thread::park(Some(clock::now() + Duration::from_micros(200)));
        }
    })
    .map_err(|error| alloc::format!("{error}"))?;
    thread::sleep(Duration::from_millis(2));
    let before = heap::allocations();
    for _ in 0..100 {
        other.thread().unpark();
        thread::park(Some(clock::now() + Duration::from_millis(50)));
    }
    let made = heap::allocations() - before;
    stop.store(true, Ordering::Relaxed);
    other.join();
    check!(made == 0, "{made} allocations");
    Ok(())
}

fn counting(_: &'static Kernel) -> Outcome {
    const EACH: u64 = 5000;
    let count = Arc::new(IrqMutex::new(0u64));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let count = count.clone();
            thread::spawn("counter", move || {
                for _ in 0..EACH {
                    *count.lock() += 1;
                }
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| alloc::format!("{error}"))?;
    threads.into_iter().for_each(thread::JoinHandle::join);
    let total = *count.lock();
    check!(total == 4 * EACH, "counted {total}");
    Ok(())
}

fn all_cpus(_: &'static Kernel) -> Outcome {
    let seen = Arc::new(AtomicU64::new(0));
    let all = cpu::online().fold(0u64, |all, cpu| all | 1 << cpu.id());
    let end = clock::now() + Duration::from_secs(10);
    let threads: Vec<_> = (0..2 * all.count_ones())
        .map(|_| {
            let seen = seen.clone();
            thread::spawn("visitor", move || {
                while seen.load(Ordering::Relaxed) != all && clock::now() < end {
                    seen.fetch_or(1 << cpu::current().id(), Ordering::Relaxed);
                    core::hint::spin_loop();
                }
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| alloc::format!("{error}"))?;
    threads.into_iter().for_each(thread::JoinHandle::join);
    let seen = seen.load(Ordering::Relaxed);
    check!(
        seen == all,
        "CPUs {all:#b} are online, {seen:#b} ran a thread"
    );
    Ok(())
}

/// Two frames are mapped at one address in turn; readers on all CPUs must never
/// see the frame of before once the shootdown has returned.
fn shootdown(_: &'static Kernel) -> Outcome {
    const ROUNDS: u64 = 200;
    static MAPPED: AtomicU64 = AtomicU64::new(0);
    let virt = MAPPINGS.start;
    let flags = Flags::PRESENT | Flags::NO_EXECUTE;
    let mut pages = [0; 2];
    for page in &mut pages {
        *page = frames::allocate_zeroed(1).ok_or("no memory")?;
    }
    MAPPED.store(0, Ordering::SeqCst);
    let readers: Vec<_> = (0..cpu::online().count())
        .map(|_| {
            thread::spawn("reader", move || {
                let mut stale = 0u64;
                loop {
                    let round = MAPPED.load(Ordering::SeqCst);
                    if round == u64::MAX {
                        return stale;
                    }
                    if round == 0 {
                        core::hint::spin_loop();
                        continue;
                    }
                    // The mapping stays while we read: a reader announces itself.
                    READING.fetch_add(1, Ordering::SeqCst);
                    if MAPPED.load(Ordering::SeqCst) == round {
                        // SAFETY: mapped, because the writer waits for readers
                        // after it has announced the end of the round.
                        let found = unsafe { (virt as *const u64).read_volatile() };
                        stale += u64::from(found != round);
                    }
                    READING.fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect::<Result<_, _>>()
        .map_err(|error| alloc::format!("{error}"))?;
    for round in 1..=ROUNDS {
        let page = pages[round as usize % 2];
        // SAFETY: the frame is ours, and mapped in the linear map.
        unsafe { linear(page).cast::<u64>().write_volatile(round) };
        // SAFETY: the address is in MAPPINGS, the frame is ours.
        unsafe { paging::map(virt, page, PAGE, flags) }.map_err(|e| alloc::format!("{e}"))?;
        MAPPED.store(round, Ordering::SeqCst);
        clock::spin(Duration::from_micros(50));
        MAPPED.store(0, Ordering::SeqCst);
        while READING.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
        // SAFETY: nobody reads there now.
        unsafe { paging::unmap(virt) };
        paging::shoot_down();
    }
    MAPPED.store(u64::MAX, Ordering::SeqCst);
    let stale: u64 = readers.into_iter().map(thread::JoinHandle::join).sum();
    for page in pages {
        // SAFETY: mapped nowhere any more.
        unsafe { frames::free(page, 1) };
    }
    check!(stale == 0, "{stale} reads saw a page that was gone");
    Ok(())
}

/// Readers of [`shootdown`] that may be using the mapping.
static READING: AtomicUsize = AtomicUsize::new(0);

fn monotonic(_: &'static Kernel) -> Outcome {
    let mut last = clock::now();
    for _ in 0..100_000 {
        let now = clock::now();
        check!(now >= last, "{now:?} came after {last:?}");
        last = now;
    }
    Ok(())
}

fn time_of_day(_: &'static Kernel) -> Outcome {
    let read = || clock::realtime().ok_or("there is no time of day");
    let (start, first) = (read()?, clock::now());
    thread::sleep(Duration::from_millis(20));
    let (end, last) = (read()?, clock::now());
    let (wall, clock) = (end - start, last - first);
    check!(
        wall.abs_diff(clock) < Duration::from_millis(10),
        "{wall:?} against {clock:?}"
    );
    // 2024-01-01: this code is younger.
    check!(
        start.as_secs() > 1_704_067_200,
        "it is {start:?} since 1970"
    );
    Ok(())
}

fn message(_: &'static Kernel) -> Outcome {
    let count = Arc::new(AtomicUsize::new(0));
    let (counter, waiter) = (count.clone(), thread::current());
    let interrupt = interrupts::allocate(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        waiter.unpark();
    })
    .map_err(|error| alloc::format!("{error}"))?;
    let message = interrupt
        .message(0)
        .map_err(|error| alloc::format!("{error}"))?;
    check!(message.addr >> 20 == 0xfee, "address {:#x}", message.addr);
    for sent in 1..=100 {
        interrupts::raise(message);
        let end = clock::now() + Duration::from_secs(5);
        while count.load(Ordering::Relaxed) < sent && clock::now() < end {
            thread::park(Some(end));
        }
        let got = count.load(Ordering::Relaxed);
        check!(got == sent, "{got} of {sent} interrupts arrived");
    }
    drop(interrupt);
    interrupts::raise(message);
    thread::sleep(Duration::from_millis(5));
    check!(
        count.load(Ordering::Relaxed) == 100,
        "the handler was called after its end"
    );
    Ok(())
}

fn bridge(_: &'static Kernel) -> Outcome {
    let functions = pci::functions();
    for (function, info) in &functions {
        log::info!("{function} {info}");
    }
    let host = functions
        .iter()
        .any(|(_, info)| info.class == 6 && info.subclass == 0);
    check!(host, "none among {} functions", functions.len());
    Ok(())
}

fn processors(kernel: &'static Kernel) -> Outcome {
    let acpi::Machine { cpus, .. } = &kernel.machine;
    for cpu in cpu::online() {
        check!(
            cpus.contains(&cpu.apic_id()),
            "{} is not among {cpus:?}",
            cpu.apic_id()
        );
    }
    Ok(())
}
