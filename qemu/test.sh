#!/bin/bash
# Everything that `make test` tests, stage by stage: one line each, with its time,
# and what it wrote if it failed. The last line sums up all tests.
#
#     qemu/test.sh          all
#     qemu/test.sh check    format, lints and documentation only
#
# A stage without tests of its own counts as one. Exit status 0 if none failed.
# From the environment: SEED, SMP, ACCEL, LOG, ARGS as in the Makefile; STAGE_LIMIT,
# the seconds that one stage may take (600).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
target=${CARGO_TARGET_DIR:-target}
logs=$target/test-logs
limit=${STAGE_LIMIT:-600}
mkdir -p "$logs"
passed=0 failed=0 skipped=0 running=
stop() {
	if [ -n "$running" ]; then kill "$running" 2>/dev/null && wait "$running"; fi
	exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM HUP

# count PASSED FAILED
count() { passed=$((passed + $1)) failed=$((failed + $2)); }

# stage NAME TITLE COMMAND...: sets log and took, and prints the line.
stage() {
	local name=$1 title=$2 begun=$SECONDS status
	shift 2
	log=$logs/$name
	printf '%-52s' "$title"
	# A group of its own, so that the limit reaches all that the stage started; and in the
	# background, so that the trap below runs at once and passes an interrupt on.
	timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 </dev/null &
	running=$!
	wait "$running"
	status=$?
	running=
	if [ "$status" = 0 ]; then
		printf 'ok    %4d s\n' $((SECONDS - begun))
	elif [ "$status" = 77 ]; then
		printf 'left out\n'
	else
		[ "$status" != 124 ] || echo "not done after $limit s" >>"$log"
		printf 'FAILED%4d s\n' $((SECONDS - begun))
		tail -n 60 "$log" | sed 's/^/    | /'
	fi
	return "$status"
}

# single NAME TITLE COMMAND...: a stage that counts as one test.
single() { if stage "$@"; then count 1 0; else count 0 1; fi; }

# optional NAME TITLE COMMAND...: a stage that sums up its tests, or says by status 77 and its last
# lines why this machine cannot run it.
optional() {
	local status=0
	stage "$@" || status=$?
	if [ "$status" = 77 ]; then
		grep 'not run' "$log" | sed 's/^/    | /'
		skipped=$((skipped + 1))
	else
		sum "$status"
	fi
}

# Sums up what test programs said at their ends; a failure that none of them
# counted (a build that broke, a program that died) counts as one.
sum() {
	local status=$1 pass fail
	read -r pass fail < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p; s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log" |
		awk '{ p += $1; f += $2 } END { print p + 0, f + 0 }')
	if [ "$status" != 0 ] && [ "$fail" = 0 ]; then fail=1; fi
	# Success without a single test would prove nothing.
	if [ "$status" = 0 ] && [ "$pass" = 0 ]; then fail=1; fi
	count "$pass" "$fail"
}

# The driver's features; it must build with every combination of them.
driver() {
	local all combination list bit
	all=$(sed -n '/^\[features\]/,/^\[/s/^\([a-z0-9_-]*\) *=.*/\1/p' Cargo.toml | grep -v '^default$' | tr '\n' ' ')
	# shellcheck disable=SC2206
	list=($all)
	for ((combination = 0; combination < 1 << ${#list[@]}; combination++)); do
		local on=()
		for ((bit = 0; bit < ${#list[@]}; bit++)); do
			if ((combination >> bit & 1)); then on+=("${list[bit]}"); fi
		done
		echo "features: ${on[*]:-none}"
		# rustc, so that the warning flag is the driver's alone and no dependency is built anew.
		cargo rustc --quiet --package virtio-fs --lib --no-default-features --features "${on[*]}" -- -D warnings || return
	done
}

# The kernel apart from the rest: in one go cargo would build it with the std features that host
# programs switch on in shared dependencies.
lints() {
	cargo clippy --quiet --workspace --exclude virtio-fs-boot --all-targets -- -D warnings &&
		cargo clippy --quiet --package virtio-fs-boot --profile kernel -- -D warnings
}

scripts() {
	if command -v shellcheck >/dev/null; then shellcheck qemu/*.sh tests/*/*.sh .ci/run; else for script in qemu/*.sh tests/*/*.sh; do bash -n "$script" || return; done; fi
}

# The suites of others on the driver, mounted by Linux: a subset of a minute. Where they cannot be
# had, or not be mounted, that is no failure of the driver's.
suite_tools() {
	if [ "$(id -u)" != 0 ] || [ ! -c /dev/fuse ]; then
		echo "not run: mounting needs root and /dev/fuse"
		return 77
	fi
	TOOLS="$target/tools" tests/suites/tools.sh || { echo "not run: some could not be had"; return 77; }
	echo "1 passed, 0 failed"
}
suites() {
	cargo build --quiet --release --package virtio-fs-mount && tests/suites/run.sh --short ${SEED:+--seed "$SEED"}
}

# A stage may be one of the functions above, in a process of its own for timeout.
if [ "${1:-}" = --stage ]; then
	"$2"
	exit
fi

single format 'format' cargo fmt --all --check
single lints 'lints' "$0" --stage lints
single docs 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps --document-private-items
single driver 'the driver alone, every combination of features' "$0" --stage driver
single scripts 'scripts' "$0" --stage scripts

if [ "${1:-}" != check ]; then
	# What follows needs these; where one fails, the stage after it says so, too.
	single tools 'QEMU and virtiofsd' env TOOLS="$target/tools" qemu/tools.sh
	single daemon 'the DAX daemon' cargo build --quiet --package virtio-fs-daxd
	stage host 'tests on the host' cargo test --quiet --workspace --no-fail-fast
	sum $?
	single kernel 'the test kernel' cargo kernel --quiet
	single runner 'the runner' cargo build --quiet --release --package virtio-fs-run
	# shellcheck disable=SC2086
	stage guest 'the test kernel in QEMU, virtiofsd killed in between' "$target/release/virtio-fs-run" test --restart-daemon --timeout 300 --junit "$logs/guest.xml" \
		${SEED:+--seed "$SEED"} ${SMP:+--smp "$SMP"} ${ACCEL:+--accel "$ACCEL"} ${LOG:+--log "$LOG"} ${ARGS:-}
	sum $?
	# shellcheck disable=SC2086
	stage window 'the test kernel in QEMU, with a small DAX window' "$target/release/virtio-fs-run" test --only DAX --timeout 120 \
		--daemon dax --window 8M --smp "${SMP:-2}" --junit "$logs/window.xml" ${SEED:+--seed "$SEED"} ${ACCEL:+--accel "$ACCEL"} ${LOG:+--log "$LOG"} ${ARGS:-}
	sum $?
	optional suite-tools 'suites of others' "$0" --stage suite_tools
	optional suites 'suites of others on a mount, a short subset' "$0" --stage suites
	# shellcheck disable=SC2086
	stage torture 'threads at large files in small DAX windows' "$target/release/virtio-fs-run" torture --timeout 120 \
		--junit "$logs/torture.xml" ${SEED:+--seed "$SEED"} ${ACCEL:+--accel "$ACCEL"} ${LOG:+--log "$LOG"}
	sum $?
	stage example 'a kernel of another package, with tests of its own' tests/example-kernel/test.sh ${ACCEL:+--accel "$ACCEL"}
	sum $?
fi

[ "$skipped" = 0 ] || echo "$skipped stages left out, for the reasons above"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
