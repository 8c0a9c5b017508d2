#!/usr/bin/env bash
# All benchmarks, each in nodes of its own.
#
#   run.sh [--small] [--bars] [cost] [ping] [big]     all three when none is named
#
#   --small  few and short rounds on small nodes: the output's form is checked, no time is
#   --bars   exit status 1 where a bar is missed (`make soak`)
#
# Prints medians, ratios and their spread; JSON lines, one per arm or figure, go to _build/bench/bench.jsonl
# (--small: small.jsonl). LINEAGE_EBIN names the directory of Lineage's beam files when it is not rebar3's.
# Close other programs first: the ratios bear some noise, the holds do not. `big` takes 5 GB of memory.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 ERL_CRASH_DUMP=/dev/null
unset ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ERL_LIBS

small=
bars=()
runs=()
for argument in "$@"; do
    case $argument in
        --small) small=yes ;;
        --bars) bars=(--bars) ;;
        cost | ping | big) runs+=("$argument") ;;
        *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
    esac
done
[ ${#runs[@]} -gt 0 ] || runs=(cost ping big)

ebin=${LINEAGE_EBIN:-}
for profile in test default; do
    there=_build/rebar3/$profile/lib/lineage/ebin
    if [ -z "$ebin" ] || { [ -z "${LINEAGE_EBIN:-}" ] && [ "$there/lineage.beam" -nt "$ebin/lineage.beam" ]; }; then
        [ -f "$there/lineage.beam" ] && ebin=$there
    fi
done
if [ -z "$ebin" ]; then
    echo "bench: Lineage is not built: run make first" >&2
    exit 2
fi
make --no-print-directory -s -C bench/noop

out=_build/bench/${small:+small.jsonl}
[ -n "$small" ] || out=_build/bench/bench.jsonl
rm -f "$out"
status=0

# node LIMIT ARGUMENT...: one node with that process limit runs one benchmark. No thread spins when it has no work, so
# that CPU time is work.
node() {
    local limit=$1
    shift
    erl -noinput +P "$limit" +sbwt none +sbwtdcpu none +sbwtdio none -pa _build/bench "$ebin" \
        -eval 'lineage_bench:main()' -extra "$@" --out "$out" "${bars[@]}" || status=1
}

run_cost() {
    if [ -n "$small" ]; then
        node 4096 cost --table aged --rounds 2 --ops 200 --live 20,200 \
            --what spawn_link,spawn_monitor,rolling_link,rolling_monitor
        return
    fi
    node 262144 cost --table fresh
    node 262144 cost --table aged
    node 1048576 cost --table aged
    node 262144 cost --table aged --what rolling_link,rolling_monitor --live 20000 --workers 1
}

run_ping() {
    if [ -n "$small" ]; then
        node 4096 ping --rounds 3 --ops 500
    else
        node 262144 ping --rounds 31 --ops 150000
    fi
}

run_big() {
    local shape
    for shape in one thousand orphans; do
        if [ -n "$small" ]; then
            node 8192 big --shape $shape --size 2000
        else
            node 1048576 big --shape $shape --size 1000000
        fi
    done
}

for run in "${runs[@]}"; do "run_$run"; done

erl -noinput -pa _build/bench -eval 'lineage_bench_check:main()' -extra "$out" || status=1
exit $status
