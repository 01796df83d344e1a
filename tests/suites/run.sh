#!/bin/bash
# Runs the test suites of others on the driver, mounted through /dev/fuse, and
# on two other grounds beside it, so that a limit of the server or of FUSE is
# not taken for one of the driver:
#
#     local     the bare directory, on a bounded image
#     bindfs    a plain passthrough mount of it
#     auto, always, never    the driver on virtiofsd with that cache policy
#     dax       the driver on the daemon with a DAX window
#
#     tests/suites/run.sh [--short] [--grounds "G..."] [--suites "S..."] [--seed N]
#
# Prints a table: cases passed, failed, skipped, seconds, and for the driver's
# mounts how many requests it sent. The same goes to target/suites/results.tsv
# and, figures included, to target/suites/results.json; logs lie beside them.
#
# Exit status: 0 if no case failed that passes on the bare directory, but for
# those in the file "exclusions"; 1 otherwise; 77 where nothing can be run: it
# needs root, for mounting, and /dev/fuse. Leaves no mount behind, whatever the end.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$(cd "$root" && mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
tools=${TOOLS:-$target/tools}
bin=$tools/suites/bin
out=$target/suites
short='' seed=$((RANDOM * 32768 + RANDOM))
grounds="local bindfs auto always never dax"
suites="pjdfstest fsx stress-ng fio dbench fs_mark postmark bonnie project"
while [ $# -gt 0 ]; do
	case $1 in
	# What make test runs: about a minute. Shorter suites alone: --short --grounds ... --suites ...
	--short) short=1 grounds="local auto" suites="pjdfstest fsx stress-ng fio" ;;
	--grounds) grounds=$2 && shift ;;
	--suites) suites=$2 && shift ;;
	--seed) seed=$2 && shift ;;
	*) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
	esac
	shift
done
# Failures are measured against it.
case " $grounds " in *' local '*) ;; *) grounds="local $grounds" ;; esac
# shellcheck source=tests/suites/cases.sh
. "$here/cases.sh"

say() { printf 'suites: %s\n' "$*" >&2; }
[ "$(id -u)" = 0 ] || { say "not run: mounting needs root"; exit 77; }
[ -c /dev/fuse ] || { say "not run: there is no /dev/fuse"; exit 77; }
# A suite that could not be had is left out, and counted as such.
missing='' have=''
for suite in $suites; do
	case $suite in
	bonnie) program=bonnie++ ;;
	*) program=$suite ;;
	esac
	if [ -x "$bin/$program" ] || [ "$suite" = project ]; then have+=" $suite"; else missing+=" $suite"; fi
done
[ -z "$missing" ] || say "not run, because they are not there (tests/suites/tools.sh gets them):$missing"
suites=$have
[ -n "$suites" ] || { say "not run: no suite is there"; exit 77; }
[ -x "$bin/bindfs" ] || grounds=${grounds/bindfs/}

mount=${MOUNT:-$target/release/virtio-fs-mount}
[ -x "$mount" ] || { say "no $mount; make suites builds it"; exit 2; }
: "${VIRTIOFSD:=$tools/bin/virtiofsd}" "${VIRTIO_FS_DAXD:=$target/release/virtio-fs-daxd}"
export VIRTIOFSD VIRTIO_FS_DAXD

rm -rf "$out" && mkdir -p "$out"
place=$(mktemp -d /tmp/virtio-fs-suites.XXXXXX)
share=$place/share mnt=$place/mnt work=$place/work
mkdir "$share" "$mnt" "$work"
server='' running=''

# Whoever still uses the mount keeps it from ending; a lazy unmount does not mind.
leave() {
	cd / || true
	if mountpoint -q "$mnt"; then umount "$mnt" 2>/dev/null || umount -l "$mnt"; fi
	if [ -n "$server" ]; then
		for _ in {1..50}; do kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
		kill -KILL "$server" 2>/dev/null
		wait "$server" 2>/dev/null
		server=
	fi
}
finish() {
	trap '' INT TERM HUP
	[ -z "$running" ] || { kill -- "-$running" 2>/dev/null; sleep 0.5; kill -KILL -- "-$running" 2>/dev/null; }
	leave
	if mountpoint -q "$share"; then umount "$share" 2>/dev/null || umount -l "$share"; fi
	rm -rf --one-file-system "$place"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# What the suites fill is bounded: an image of its own, in memory where no loop
# device can be had.
truncate -s 4G "$place/image"
if ! { mkfs.ext4 -q -F -m 0 "$place/image" && mount -o loop "$place/image" "$share"; } 2>/dev/null; then
	rm -f "$place/image"
	mount -t tmpfs -o size=3g virtio-fs-suites "$share" || exit 2
fi
chmod 755 "$place" "$mnt"

# enter GROUND: makes $mnt show the share.
enter() {
	local log=$out/$2.$1.mount
	case $1 in
	local) mount --bind "$share" "$mnt" && return ;;
	bindfs) "$bin/bindfs" -f -o allow_other,default_permissions "$share" "$mnt" >"$log" 2>&1 & ;;
	# Linux believes nothing, so that the driver is asked.
	dax) "$mount" --daemon dax --lifetime 0 --counters "$share" "$mnt" >"$log" 2>&1 & ;;
	*) "$mount" --cache "$1" --lifetime 0 --counters "$share" "$mnt" >"$log" 2>&1 & ;;
	esac
	server=$!
	for _ in {1..100}; do
		mountpoint -q "$mnt" && return
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	say "$1: $(tail -n 3 "$log")"
	return 1
}

# excluded GROUND SUITE/CASE
excluded() {
	local ground case
	while read -r ground case; do
		# shellcheck disable=SC2053
		if [[ $1 == $ground && $2 == $case ]]; then return 0; fi
	done < <(grep -v '^#' "$here/exclusions")
	return 1
}

new=0
: >"$out/figures"
printf 'suite\tground\tpassed\tfailed\texcluded\tskipped\tseconds\trequests\n' >"$out/results.tsv"
say "seed $seed; logs in $out"
printf '%-10s %-7s %7s %7s %9s %8s %8s %9s  %s\n' suite ground passed failed excluded skipped seconds requests figures
for suite in $suites; do
	for ground in $grounds; do
		[ "$ground" != dax ] || [ -x "$VIRTIO_FS_DAXD" ] || continue
		results=$out/$suite.$ground
		begun=$SECONDS
		if enter "$ground" "$suite"; then
			mkdir "$mnt/run"
			# A group of its own, so that its end reaches all that a suite started.
			set -m
			(cd "$work" && "suite_$suite" "$mnt/run") 3>"$results" >"$results.log" 2>&1 </dev/null &
			running=$!
			set +m
			wait "$running"
			running=
			kill -0 "${server:-$$}" 2>/dev/null || echo "fail mount-survives" >>"$results"
		else
			echo "fail mounts" >"$results"
		fi
		leave
		seconds=$((SECONDS - begun))
		rm -rf "$share/run" "${work:?}"/*
		grep -qE 'ERROR|panicked' "$results.mount" 2>/dev/null && echo "fail no-errors-logged" >>"$results"
		bad=0 excused=0 names=
		while read -r _ name; do
			if [ "$ground" != local ] && grep -qx "fail $name" "$out/$suite.local"; then
				excused=$((excused + 1)) # the bare directory has it, too
			elif excluded "$ground" "$suite/$name"; then
				excused=$((excused + 1))
			else
				bad=$((bad + 1)) names+=" $name"
			fi
		done < <(grep '^fail ' "$results")
		case $ground in local | bindfs) ;; *) new=$((new + bad)) ;; esac
		passed=$(grep -c '^pass ' "$results") skipped=$(grep -c '^skip ' "$results")
		requests=$(sed -n 's/^requests //p' "$results.mount" 2>/dev/null)
		figures=$(sed -n 's/^figure \(\S*\) \(.*\)/\2 \1/p' "$results" | paste -sd, -)
		printf '%-10s %-7s %7d %7d %9d %8d %8d %9s  %s\n' "$suite" "$ground" "$passed" "$bad" "$excused" "$skipped" "$seconds" \
			"${requests:--}" "$figures"
		[ -z "$names" ] || printf '%18s failed:%s\n' '' "$(fold -s -w 100 <<<"$names" | head -n 3)"
		printf '%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n' "$suite" "$ground" "$passed" "$bad" "$excused" "$skipped" "$seconds" \
			"${requests:-}" >>"$out/results.tsv"
		sed -n "s/^figure \(\S*\) \(.*\)/$suite\t$ground\t\1\t\2/p" "$results" >>"$out/figures"
	done
done

awk -F '\t' -v seed="$seed" '
	FNR == NR { if (FNR > 1) row[++n] = sprintf("{\"suite\":\"%s\",\"ground\":\"%s\",\"passed\":%d,\"failed\":%d,\"excluded\":%d,\"skipped\":%d,\"seconds\":%d,\"requests\":%d}", $1, $2, $3, $4, $5, $6, $7, $8); next }
	{ fig[++m] = sprintf("{\"suite\":\"%s\",\"ground\":\"%s\",\"name\":\"%s\",\"value\":%s}", $1, $2, $3, $4) }
	END {
		printf "{\"seed\":%s,\"results\":[", seed
		for (i = 1; i <= n; i++) printf "%s%s", (i > 1 ? "," : ""), row[i]
		printf "],\"figures\":["
		for (i = 1; i <= m; i++) printf "%s%s", (i > 1 ? "," : ""), fig[i]
		print "]}"
	}' "$out/results.tsv" "$out/figures" >"$out/results.json"
rm -f "$out/figures"
# The form in which `make test` sums up.
total=$(awk -F '\t' 'NR > 1 && $2 != "local" && $2 != "bindfs" { p += $3 } END { print p + 0 }' "$out/results.tsv")
echo "$total passed, $new failed"
[ "$new" = 0 ]
