#!/usr/bin/env bash
# All benchmarks, each in nodes of its own.
#
#   run.sh [--small] [--bars] [BENCHMARK...]     all when none is named
#
#   cost       what the hook costs each birth, in every mode
#   ping       and messages
#   big        a million live processes: attach, detach, summary, verdict, memory
#   overhead   what supervision costs: starts, restarts and stops under each kind of supervisor, against bare
#   reference  what it costs Foundation and MABEAM: each place of the audit, as it was and supervised
#   modes      what measuring overhead costs, and whether its figures are the callers' own
#   stream     what a stream of events costs an event, how late it is, and whether it keeps up
#   witness    what the probe costs the node that it watches (as root, where BPF is)
#
#   --small  few and short rounds on small nodes: the output's form is checked, no time is
#   --bars   exit status 1 where a bar is missed (`make soak`)
#
# Prints medians, percentiles, ratios and their spread. JSON lines, one per arm or figure, go to _build/bench/bench.jsonl, and
# report.html beside it shows them (--small: small.jsonl, small.html). LINEAGE_EBIN names the directory of Lineage's beam files
# when it is not rebar3's. Close other programs first: the ratios bear some noise, the holds do not. `big` takes 5 GB of memory.
# Without Elixir `overhead` and `modes` run OTP's supervisor only, and `reference` is left out.
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
        cost | ping | big | overhead | reference | modes | stream | witness) runs+=("$argument") ;;
        *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
    esac
done
[ ${#runs[@]} -gt 0 ] || runs=(cost ping big overhead reference modes stream witness)

# newest FILE DIRECTORY...: the directory whose FILE is the newest; nothing where none has it.
newest() {
    local file=$1 found= there
    shift
    for there in "$@"; do
        if [ -f "$there/$file" ] && { [ -z "$found" ] || [ "$there/$file" -nt "$found/$file" ]; }; then found=$there; fi
    done
    echo "$found"
}

ebin=${LINEAGE_EBIN:-$(newest lineage.beam _build/rebar3/{test,default}/lib/lineage/ebin)}
if [ -z "$ebin" ]; then
    echo "bench: Lineage is not built: run make first" >&2
    exit 2
fi
elixir=()
if command -v elixir >/dev/null; then
    root=$(elixir -e 'IO.write(Path.dirname(:code.lib_dir(:elixir)))')
    elixir=("$root/elixir/ebin" "$root/logger/ebin")
fi
node=$(newest mabeam/ebin/mabeam.app _build/{test,dev}/lib)
make --no-print-directory -s -C bench/noop

name=bench page=report
[ -z "$small" ] || name=small page=small
out=_build/bench/$name.jsonl
rm -f "$out"
status=0

# node LIMIT FLAGS ARGUMENT...: one node with that process limit runs one benchmark. Where CPU time is counted FLAGS is
# `still': no thread spins when it has no work, so that CPU time is work. Where latencies are it is `usual'.
node() {
    local limit=$1 flags=()
    [ "$2" = usual ] || flags=(+sbwt none +sbwtdcpu none +sbwtdio none)
    shift 2
    erl -noinput +P "$limit" "${flags[@]}" -pa _build/bench "$ebin" "${elixir[@]}" "$node"/{foundation,mabeam}/ebin \
        -eval 'lineage_bench:main()' -extra "$@" --out "$out" "${bars[@]}" || status=1
}

run_cost() {
    if [ -n "$small" ]; then
        node 4096 still cost --table aged --rounds 2 --ops 200 --live 20,200 \
            --what spawn_link,spawn_monitor,rolling_link,rolling_monitor
        return
    fi
    node 262144 still cost --table fresh
    node 262144 still cost --table aged
    node 1048576 still cost --table aged
    node 262144 still cost --table aged --what rolling_link,rolling_monitor --live 20000 --workers 1
}

run_ping() {
    if [ -n "$small" ]; then
        node 4096 still ping --rounds 3 --ops 500
    else
        node 262144 still ping --rounds 31 --ops 150000
    fi
}

run_big() {
    local shape
    for shape in one thousand orphans; do
        if [ -n "$small" ]; then
            node 8192 still big --shape $shape --size 2000
        else
            node 1048576 still big --shape $shape --size 1000000
        fi
    done
}

run_overhead() {
    local children
    if [ -n "$small" ]; then
        node 8192 usual overhead --children 0 --rounds 2 --ops 16 --callers 1,8
        node 8192 usual overhead --children 100 --rounds 2 --ops 16 --callers 1,8
        return
    fi
    for children in 0 1000 100000; do
        node 1048576 usual overhead --children $children --rounds 10 --ops 1000
    done
}

run_reference() {
    if [ ${#elixir[@]} -eq 0 ] || [ -z "$node" ]; then
        echo "bench: reference is left out, for Elixir is missing or mix has not compiled lib/mabeam"
    elif [ -n "$small" ]; then
        node 8192 usual reference --rounds 2 --ops 16 --callers 1,8
    else
        node 262144 usual reference --rounds 10 --ops 1000
    fi
}

run_modes() {
    if [ -n "$small" ]; then
        node 8192 still modes --rounds 2 --ms 300 --duty 50
    else
        node 262144 still modes --rounds 11 --ms 10000
    fi
}

run_stream() {
    if [ -n "$small" ]; then
        node 8192 usual stream --rounds 2 --ops 500 --ms 500
    else
        node 262144 usual stream --rounds 201 --ops 10000 --ms 10000
    fi
}

run_witness() {
    if [ -n "$small" ]; then
        node 8192 usual witness --rounds 2 --ops 500
    else
        node 262144 usual witness --rounds 11 --ops 50000
    fi
}

node 4096 usual about --small "${small:-no}"
for run in "${runs[@]}"; do "run_$run"; done

tool() {
    erl -noinput -pa _build/bench -eval "$1:main()" -extra "${@:2}" || status=1
}
tool lineage_bench_check "$out"
tool lineage_bench_html "$out" "_build/bench/$page.html"
exit $status
