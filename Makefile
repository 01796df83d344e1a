# The front door. `make` alone lists the targets.

target := $(or $(CARGO_TARGET_DIR),target)
runner := $(target)/release/virtio-fs-run
kernel := $(target)/kernel/kernel
mounter := $(target)/release/virtio-fs-mount
bencher := $(target)/release/virtio-fs-bench

# What a user may set. Passed on by the environment, so that no shell reads them twice.
export SHARE CMD MEM SMP CACHE DAEMON ACCEL LOG TAG TIMEOUT SEED ARGS MNT
export ROUNDS QUICK SET COMPARE REPORT NAME
export QEMU VIRTIOFSD LINUX

.DEFAULT_GOAL := help
.PHONY: help run show test torture check bench scale fuzz memcheck mount umount suites kernel runner mounter daemon tools clean distclean
.SILENT:

help:
	echo "virtio-fs: a virtio-fs guest driver for any kernel, with a test kernel to run it in"
	echo
	echo "  make run        boot the test kernel on a shared directory; a shell, or CMD"
	echo "  make show       print the commands that make run would start"
	echo "  make test       everything that is tested, in a few minutes; the same as CI"
	echo "  make check      format, lints, documentation"
	echo "  make bench      workloads beside a Linux guest's: tables, JSON, a chart; a quarter of an hour"
	echo "  make scale      what a million files, 1 TiB, a window of 64 GiB and 64 threads cost: tables, curves"
	echo "  make torture    threads at large files in small DAX windows: all cases, about half an hour"
	echo "  make mount      mount SHARE on MNT of this machine, through the driver; needs root"
	echo "  make umount     end that: MNT=dir"
	echo "  make suites     the test suites of others on such mounts; needs root, takes half an hour"
	echo "  make fuzz       the fuzz targets as loops, each for FUZZ_SECONDS (60)"
	echo "  make memcheck   the fuzz targets under valgrind, some minutes"
	echo "  make kernel     build the test kernel"
	echo "  make tools      get QEMU and virtiofsd into $(target)/tools, where they are missing"
	echo "  make clean      remove what was built, but not the tools; distclean: all of it"
	echo
	echo "Variables of run, show and test"
	echo "  SHARE=dir[:tag]   the directory to share (a small demonstration tree)"
	echo "  CMD='ls -l /'     run this in the guest instead of a shell, exit with its status"
	echo "  TAG=name          the tag of the share (myfs)"
	echo "  MEM=512M SMP=1    memory and processors"
	echo "  DAEMON=virtiofsd  or dax: the daemon with a DAX window"
	echo "  CACHE=auto        the daemon's cache policy: auto, always, never, metadata"
	echo "  ACCEL=auto        or tcg, kvm"
	echo "  LOG=info          or off, error, warn, debug, trace; debug shows the commands, too"
	echo "  TIMEOUT=60        kill everything after so many seconds"
	echo "  ARGS='...'        more options for the runner: make run ARGS=--help lists them"
	echo "  SEED=1            test, torture: of the random part; each run prints its own"
	echo "  QUICK=1           bench: one round, nothing counted; ROUNDS=5 SET=posix,dax"
	echo "  COMPARE=old.json  bench: show the differences to an earlier result; NAME=latest"
	echo
	echo "Examples"
	echo "  make run"
	echo "  make run SHARE=/usr/share/doc CMD='find / | head'"
	echo "  make run SMP=4 DAEMON=dax LOG=debug"
	echo "  make mount SHARE=/usr/share/doc MNT=/mnt"

# Each variable that is set becomes an option. ARGS is split into words, the others are not.
options = $${SHARE:+--share "$$SHARE"} $${TAG:+--tag "$$TAG"} $${MEM:+--mem "$$MEM"} \
	$${SMP:+--smp "$$SMP"} $${CACHE:+--cache "$$CACHE"} $${DAEMON:+--daemon "$$DAEMON"} \
	$${ACCEL:+--accel "$$ACCEL"} $${LOG:+--log "$$LOG"} $${TIMEOUT:+--timeout "$$TIMEOUT"} $$ARGS

run: tools kernel runner $(if $(filter dax,$(DAEMON)),daemon)
	$(runner) run $${CMD:+--cmd "$$CMD"} $(options)

show: tools kernel runner $(if $(filter dax,$(DAEMON)),daemon)
	$(runner) run --show $${CMD:+--cmd "$$CMD"} $(options)

# Of the variables above it takes SHARE, CACHE, DAEMON, LOG and ARGS (ARGS=--help).
mount: mounter $(if $(filter dax,$(DAEMON)),daemon)
	TOOLS=$(target)/tools qemu/tools.sh virtiofsd
	exec $(mounter) $${CACHE:+--cache "$$CACHE"} $${DAEMON:+--daemon "$$DAEMON"} $${LOG:+--log "$$LOG"} $$ARGS \
		$${SHARE:+"$$SHARE"} $${MNT:+"$$MNT"}

# Also where a mount was left behind, or is in use: then it goes with its last user.
umount:
	: "$${MNT:?say which: make umount MNT=dir}"
	umount "$$MNT" || umount -l "$$MNT"

suites: mounter daemon
	TOOLS=$(target)/tools qemu/tools.sh virtiofsd
	TOOLS=$(target)/tools tests/suites/tools.sh
	tests/suites/run.sh $${SEED:+--seed "$$SEED"} $$ARGS

# The driver is measured without debug assertions, as the other kernel is built. Without a Linux
# kernel the test kernel runs alone. The guest's program is linked statically: it is all that the
# guest has.
bench: tools daemon
	cargo kernel --quiet --target-dir $(target)/bench/build --config profile.kernel.debug-assertions=false \
		--config profile.kernel.overflow-checks=false
	TOOLS=$(target)/tools qemu/tools.sh linux || echo "the test kernel runs alone"
	cargo build --quiet --release --package virtio-fs-bench --package virtio-fs-insns
	cargo rustc --quiet --release --package virtio-fs-bench-guest -- \
		-C target-feature=+crt-static -C relocation-model=static
	exec $(bencher) --kernel $(target)/bench/build/kernel/kernel $${QUICK:+--quick} $${ROUNDS:+--rounds "$$ROUNDS"} $${SET:+--set "$$SET"} \
		$${CACHE:+--cache "$$CACHE"} $${SHARE:+--share "$$SHARE"} $${COMPARE:+--compare "$$COMPARE"} \
		$${REPORT:+--report "$$REPORT"} $${NAME:+--name "$$NAME"} $$ARGS

fuzz:
	FUZZ_SECONDS=$${FUZZ_SECONDS:-60} FUZZ_SEED=$${SEED:-$$(date +%s)} \
		cargo test --quiet --release --package virtio-fs-fuzz --test seeded -- --nocapture --test-threads 2

memcheck:
	tests/fuzz/memcheck.sh

scale:
	cargo run --quiet --release --package virtio-fs-scale -- $(target)/bench

test:
	qemu/test.sh

# The short one is part of the tests. ARGS='--timeout N' bounds each machine.
torture: tools kernel runner daemon
	$(runner) torture --full $${SEED:+--seed "$$SEED"} $(options)

check:
	qemu/test.sh check

kernel:
	cargo kernel --quiet

runner:
	cargo build --quiet --release --package virtio-fs-run

mounter:
	cargo build --quiet --release --package virtio-fs-mount

daemon:
	cargo build --quiet --release --package virtio-fs-daxd

tools:
	TOOLS=$(target)/tools qemu/tools.sh

# All but the tools: those took a download.
clean:
	if [ -d $(target) ]; then find $(target) -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} +; fi

distclean:
	rm -rf $(target)
