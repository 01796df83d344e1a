#!/bin/bash
# Gets the test suites that others wrote: two from crates.io, the others from
# the packages of the distribution. Nothing of them is part of this repository.
#
#     tests/suites/tools.sh [crates] [packages]      both when none is named
#
# Leaves everything in target/tools/suites; nothing outside it is changed and no
# root is needed. Packages are downloaded by the machine's own apt, which checks
# signatures, together with the libraries that the machine lacks, and unpacked.
#
# From the environment: TOOLS, the folder (target/tools).
set -euo pipefail

# name=version, as cargo wants it.
crates=(pjdfstest=0.2.2 fsx=0.3.2)
packages=(stress-ng fio dbench fsmark postmark bonnie++ bindfs)

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
to=${TOOLS:-$here/target/tools}/suites
mkdir -p "$to/bin"
to=$(cd "$to" && pwd)

say() { printf 'suites: %s\n' "$*" >&2; }

get_crates() {
	local crate name version
	for crate in "${crates[@]}"; do
		name=${crate%=*} version=${crate#*=}
		[ "$(cat "$to/$name.version" 2>/dev/null)" = "$version" ] && continue
		say "building $name $version (cargo install, about a minute)"
		# From outside the workspace: its cargo settings are not meant for others.
		(cd "$to" && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET \
			-u MAKEFLAGS -u MFLAGS -u CARGO_MAKEFLAGS \
			cargo install "$name" --version "$version" --locked --no-track --force --quiet -j2 --root "$to" --target-dir "$to/build")
		echo "$version" >"$to/$name.version"
	done
	rm -rf "$to/build"
}

get_packages() {
	local name program state=$to/apt
	local -a apt
	for name in "${packages[@]}"; do
		[ -e "$to/packages/$name" ] || { name=; break; }
	done
	[ -z "$name" ] || return 0
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
		{ say "apt-get or dpkg-deb is missing: install these yourself: ${packages[*]}"; return 1; }
	rm -rf "$state" "$to/packages"
	mkdir -p "$state/lists/partial" "$state/archives/partial" "$to/packages"
	# What the machine has installed need not be fetched again.
	cp /var/lib/dpkg/status "$state/status"
	apt=(-q -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o APT::Get::Assume-Yes=true -o Acquire::Retries=3
		-o Dir::State="$state" -o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status"
		-o Dir::State::extended_states="$state/extended" -o Dir::Cache="$state" -o Dir::Log="$state")
	say "getting ${packages[*]}; some 30 MB"
	apt-get "${apt[@]}" update >"$state/update.log" 2>&1 || true # one broken third-party source must not end it
	apt-get "${apt[@]}" install --reinstall --download-only "${packages[@]}" >"$state/download.log" 2>&1 ||
		{ say "apt: $(grep '^E:' "$state/download.log" | head -n 3 | tr '\n' ' ')"; return 1; }
	for name in "$state"/archives/*.deb; do dpkg-deb -x "$name" "$to/packages"; done
	# Started with the libraries that came along, also those in folders of their own.
	for name in usr/bin/{stress-ng,fio,dbench,fs_mark,postmark,bindfs} usr/sbin/bonnie++; do
		program=$to/bin/${name##*/}
		{
			echo '#!/bin/sh'
			# shellcheck disable=SC2016
			echo 'r=$(dirname "$(dirname "$(readlink -f "$0")")")/packages'
			# shellcheck disable=SC2016
			echo 'l=$r/usr/lib/x86_64-linux-gnu'
			# shellcheck disable=SC2016
			printf 'LD_LIBRARY_PATH=$l:$l/ceph:$r/lib/x86_64-linux-gnu exec "$r/%s" "$@"\n' "$name"
		} >"$program"
		chmod +x "$program"
	done
	for name in "${packages[@]}"; do : >"$to/packages/$name"; done
	rm -rf "$state"
}

[ $# -gt 0 ] || set -- crates packages
if command -v flock >/dev/null; then
	exec 9>"$to/lock"
	flock -n 9 || { say "waiting for another make that fetches suites"; flock 9; }
fi
status=0
for what; do
	case $what in
	crates) get_crates || status=1 ;;
	packages) get_packages || status=1 ;;
	*) say "no such set: $what (crates, packages)"; status=2 ;;
	esac
done
exit "$status"
