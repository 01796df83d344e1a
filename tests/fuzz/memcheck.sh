#!/bin/bash
# The fuzz targets, and with them most of the driver, under valgrind's memcheck: reads of what was
# never written, accesses outside of allocations. Slow, so few executions; --runs-by N for N times
# as many. Needs valgrind; says so with status 77 where there is none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
times=1
if [ "${1:-}" = --runs-by ]; then times=$2; fi
command -v valgrind >/dev/null || { echo "not run: there is no valgrind"; exit 77; }
program=$(cargo test --quiet --package virtio-fs-fuzz --test seeded --no-run --message-format json |
	sed -n 's/.*"executable":"\([^"]*seeded[^"]*\)".*/\1/p')
passed=0 failed=0
while read -r test runs; do
	if FUZZ_PATIENCE=600 FUZZ_RUNS=$((runs * times)) valgrind -q --error-exitcode=9 "$program" "$test" --nocapture </dev/null; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done <<-EOF
	any_reply 1500
	any_directory 1500
	any_device 300
	any_server 30
	caches 10
EOF
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
