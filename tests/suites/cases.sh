# The suites, one function each; sourced by run.sh. A function gets an empty
# directory and tells on descriptor 3 what became of each case: "pass NAME",
# "fail NAME", "skip NAME"; and figures worth comparing: "figure NAME VALUE".
# All other output is a log.
#
# From run.sh: bin, the programs; here, this folder; work, a folder for files
# beside the directory; short, empty or 1; seed.
# shellcheck shell=bash disable=SC2154,SC2016

# verdict NAME STATUS; a status of 77 says that the case does not apply.
verdict() {
	case $2 in
	0) echo "pass $1" >&3 ;;
	77) echo "skip $1" >&3 ;;
	*) echo "status $2"; echo "fail $1" >&3 ;;
	esac
}

# one NAME SECONDS COMMAND...: a case that is a command, bounded in time.
one() {
	local name=$1 seconds=$2 status=0
	shift 2
	echo "== $name: $*"
	timeout --kill-after=5 "$seconds" "$@" 3>&- || status=$?
	verdict "$name" "$status"
}

# Some 400 cases of what POSIX says about system calls on files.
suite_pjdfstest() {
	chmod 777 "$1"
	timeout --kill-after=5 300 "$bin/pjdfstest" -c "$here/pjdfstest.toml" -p "$1" >"$work/pjdfstest" 2>&1
	cat "$work/pjdfstest"
	sed -nE 's/^(\S+) +ok$/pass \1/p; s/^(\S+) +FAILED$/fail \1/p; s/^(\S+) +skipped$/skip \1/p' "$work/pjdfstest" >&3
	grep -q '^Summary' "$work/pjdfstest"
	verdict to-its-end $?
}

# Random operations on one file, each read compared with what must be there.
suite_fsx() {
	local ops=${short:+1500} kind
	for kind in all io; do
		one "$kind-fixed-seed" 300 "$bin/fsx" -q -N "${ops:-30000}" -S 42 -P "$work" -f "$here/fsx-$kind.toml" "$1/$kind"
		[ -z "$short" ] || [ "$kind" = all ] || continue
		one "$kind-fresh-seed" 300 "$bin/fsx" -q -N "${ops:-30000}" -S "$seed" -P "$work" -f "$here/fsx-$kind.toml" "$1/$kind"
	done
}

# Stress of one system call after the other, with checks of what came out.
suite_stress-ng() {
	local stressor list seconds=2 status
	list=$("$bin/stress-ng" --class 'filesystem?' 2>&1 | sed -n 's/^class .* stressors: //p')
	list+=" aio fault mmap mmapfork mmapmany msync readahead revio seek sendfile splice"
	if [ -n "$short" ]; then
		list="chmod copy-file dentry dir fallocate hdd link lockf rename symlink xattr mmap"
		seconds=1
	fi
	for stressor in $list; do
		case $stressor in
		# They work on the whole machine and not on the directory.
		bind-mount | binderfs | procfs | eventfd | ioprio) continue ;;
		esac
		echo "== $stressor"
		status=0
		timeout --kill-after=5 200 "$bin/stress-ng" "--$stressor" 2 -t "$seconds" --verify --oomable --mmap-file \
			--temp-path "$1" 3>&- || status=$?
		# 3 and 4: not enough resources, not implemented.
		case $status in 3 | 4) status=77 ;; esac
		verdict "$stressor" "$status"
		rm -rf "$1"/tmp-stress-ng-*
	done
}

# Data written in every way there is, read back and compared.
suite_fio() {
	local engine direct size=${short:+16m}
	for engine in psync pvsync2 mmap libaio; do
		[ "$engine" = libaio ] && direct=1 || direct=0
		one "$engine" 120 "$bin/fio" --name="$engine" --directory="$1" --ioengine="$engine" --rw=randwrite --bs=4k-64k \
			--bs_unaligned=$((1 - direct)) --direct=$direct --iodepth=8 \
			--size="${size:-64m}" --numjobs=2 --verify=crc32c --verify_fatal=1 --do_verify=1 --end_fsync=1 --randseed="$seed" \
			--group_reporting
		rm -f "$1/$engine".*
	done
}

suite_dbench() {
	one clients-2 60 "$bin/dbench" -c "$bin/../packages/usr/share/dbench/client.txt" -D "$1" -t 10 2 >"$work/dbench" 2>&1
	cat "$work/dbench"
	sed -nE 's|^Throughput ([0-9.]+) MB/sec.*|figure MB/s \1|p' "$work/dbench" >&3
}

suite_fs_mark() {
	one files-2000 120 "$bin/fs_mark" -d "$1" -n 2000 -s 4096 -S 0 -l "$work/fs_mark.log" >"$work/fs_mark" 2>&1
	cat "$work/fs_mark"
	awk '$1 ~ /^[0-9]+$/ && NF >= 5 { print "figure files/s " $4 }' "$work/fs_mark" >&3
}

suite_postmark() {
	printf '%s\n' "set location $1" 'set number 500' 'set transactions 5000' 'set size 500 20000' run quit >"$work/postmark.cfg"
	one transactions-5000 200 "$bin/postmark" "$work/postmark.cfg" >"$work/postmark" 2>&1
	cat "$work/postmark"
	sed -nE 's|^\s+[0-9]+ seconds of transactions \(([0-9]+) per second\)|figure transactions/s \1|p' "$work/postmark" >&3
}

suite_bonnie() {
	# -f leaves out its hundreds of millions of one-byte calls.
	one fast 300 "$bin/bonnie++" -d "$1" -u root -s 256M -r 128M -n 4 -f -q
}

# This very repository: cloned, checked, built.
suite_project() {
	one git-clone 120 git clone --quiet --no-hardlinks "$root" "$1/clone"
	one git-fsck 120 git -C "$1/clone" fsck --full --strict
	one git-status 60 test -z "$(git -C "$1/clone" status --porcelain)"
	one cargo-build 400 env -u CARGO_TARGET_DIR cargo build --offline --quiet -j2 --manifest-path "$1/clone/Cargo.toml"
	# Everything is up to date: time stamps have kept their order.
	one cargo-again 60 bash -c 'out=$(env -u CARGO_TARGET_DIR cargo build --offline --manifest-path "$0" 2>&1) && ! grep Compiling <<<"$out"' "$1/clone/Cargo.toml"
	one copy-and-compare 120 bash -c 'cp -a "$0" "$0.copy" && diff -r --no-dereference "$0" "$0.copy"' "$1/clone"
}
