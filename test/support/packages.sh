#!/bin/sh
# Installs the Debian packages that a purpose needs and this machine lacks, and says which.
#
#   packages.sh [build|test|matrix]...      (without a name: build)
#
# Does nothing, and says nothing, when all are there. Someone who is not root is told the line to run.
set -eu

build="gcc libc6-dev erlang-base erlang-dev erlang-eunit erlang-common-test erlang-crypto
    erlang-inets erlang-mnesia erlang-parsetools erlang-public-key erlang-runtime-tools erlang-ssl
    erlang-syntax-tools erlang-tools rebar3 elixir clang bpftool libbpf-dev"
test="libcriterion-dev erlang-dialyzer libclang-rt-dev libcap2-bin clang-format clang-tidy cppcheck libasan8 libubsan1 libtsan2
    gcc-aarch64-linux-gnu libc6-dev-arm64-cross musl-tools ejabberd"
matrix="debootstrap"

wanted=
for purpose in "${@:-build}"; do
    case $purpose in
        build) wanted="$wanted $build" ;;
        test) wanted="$wanted $build $test" ;;
        matrix) wanted="$wanted $matrix" ;;
        *) echo "packages.sh: \"$purpose\" is none of build, test, matrix" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "packages.sh: this is no Debian; install what these packages are called here:" $wanted >&2
    exit 0
fi

missing=
for package in $wanted; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
        installed*) ;;
        *) case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac ;;
    esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "Packages are missing. As root, run this and start again:" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi

echo "Installing Debian packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"; [ -z "${policy-}" ] || rm -f "$policy"' EXIT

# ejabberd is here for its code, which tests start by themselves: no daemon comes up at installation.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
tries=3
until { apt-get -o Acquire::Retries=3 update -qq &&
    apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends \
        $missing; } > "$log" 2>&1; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then
        cat "$log" >&2
        echo "packages.sh: these could not be installed:$missing" >&2
        exit 1
    fi
done
