#!/usr/bin/env bash
# Runs the tests on the OTP and Elixir of other Debian releases, each in a chroot of its own:
#
#   matrix.sh [trixie|forky]...            all tests there (both releases, when none is named)
#   matrix.sh --prepare [trixie|forky]...  only makes the chroots, which takes minutes of waiting
#   matrix.sh --run trixie COMMAND...      one command in a fresh copy of the tree
#
# trixie has OTP 27 and Elixir 1.18, forky OTP 29 and Elixir 1.20. The chroots are kept outside the
# tree, in ${XDG_CACHE_HOME:-~/.cache}/lineage (about 1 GB each), from one run to the next. Packages
# come from the mirror that this machine's apt uses. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lineage
packages="ca-certificates erlang-base erlang-dev erlang-nox erlang-eunit erlang-common-test
    erlang-tools erlang-runtime-tools elixir rebar3 gcc libc6-dev make git procps libcriterion-dev
    ejabberd clang bpftool libbpf-dev libcap2-bin e2fsprogs"
packages=$(echo $packages)

# The first address that apt here fetches this machine's own release from.
mirror() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    cat /etc/apt/sources.list.d/*.sources /dev/null 2>/dev/null | awk -v release="$codename" '
        function told() { if (suites ~ (" " release "( |$)") && uri != "") { print uri; exit } }
        /^#/ { next }
        /^[[:space:]]*$/ { told(); uri = suites = ""; next }
        /^URIs:/ { uri = $2 }
        /^Suites:/ { suites = " "; for (i = 2; i <= NF; i++) suites = suites $i " " }
        END { told() }' | head -n 1 | grep . && return
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /dev/null 2>/dev/null |
        sed -e 's/\[[^]]*\]//' | awk -v release="$codename" '
        $1 == "deb" && $3 == release { print $2; exit }' | grep . && return
    echo "matrix.sh: no source of $codename is named in /etc/apt/sources.list or sources.list.d" >&2
    return 1
}

# Three tries, since a mirror may fail for a moment.
retry() {
    local try
    for try in 1 2 3; do
        if "$@"; then return 0; fi
        echo "matrix.sh: try $try of 3 failed: $1 $2" >&2
    done
    return 1
}

bootstrap() {
    local release=$1 root=$cache/$1 script=/usr/share/debootstrap/scripts/$1
    # A release that this debootstrap does not know by name yet is made like sid.
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    rm -rf "$root.new"
    mkdir -p "$cache/archives-$release"
    debootstrap --variant=minbase --cache-dir="$cache/archives-$release" "$release" "$root.new" \
        "$mirror" "$script" > "$cache/$release.log" 2>&1 || { tail -n 5 "$cache/$release.log" >&2; return 1; }
}

# enter ROOT COMMAND...: with /proc, /dev and /sys (which the probe needs), in namespaces that end with the command, so that nothing
# stays mounted and no process stays behind.
enter() {
    local root=$1
    shift
    unshare --mount --pid --fork --kill-child sh -c '
        root=$1; shift
        mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
            mount --rbind /sys "$root/sys" || exit 1
        exec chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
            LC_ALL=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive CI="$CI" "$@"' sh "$root" "$@"
}

install_packages() {
    enter "$1" sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages" \
        > "$1.log" 2>&1 || { tail -n 5 "$1.log" >&2; return 1; }
}

prepare() {
    local release=$1 root=$cache/$1
    mkdir -p "$cache"
    exec 9> "$cache/$release.lock"
    flock 9
    if [ ! -e "$root/.bootstrapped" ]; then
        mirror=$(mirror)
        echo "Making a chroot of $release in $root"
        retry bootstrap "$release"
        rm -rf "$root" "$cache/archives-$release"
        mv "$root.new" "$root"
        # A mirror may be a snapshot of an earlier day, whose index has run out since.
        printf '%s\n' 'Acquire::Check-Valid-Until "false";' 'Acquire::Retries "5";' \
            > "$root/etc/apt/apt.conf.d/90lineage"
        printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
        chmod 755 "$root/usr/sbin/policy-rc.d"
        touch "$root/.bootstrapped"
    fi
    cp /etc/hosts /etc/resolv.conf "$root/etc/"
    if [ "$(cat "$root/.packages" 2>/dev/null)" != "$packages" ]; then
        echo "Installing packages in the chroot of $release"
        retry install_packages "$root"
        echo "$packages" > "$root/.packages"
    fi
}

# in_copy RELEASE COMMAND...: in a fresh copy of the tree.
in_copy() {
    local root=$cache/$1
    shift
    rm -rf "$root/lineage"
    mkdir "$root/lineage"
    test/support/tree.sh | tar -c --null -T - | tar -x --no-same-owner -C "$root/lineage"
    enter "$root" sh -c 'cd /lineage && exec "$@"' sh "$@"
}

export CI=${CI-}
if [ "$(id -u)" != 0 ]; then
    echo "matrix.sh makes chroots and needs root: sudo make matrix" >&2
    exit 1
fi
test/support/packages.sh matrix

if [ "${1-}" = --run ]; then
    release=$2
    shift 2
    prepare "$release"
    in_copy "$release" "$@"
    exit
fi

tests=true
if [ "${1-}" = --prepare ]; then
    tests=false
    shift
fi
[ $# -gt 0 ] || set -- trixie forky
status=0
lines=()
for release in "$@"; do
    prepare "$release"
    $tests || continue
    echo "== $release: $(enter "$cache/$release" elixir --version 2>/dev/null | tail -n 1)"
    log=$cache/$release-tests.log
    in_copy "$release" test/support/run.sh build erl -- ex foundation mabeam c 2>&1 | tee "$log" || status=1
    lines+=("$release: $(tail -n 1 "$log")")
done
$tests || exit 0
echo
printf '%s\n' "${lines[@]}"
exit $status
