#!/usr/bin/env bash
# Breaks the attribution of leaks on purpose, in copies of the tree, and wants the user's suite to notice:
#
#   leak_mutants.sh [NAME]...     all, when none is named
#
# A mutant is a change of one place; where that is not there any more the script fails, so that none is lost when the
# code changes. Ends with status 1 when a mutant was not noticed.
set -uo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C.UTF-8 MIX_ENV=test

# NAME FILE FROM TO: plain text, in one line of the file.
mutants() {
    cat <<'EOF'
not_handed_down|c_src/core/census.c|uint32_t scope = GET(record->scope);|uint32_t scope = 0 * GET(record->scope);
requests_ignored|c_src/nif/tracer.c|lin_census_serve(census, env, supervisor, turn.caller);|(void)turn.caller;
never_served|c_src/nif/tracer.c|lin_census_served(census, caller);|(void)caller;
asked_by_a_supervisor|c_src/core/census.c|scope = scope_for(census, caller, asks.flags, asks.scope, &frame);|scope = asks.scope;
no_heirs|c_src/nif/tracer.c|lin_census_replace(census, env, supervisor, turn.dead);|(void)turn.dead;
EOF
}

copy=$PWD/_build/leak_mutants
mkdir -p "$copy"
status=0
wanted=" ${*:-$(mutants | cut -d'|' -f1 | paste -sd' ')} "

while IFS="|" read -r name file from to <&3; do
    [[ $wanted == *" $name "* ]] || continue
    find "$copy" -mindepth 1 -maxdepth 1 -not -name _build -exec rm -rf {} +
    test/support/tree.sh | tar -c --null -T - | tar -x -C "$copy"
    FROM=$from TO=$to awk '
        (at = index($0, ENVIRON["FROM"])) && !done {
            $0 = substr($0, 1, at - 1) ENVIRON["TO"] substr($0, at + length(ENVIRON["FROM"])); done = 1 }
        { print }
        END { exit !done }' "$file" > "$copy/$file" || { echo "$name: $file has no such line any more: $from"; exit 1; }
    log=$copy/_build/$name.log
    mkdir -p "$copy/_build"
    # It must still be a program: a mutant that does not build says nothing.
    if ! (cd "$copy" && make --no-print-directory -C c_src && mix compile) > "$log" 2>&1 < /dev/null; then
        echo "$name: does not build (see $log)"
        status=1
    elif (cd "$copy" && timeout 300 mix test test/exunit/leaks_test.exs --only seed:1) >> "$log" 2>&1 < /dev/null; then
        echo "$name: NOT noticed (see $log)"
        status=1
    elif grep -q '^1 test, 1 failure' "$log" || grep -q '^Result: 0/1 passed' "$log" || grep -qE '1 failure, [0-9]+ excluded' "$log"; then
        echo "$name: noticed"
    else
        echo "$name: no result (see $log)"
        status=1
    fi
done 3< <(mutants)
exit $status
