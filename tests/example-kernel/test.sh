#!/bin/bash
# Builds the example and looks at what its test run says: with tests that pass, and on a share
# that nobody may write to, where one must fail. Needs the runner, QEMU and virtiofsd
# (make runner tools). Further arguments go to the runner, --accel tcg for example.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-target}
here=tests/example-kernel
results=$target/example-kernel
passed=0 failed=0
mkdir -p "$results/share/with/entries"

cargo fmt --check --manifest-path $here/Cargo.toml
cargo clippy --quiet --manifest-path $here/Cargo.toml --profile kernel --target-dir "$target" -- -D warnings
cargo build --quiet --manifest-path $here/Cargo.toml --profile kernel --target-dir "$target"

# run NAME ARGUMENTS...: the table on the share; leaves status and the files NAME.tap and NAME.xml.
run() {
	local name=$1
	shift
	status=0
	"$target/release/virtio-fs-run" test --kernel "$target/kernel/example-kernel" --share "$results/share" --timeout 100 \
		--tap "$results/$name.tap" --junit "$results/$name.xml" "$@" >"$results/$name.log" 2>&1 || status=$?
	# In the log of this script, but not as its own lines.
	sed "s/^/$name | /" "$results/$name.log"
}
# expect WHAT COMMAND...
expect() {
	local what=$1
	shift
	if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)) && echo "FAILED: $what"; fi
}
has() { grep -qF -- "$2" "$results/$1"; }

run good --only example --append depth=4 "$@"
expect 'tests that pass end with status 0' [ "$status" = 0 ]
expect 'TAP tells of them' has good.tap 'ok 2 - guest: example: a file at the end of a deep path is read back'
expect 'JUnit counts them' has good.xml '<testsuite name="virtio-fs" tests="3" failures="0"'
expect 'they worked on the share, and cleaned up' [ "$(find "$results/share" | wc -l)" = 3 ]

run bad --only example --daemon-arg --readonly "$@"
expect 'a test that fails ends with status 210' [ "$status" = 210 ]
expect 'TAP tells of it' has bad.tap 'not ok 2 - guest: example: a file at the end of a deep path is read back'
expect 'JUnit gives the reason' has bad.xml '<failure message="EROFS'
expect 'the other one passes' has bad.tap "ok 1 - guest: example: the share's root is a directory with entries"

run usage --only example --append depth=none "$@"
expect 'a word that the kernel does not understand is a failure' [ "$status" = 210 ]
expect 'JUnit says so' has usage.xml 'status 64'

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
