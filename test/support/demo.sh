#!/bin/sh
# Boots a node, lets it run test/support/lineage_demo.erl, and shows what Lineage says of it.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p _build/demo
erlc -o _build/demo test/support/lineage_demo.erl
ERL_CRASH_DUMP=/dev/null exec erl -noinput -boot start_sasl -kernel logger_level none \
    -pa _build/rebar3/default/lib/lineage/ebin _build/demo -s lineage_demo main
