#!/usr/bin/env bash
# Everything that is too long for `make test`: the bars of time, ratio and memory at full size, and long storms.
#
# LINEAGE_SOAK=1, LINEAGE_STORM and LINEAGE_CYCLES tell the test suites to run at full size: 4 workers with 10^6 births each, 1,000
# times attach and detach in a storm, 10^5 calls of the NIF with random terms. LINEAGE_KILLS is how many processes of the reference
# node are killed at random under load, FOUNDATION_ROUNDS how often its nodes are parted and come together again,
# LINEAGE_LEAK_SEEDS in how many orders the user's suite runs that leaks.
set -uo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 TERM=dumb

failed=()
stage() {
    local name=$1 started=$SECONDS
    shift
    echo "== $name"
    if "$@"; then
        echo "== $name: ok, $((SECONDS - started)) s"
    else
        echo "== $name: FAILED, $((SECONDS - started)) s"
        failed+=("$name")
    fi
}

# seeds APPLICATION: its tests in 20 orders.
seeds() {
    local seed
    for seed in $(seq 20); do
        (cd "lib/$1" && MIX_ENV=test mix test --seed "$seed") || return 1
    done
}

# rounds APPLICATION: its tests on several nodes, 20 times.
rounds() {
    (cd "lib/$1" && FOUNDATION_ROUNDS=20 MIX_ENV=test mix test $(grep -rl --include='*_test.exs' FOUNDATION_ROUNDS test))
}

export LINEAGE_SOAK=1 LINEAGE_STORM=1000000 LINEAGE_CYCLES=1000
stage storms rebar3 ct --readable=true --suite "$(ls test/*_SUITE.erl | grep -v real_ | paste -sd,)"
stage eunit rebar3 eunit
stage fuzz make --no-print-directory -C test/c run-fuzz SECONDS=3600
unset LINEAGE_SOAK LINEAGE_STORM LINEAGE_CYCLES
stage kills env LINEAGE_KILLS=10000 MIX_ENV=test mix test test/exunit/reference_kills_test.exs
stage leaks env LINEAGE_LEAK_SEEDS=20 MIX_ENV=test mix test test/exunit/leaks_test.exs
stage mutants test/support/leak_mutants.sh
for application in foundation mabeam; do
    stage "$application, rounds" rounds $application
    stage "$application, seeds" seeds $application
done
stage bars bench/run.sh --bars

if [ ${#failed[@]} -gt 0 ]; then
    echo "soak: failed: ${failed[*]}"
    exit 1
fi
echo "soak: ok"
