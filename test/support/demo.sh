#!/bin/sh
# Boots the reference node twice, as it was audited and under supervision, and shows what Lineage says of it.
set -eu
cd "$(dirname "$0")/../.."
paths=$(printf ' -pa %s' _build/dev/lib/*/ebin)
for arm in legacy supervised; do
    ERL_CRASH_DUMP=/dev/null elixir $paths test/support/demo.exs $arm
done
