#!/bin/bash
# Gets the two programs that a run needs and that a fresh machine lacks: a QEMU
# with vhost-user shared memory (for the DAX window) and virtiofsd.
#
#     qemu/tools.sh [qemu] [virtiofsd] [linux]    the first two when none is named
#
# Leaves target/tools/bin/qemu-system-x86_64 and target/tools/bin/virtiofsd; for
# the benchmark, the kernel of a Linux guest: target/tools/linux/vmlinuz.
# Takes what is installed when it is new enough. Otherwise nothing outside
# target/tools is changed and no root is needed: QEMU is unpacked from packages
# of the archive that this machine's own apt is set up for (another suite of
# it), and apt itself checks the signatures; virtiofsd is built by cargo.
#
# From the environment: QEMU and VIRTIOFSD, programs to be used instead, and
# LINUX, a kernel; TOOLS, the folder (target/tools).
#
# A tool is put together under a name ending in ".new" and renamed when it has
# run once, so an interrupted run leaves nothing half done; a lock lets several
# calls run at once.
set -euo pipefail

# vhost-user shared memory came with QEMU 11.1. Everything but DAX=… needs only
# memory-backend-memfd and vhost-user-fs-pci with PVH boot: 5.2 has them all.
qemu_want=11.1 qemu_least=5.2
virtiofsd_want=1.14.0 virtiofsd_least=1.10

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TOOLS:-$here/target/tools}
mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd)

say() { printf 'tools: %s\n' "$*" >&2; }
# at_least HAVE WANT: compares version numbers.
at_least() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
# Versions as the programs tell them; empty when they do not run.
qemu_version() { "$1" --version 2>/dev/null </dev/null | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p' || true; }
# The C virtiofsd that came with QEMU up to 7.2 says "virtiofsd version": not wanted.
virtiofsd_version() { "$1" --version 2>/dev/null </dev/null | sed -n 's/^virtiofsd \([0-9.]*\)$/\1/p' || true; }

# ---------------------------------------------------------------- packages

# The machine's archive, from its own apt configuration; with no lists there
# (containers remove them) apt names no target, so they are got privately first.
archive() {
	local format="\$(REPO_URI)" uri
	uri=$(apt-get indextargets --format "$format" 'Created-By: Packages' 'Component: main' 2>/dev/null |
		grep -v -i -e security -e ports | head -n 1 || true)
	if [ -z "$uri" ]; then
		own_suites
		uri=$(apt-get "${apt[@]}" indextargets --format "$format" 'Created-By: Packages' 'Component: main' 2>/dev/null |
			grep -v -i -e security -e ports | head -n 1 || true)
	fi
	printf '%s' "$uri"
}

# Points apt at state folders of its own: an empty system of which it knows no
# package, so a download brings every library that is needed.
apt_folders() {
	state=$tools/apt
	mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/log" "$state/dpkg"
	: >"$state/dpkg/status"
	apt=(-q -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Sandbox::User=root
		-o APT::Install-Recommends=false -o APT::Get::Assume-Yes=true -o Acquire::Languages=none
		-o Acquire::Retries=3 -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
		-o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false
		-o Dir::State="$state" -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/dpkg/status"
		-o Dir::State::extended_states="$state/extended" -o Dir::Cache="$state/cache" -o Dir::Log="$state/log"
		-o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null)
}

apt_update() {
	apt-get "${apt[@]}" update >"$state/log/update" 2>&1 ||
		{ say "apt: $(grep '^[EW]:' "$state/log/update" | head -n 3 | tr '\n' ' ')"; return 1; }
}

# The suites that the machine itself is set up for.
own_suites() {
	apt_folders
	apt_update || true # one broken third-party source must not end it
}

# suites SUITE...: those of the machine's archive. The key ring is named where
# the distribution keeps it; otherwise the keys that apt trusts anyway count.
suites() {
	local uri suite ring signed='' components=main
	uri=$(archive)
	[ -n "$uri" ] || { say "apt is set up for no archive with a component \"main\""; return 1; }
	apt_folders
	for ring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[ "$family" = debian ] && [ -e "$ring" ] && signed="[signed-by=$ring] "
	done
	if [ "$family" = ubuntu ]; then
		ring=/usr/share/keyrings/ubuntu-archive-keyring.gpg components='main universe'
		[ -e "$ring" ] && signed="[signed-by=$ring] "
	fi
	for suite; do echo "deb $signed$uri $suite $components"; done >"$state/sources.list"
	apt+=(-o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null)
	# The last one named wins, also where it is a backports suite.
	apt+=(-o APT::Default-Release="${*: -1}")
	apt_update
}

# The version of a package that would be taken.
candidate() { apt-cache "${apt[@]}" policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \(.*\)/\1/p' | grep -v '(none)' || true; }
upstream() { sed -e 's/^[0-9]*://' -e 's/[+~-].*//' <<<"$1"; }

# unpack FOLDER PACKAGE: the package with all it depends on.
unpack() {
	local to=$1 package=$2 deb
	rm -rf "$state/cache/archives" && mkdir -p "$state/cache/archives/partial"
	if [ -t 2 ]; then
		apt-get "${apt[@]}" --quiet=0 install --download-only "$package" >&2 || return 1
	else
		apt-get "${apt[@]}" install --download-only "$package" >"$state/log/download" 2>&1 ||
			{ say "apt: $(grep '^E:' "$state/log/download" | head -n 3 | tr '\n' ' ')"; return 1; }
		grep -E '^(Need to get|Fetched)' "$state/log/download" | sed 's/^/tools:   /' >&2 || true
	fi
	mkdir -p "$to"
	for deb in "$state"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$to" || return 1; done
	rm -rf "$state/cache/archives" "$to"/usr/share/{doc,man,locale,info,lintian}
}

# wrap NAME PROGRAM [ARGUMENT...]: the command that starts a program out of its
# unpacked folder with the libraries (and the loader) that came with it. In
# arguments, @ stands for the folder.
wrap() {
	local name=$1 program=$2 loader
	shift 2
	loader=$(cd "$tools/$name.new" && find . -name ld-linux-x86-64.so.2 -type f | head -n 1)
	[ -n "$loader" ] || { say "$name: no loader among the packages"; return 1; }
	{
		echo '#!/bin/sh'
		echo '# Starts the private copy beside this folder; written by qemu/tools.sh.'
		# shellcheck disable=SC2016
		echo 'r=$(dirname "$(dirname "$(readlink -f "$0")")")/'"$name"
		# shellcheck disable=SC2016
		printf 'exec "$r/%s" --library-path "$r/usr/lib/x86_64-linux-gnu:$r/lib/x86_64-linux-gnu" "$r/%s"' "$loader" "$program"
		printf ' %s' "${@//@/\$r}"
		# shellcheck disable=SC2016
		echo ' "$@"'
	} >"$tools/$name.new/start"
	chmod +x "$tools/$name.new/start"
}

# finish NAME COMMAND: puts NAME.new into its place, the command last, and
# tries it; one that does not run is not left there.
finish() {
	rm -rf "${tools:?}/$1"
	mv "$tools/$1.new" "$tools/$1"
	mv "$tools/$1/start" "$tools/bin/$2.new"
	mv "$tools/bin/$2.new" "$tools/bin/$2"
	"$tools/bin/$2" --version >/dev/null 2>&1 </dev/null && return
	say "this $1 does not run here: $("$tools/bin/$2" --version 2>&1 </dev/null | head -n 1)"
	rm -rf "${tools:?}/bin/$2" "${tools:?}/$1"
	return 1
}

# ---------------------------------------------------------------- QEMU

# qemu_from SUITE...: from these suites of the archive; "own": the machine's.
qemu_from() {
	local found
	if [ "$1" = own ]; then own_suites; else suites "$@" || return 1; fi
	found=$(upstream "$(candidate qemu-system-x86)")
	[ -n "$found" ] || { say "no package qemu-system-x86 in: $*"; return 1; }
	# An older one only if nothing newer turned up, and newer than what is there.
	at_least "$found" "$qemu_accept" || { say "QEMU $found in \"$*\" is older than $qemu_accept"; return 1; }
	say "getting QEMU $found ($*) into $tools/qemu; some 40 MB"
	rm -rf "$tools/qemu.new"
	unpack "$tools/qemu.new" qemu-system-x86 || return 1
	wrap qemu usr/bin/qemu-system-x86_64 -L '"@/usr/share/qemu"' -L '"@/usr/share/seabios"' || return 1
	finish qemu qemu-system-x86_64
}

get_qemu() {
	local bin=$tools/bin/qemu-system-x86_64 have system system_version
	if [ -n "${QEMU:-}" ]; then
		have=$(qemu_version "$QEMU")
		[ -n "$have" ] || { say "QEMU=$QEMU does not run as qemu-system-x86_64"; return 1; }
		ln -sfn "$(command -v "$QEMU")" "$bin"
		return
	fi
	have=$(qemu_version "$bin")
	at_least "$have" "$qemu_want" && return
	# The best that could be had when it was last looked for: look no more.
	[ -n "$have" ] && [ "$(cat "$tools/qemu.newest" 2>/dev/null)" = "$have" ] && return
	system=$(command -v qemu-system-x86_64 || true)
	[ -n "$system" ] && system_version=$(qemu_version "$system") || system_version=
	if at_least "$system_version" "$qemu_want"; then
		say "using QEMU $system_version, $system"
		ln -sfn "$system" "$bin"
		return
	fi
	rm -f "$bin" "$tools/qemu.newest"
	if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
		qemu_accept=$qemu_want
		case $family in
		debian) qemu_from trixie trixie-backports || qemu_from sid || true ;;
		# "devel" is always the release to come, with the newest QEMU there is.
		ubuntu) qemu_from own || qemu_from devel || true ;;
		*) qemu_from own || true ;;
		esac
		[ -x "$bin" ] && return
		if ! at_least "$system_version" "$qemu_least"; then
			qemu_accept=$qemu_least
			qemu_from own || true
		fi
	else
		say "apt-get or dpkg-deb is missing: no private QEMU"
	fi
	if [ ! -x "$bin" ] && at_least "$system_version" "$qemu_least"; then ln -sfn "$system" "$bin"; fi
	have=$(qemu_version "$bin")
	if [ -z "$have" ]; then
		say "no QEMU: none installed, and none could be fetched (see above)."
		say "type:   sudo apt-get install qemu-system-x86      or: make tools QEMU=/path/to/qemu-system-x86_64"
		return 1
	fi
	echo "$have" >"$tools/qemu.newest"
	say "QEMU $have is the newest that could be had; DAEMON=dax needs $qemu_want, everything else works"
}

# ---------------------------------------------------------------- virtiofsd

# Links with libseccomp and libcap-ng. Where their development packages are not
# installed, they are unpacked beside and linked statically, out of the
# machine's own suites: a static library of a newer release needs a newer libc.
virtiofsd_built() {
	local build=$tools/virtiofsd.build libs
	command -v cargo >/dev/null || { say "virtiofsd: no cargo here"; return 1; }
	rm -rf "$build" "$tools/virtiofsd.new"
	mkdir -p "$build"
	local -a env=()
	if ! echo 'int main(void) { return 0; }' | cc -x c - -o "$build/try" -lcap-ng -lseccomp 2>/dev/null; then
		if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
			say "virtiofsd: libcap-ng and libseccomp (development files) are missing"
			return 1
		fi
		say "getting libcap-ng-dev and libseccomp-dev into $build"
		own_suites
		(cd "$build" && apt-get "${apt[@]}" download libcap-ng-dev libseccomp-dev >"$state/log/download" 2>&1) ||
			{ say "apt: $(grep '^E:' "$state/log/download" | head -n 2 | tr '\n' ' ')"; return 1; }
		for deb in "$build"/*.deb; do dpkg-deb -x "$deb" "$build/dev" || return 1; done
		libs=$(dirname "$(find "$build/dev" -name libseccomp.a | head -n 1)")
		[ -e "$libs/libcap-ng.a" ] || { say "virtiofsd: the development packages hold no static libraries"; return 1; }
		env=(LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH="$libs" LIBCAPNG_LINK_TYPE=static LIBCAPNG_LIB_PATH="$libs")
	fi
	say "building virtiofsd $virtiofsd_want (cargo install, about a minute)"
	# From outside the workspace: its cargo settings are not meant for others.
	(cd "$build" && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET \
		-u MAKEFLAGS -u MFLAGS -u CARGO_MAKEFLAGS "${env[@]}" \
		cargo install virtiofsd --version "$virtiofsd_want" --locked --no-track --quiet \
		--root "$tools/virtiofsd.new" --target-dir "$build/target") || { rm -rf "$build"; return 1; }
	rm -rf "$build"
	mv "$tools/virtiofsd.new/bin/virtiofsd" "$tools/virtiofsd.new/start"
	finish virtiofsd virtiofsd
}

virtiofsd_from() {
	local found program
	if [ "$1" = own ]; then own_suites; else suites "$@" || return 1; fi
	found=$(upstream "$(candidate virtiofsd)")
	at_least "$found" "$virtiofsd_least" || { say "virtiofsd ${found:-(none)} in \"$*\" is older than $virtiofsd_least"; return 1; }
	say "getting virtiofsd $found ($*) into $tools/virtiofsd"
	rm -rf "$tools/virtiofsd.new"
	unpack "$tools/virtiofsd.new" virtiofsd || return 1
	program=$(cd "$tools/virtiofsd.new" && find usr/libexec usr/lib -name virtiofsd -type f 2>/dev/null | head -n 1)
	wrap virtiofsd "$program" || return 1
	finish virtiofsd virtiofsd
}

get_virtiofsd() {
	local bin=$tools/bin/virtiofsd have system best='' best_version=''
	if [ -n "${VIRTIOFSD:-}" ]; then
		[ -n "$(virtiofsd_version "$VIRTIOFSD")" ] || { say "VIRTIOFSD=$VIRTIOFSD does not run as virtiofsd"; return 1; }
		ln -sfn "$(command -v "$VIRTIOFSD")" "$bin"
		return
	fi
	have=$(virtiofsd_version "$bin")
	at_least "$have" "$virtiofsd_want" && return
	[ -n "$have" ] && [ "$(cat "$tools/virtiofsd.newest" 2>/dev/null)" = "$have" ] && return
	rm -f "$bin" "$tools/virtiofsd.newest"
	for system in "$(command -v virtiofsd || true)" /usr/libexec/virtiofsd /usr/lib/qemu/virtiofsd; do
		[ -x "$system" ] || continue
		have=$(virtiofsd_version "$system")
		if at_least "$have" "$virtiofsd_want"; then
			say "using virtiofsd $have, $system"
			ln -sfn "$system" "$bin"
			return
		fi
		if at_least "$have" "${best_version:-$virtiofsd_least}"; then best=$system best_version=$have; fi
	done
	virtiofsd_built && return
	if [ -z "$best" ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
		case $family in
		debian) virtiofsd_from sid || virtiofsd_from trixie || true ;;
		*) virtiofsd_from own || true ;;
		esac
	elif [ -n "$best" ]; then
		ln -sfn "$best" "$bin"
	fi
	have=$(virtiofsd_version "$bin")
	if [ -z "$have" ]; then
		say "no virtiofsd: none installed, and it could be neither built nor fetched (see above)."
		say "type:   sudo apt-get install libcap-ng-dev libseccomp-dev && make tools      or: make tools VIRTIOFSD=/path/to/virtiofsd"
		return 1
	fi
	echo "$have" >"$tools/virtiofsd.newest"
	at_least "$have" "$virtiofsd_want" || say "virtiofsd $have is older than $virtiofsd_want, which the tests were written for"
}

# ---------------------------------------------------------------- Linux

# Debian's kernel for virtual machines: virtio-fs and DAX are built in, so that no
# module must be loaded.
linux_from() {
	local image file want
	suites "$1" || return 1
	image=$(apt-cache "${apt[@]}" depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*-cloud-amd64\)$/\1/p' | head -n 1)
	[ -n "$image" ] || { say "no kernel for virtual machines in $1"; return 1; }
	say "getting $image ($1) into $tools/linux; some 35 MB"
	rm -rf "$tools/linux.new"
	mkdir -p "$tools/linux.new/deb"
	(cd "$tools/linux.new/deb" && apt-get "${apt[@]}" download "$image" >"$state/log/download" 2>&1) ||
		{ say "apt: $(grep '^E:' "$state/log/download" | head -n 2 | tr '\n' ' ')"; return 1; }
	for file in "$tools/linux.new/deb"/*.deb; do dpkg-deb -x "$file" "$tools/linux.new/deb" || return 1; done
	mv "$tools"/linux.new/deb/boot/vmlinuz-* "$tools/linux.new/vmlinuz"
	mv "$tools"/linux.new/deb/boot/config-* "$tools/linux.new/config"
	rm -rf "$tools/linux.new/deb"
	for want in VIRTIO_PCI VIRTIO_FS FUSE_DAX; do
		grep -q "^CONFIG_$want=y" "$tools/linux.new/config" || { say "$image is built without $want"; return 1; }
	done
	rm -rf "$tools/linux"
	mv "$tools/linux.new" "$tools/linux"
}

get_linux() {
	if [ -n "${LINUX:-}" ]; then
		[ -e "$LINUX" ] || { say "there is no kernel LINUX=$LINUX"; return 1; }
		mkdir -p "$tools/linux"
		ln -sfn "$(readlink -f "$LINUX")" "$tools/linux/vmlinuz"
		return
	fi
	[ -e "$tools/linux/vmlinuz" ] && return
	if [ "$family" = debian ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
		linux_from trixie && return
	fi
	say "no Linux guest to compare with: name a kernel with virtio-fs built in, LINUX=/path/to/vmlinuz"
	return 1
}

# ---------------------------------------------------------------- main

[ $# -gt 0 ] || set -- qemu virtiofsd
[ "$(uname -sm)" = "Linux x86_64" ] || { say "only Linux on x86_64 is supported, this is $(uname -sm)"; exit 1; }
# shellcheck source=/dev/null
family=$(. /etc/os-release 2>/dev/null && case " ${ID:-} ${ID_LIKE:-} " in *' ubuntu '*) echo ubuntu ;; *' debian '*) echo debian ;; *) echo other ;; esac)

if command -v flock >/dev/null; then
	exec 9>"$tools/lock"
	flock -n 9 || { say "waiting for another make that fetches tools"; flock 9; }
fi
clean() { rm -rf "$tools"/*.new "$tools"/bin/*.new "$tools/virtiofsd.build" "$tools/apt"; }
clean
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
status=0
for tool; do
	case $tool in
	qemu) get_qemu || status=1 ;;
	virtiofsd) get_virtiofsd || status=1 ;;
	linux) get_linux || status=1 ;;
	*) say "no such tool: $tool (qemu, virtiofsd, linux)"; status=2 ;;
	esac
done
exit "$status"
