#!/usr/bin/env bash
# Runs stages of the tests one after another, all of them also after one has failed, and closes with
# the runners' own last lines and one line that sums them up.
#
#   run.sh STAGE... [-- STAGE...]
#
# of: build c stress fuzz erl ex mutants foundation mabeam dialyzer lint cross asan bench. Those behind
# the dashes run one after another, too, beside all but the first of those before it and at a low
# priority: most tests wait more than they compute. What they print is shown at the end.
#
# A stage's output is shown, and kept in _build/log/STAGE.log. A stage whose runner counts tests (c,
# erl, ex, foundation, mabeam, asan) adds those; each of the others is one check, passed or failed.
set -uo pipefail
cd "$(dirname "$0")/../.."

export LC_ALL=C.UTF-8 TERM=dumb
logs=_build/log
mkdir -p "$logs"
passed=0
failed=0
closing=()
wrong=()
told=
esc=$(printf '\033')

# How long the long checks run: births of each of a storm's 4 workers, attach and detach in a storm.
# Under a sanitizer, five times slower, they run at a tenth. make soak runs them at full size.
storm=${LINEAGE_STORM:-100000}
cycles=${LINEAGE_CYCLES:-100}
unset LINEAGE_STORM LINEAGE_CYCLES

# Every name the host's shells set for a VM would reach the nodes under test.
unset ERL_FLAGS ERL_AFLAGS ERL_ZFLAGS ERL_LIBS LINEAGE_VARIANT

stage_build() {
    make --no-print-directory -C c_src && rebar3 as test compile && MIX_ENV=test mix compile
}

# gcc can take a function that only fetches ahead for one without effects, and drop each call of it:
# nothing fails then, and a birth costs 7 % more.
prefetches() {
    objdump --disassemble=enabled_nif priv/lineage.so | grep -E 'prefetch|prfm' >/dev/null && return
    echo "priv/lineage.so: enabled_nif fetches nothing ahead"
    return 1
}

stage_c() {
    local status=0
    make --no-print-directory -C test/c run || status=1
    prefetches || status=1
    return $status
}

stage_stress() {
    make --no-print-directory -C test/c run-stress
}

# Any bytes as a journal: half a minute; make soak gives it an hour.
stage_fuzz() {
    make --no-print-directory -C test/c run-fuzz SECONDS="${LINEAGE_FUZZ_SECONDS:-30}"
}

# EUnit finds M_tests by the module M of the application: a name without its module would never run.
eunit() {
    local tests module status=0
    for tests in test/*_tests.erl; do
        module=$(basename "$tests" _tests.erl)
        [ -e "lib/lineage/$module.erl" ] || { echo "$tests: there is no module $module"; status=1; }
    done
    rebar3 eunit || status=1
    return $status
}

stage_erl() {
    local status=0
    eunit || status=1
    LINEAGE_STORM=$storm LINEAGE_CYCLES=$cycles rebar3 ct --readable=true || status=1
    return $status
}

stage_ex() {
    MIX_ENV=test mix test
}

# Two of the five ways to break the attribution of leaks; make soak tries all.
stage_mutants() {
    test/support/leak_mutants.sh requests_ignored never_served
}

# The two applications of the reference node, each as a project of its own.
stage_foundation() {
    (cd lib/foundation && MIX_ENV=test mix test)
}

stage_mabeam() {
    (cd lib/mabeam && MIX_ENV=test mix test)
}

stage_dialyzer() {
    rebar3 dialyzer
}

stage_lint() {
    local status=0 sources headers
    sources=$(find c_src bench test/c -name '*.c' -not -path '*/_build/*')
    headers=$(find c_src bench test/c -name '*.h' -not -path '*/_build/*')
    for project in . lib/foundation lib/mabeam test/user_leaks; do
        (cd "$project" && mix format --check-formatted) || status=1
    done
    clang-format --dry-run -Werror $sources $headers || status=1
    # What fills `word` in recent.c is a loop of a constant number of turns; clang-tidy sees it.
    cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
        --inline-suppr --suppress=missingIncludeSystem --suppress=uninitvar:c_src/core/recent.c \
        -I c_src/cli -I c_src/core -I c_src/nif \
        $(printf -- '-i %s ' c_src/probe/*.bpf.c) --suppress=unknownMacro:c_src/probe/kernel.c c_src || status=1
    local erts
    erts=$(dirname "$(find -H /usr/lib/erlang/usr/include ${ERTS_INCLUDE_DIR:+"$ERTS_INCLUDE_DIR"} \
        -name erl_nif.h 2>/dev/null | tail -n 1)")
    # A process for each file: clang-tidy 14 takes what it has seen of va_list from one to the next. What
    # it says of the warnings that it left out is dropped. What runs in the kernel is compiled by clang,
    # and bpftool's skeletons leak, as it sees them.
    tidy() {
        xargs -P "$(nproc)" -I{} clang-tidy --quiet "$@" {} -- -std=c11 -D_GNU_SOURCE= -Ic_src/cli \
            -Ic_src/core -Ic_src/nif -isystem _build/c/release/probe -isystem "$erts" \
            2> >(grep -v ' generated\.$' >&2)
    }
    find c_src -name '*.c' -not -path '*/probe/*' | tidy || status=1
    find c_src/probe -name '*.c' -not -name '*.bpf.c' | tidy --checks=-clang-analyzer-unix.Malloc || status=1
    for script in .ci/run $(find test bench -name '*.sh' -not -path '*/_build/*'); do
        bash -n "$script" || status=1
    done
    return $status
}

stage_cross() {
    local status=0
    make --no-print-directory -C c_src cross-arm64 CI=1 &&
        aarch64-linux-gnu-readelf -h _build/c/arm64/lineage.so | grep 'Machine: *AArch64' || status=1
    make --no-print-directory -C c_src cross-musl CI=1 &&
        readelf -d _build/c/musl/lineage.so | grep 'NEEDED.*\[libc.so\]' || status=1
    for program in c_src/probe/*.bpf.c; do
        clang -target bpf -D__TARGET_ARCH_arm64 -Wall -fsyntax-only "$program" || status=1
    done
    return $status
}

# In a copy of the tree, so that priv/lineage.so of this one stays what it is.
stage_asan() {
    local copy=$PWD/_build/asan status=0
    mkdir -p "$copy"
    find "$copy" -mindepth 1 -maxdepth 1 -not -name _build -exec rm -rf {} +
    test/support/tree.sh | tar -c --null -T - | tar -x -C "$copy"
    (
        cd "$copy" || exit 1
        export LINEAGE_VARIANT=asan
        rebar3 as test compile || exit 1
        # With +Mea min the VM takes its memory from malloc, block by block, so that
        # AddressSanitizer sees what the NIF does with enif_alloc's. Leaks are counted by the tests
        # themselves (what a census gives back when it is closed): a VM frees nothing when it ends.
        rm -f "$copy"/report.*
        # A node that a suite starts with an allocator of its own choice still has its choice.
        export ERL_AFLAGS="+Mea min"
        export LD_PRELOAD="$(cc -print-file-name=libasan.so) $(cc -print-file-name=libubsan.so)"
        export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:log_path=$copy/report
        export UBSAN_OPTIONS=print_stacktrace=1:abort_on_error=1:log_path=$copy/report
        export LINEAGE_STORM=$((storm / 10)) LINEAGE_CYCLES=$((cycles / 10))
        # What calls the NIF and the driver. Other programs' nodes, runners and reports tell nothing new
        # here, causes that are injected by the millisecond are others under a sanitizer, and the journal's,
        # the streams' and the probe's suites run programs that do not bear its preloading.
        rebar3 eunit --module=lineage_eunit_tests,lineage_points_tests,lineage_session_tests || status=1
        rebar3 ct --readable=true --suite="$(ls test/lineage_*SUITE.erl |
            grep -vE '_(ct|report|overhead|journal|stream|probe)_SUITE' | paste -sd,)" || status=1
        unset LD_PRELOAD
        if cat "$copy"/report.* 2>/dev/null; then status=1; fi
        exit $status
    )
}

stage_bench() {
    # Not what dialyzer may be writing beside it.
    LINEAGE_EBIN=_build/rebar3/test/lib/lineage/ebin bench/run.sh --small
}

# Prints, from a log, the closing lines of whichever runners ran: "RUNNER<tab>PASSED<tab>FAILED<tab>LINE".
closing_lines() {
    sed -e "s/$esc\[[0-9;]*m//g" "$1" | awk '
        function told(runner, ok, bad, line) {
            gsub(/^ +| +$/, "", line)
            printf "%s\t%d\t%d\t%s\n", runner, ok, bad, line
        }
        function number_after(line, word,   rest) {
            if (!match(line, word " *[0-9]+")) return 0
            rest = substr(line, RSTART, RLENGTH)
            sub(/^[^0-9]*/, "", rest)
            return rest + 0
        }
        /Performing EUnit tests/ { runner = "EUnit" }
        /Running Common Test suites/ { runner = "Common Test" }
        /\[====\] Synthesis:/ {
            sub(/.*\[====\]/, "[====]")
            ok = number_after($0, "Passing:")
            told("Criterion", ok, number_after($0, "Tested:") - ok, $0)
        }
        /^One or more tests were cancelled\.$/ { told(runner, 0, 1, $0) }
        /^ *Test passed\.$/ { told(runner, 1, 0, $0) }
        # Newer rebar3 puts its dots on the same line.
        /^[. ]*(All )?[0-9]+ tests passed\.$/ {
            sub(/^[. ]*/, ""); match($0, /[0-9]+/); told(runner, substr($0, RSTART, RLENGTH), 0, $0) }
        /^ *Failed: [0-9]+\./ { told(runner, number_after($0, "Passed:"), number_after($0, "Failed:"), $0) }
        /^[. ]*Failed [0-9]+ tests\./ { sub(/^[. ]*/, ""); told(runner, number_after($0, "Passed"), number_after($0, "Failed"), $0) }
        /^ *([0-9]+ (doctests?|propert(y|ies)), )*[0-9]+ tests?, [0-9]+ failures?/ {
            line = $0; all = 0; bad = 0
            n = split($0, parts, ", ")
            for (i = 1; i <= n; i++) {
                if (parts[i] ~ /failure/) bad = parts[i] + 0
                else if (parts[i] ~ /test|propert/) all += parts[i] + 0
                else if (parts[i] ~ /invalid|skipped|excluded/) all -= parts[i] + 0
            }
            # Only the last: tests that run a project print the line of its runner too.
            exunit = line; exunit_ok = all - bad; exunit_bad = bad
        }
        # Elixir 1.20 says "Result: 4 passed" or "Result: 3/4 passed".
        /^Result: [0-9]+(\/[0-9]+)? passed/ {
            exunit = $0; exunit_ok = number_after($0, "Result:"); exunit_bad = 0
            if (match($0, /\/[0-9]+/)) exunit_bad = substr($0, RSTART + 1, RLENGTH - 1) - exunit_ok
        }
        END { if (exunit != "") told("ExUnit", exunit_ok, exunit_bad, exunit) }'
}

# Names, from a log, the tests that failed, each with the first lines of why.
failures() {
    sed -e "s/$esc\[[0-9;]*m//g" "$1" | awk '
        /==> .*: FAILED/ || /^ +[0-9]+\) test / || /\*failed\*/ || /^\[FAIL\]/ { print "  " $0; why = 6; next }
        why > 0 && NF > 0 && !/==> *$/ && !/: OK$/ { print "      " $0; why-- }' | cut -c1-200 | head -n 60
}

# judge STAGE STATUS SECONDS: counts what its log tells.
judge() {
    local stage=$1 status=$2 stage_passed=0 stage_failed=0 runner ok bad line
    echo "== $stage: $([ "$status" = 0 ] && echo ok || echo FAILED), $3 s"
    while IFS=$'\t' read -r runner ok bad line; do
        stage_passed=$((stage_passed + ok))
        stage_failed=$((stage_failed + bad))
        [ "$told" = "$stage, $runner" ] || closing+=("$stage, $runner:")
        told="$stage, $runner"
        closing+=("$line")
    done < <(closing_lines "$logs/$stage.log")
    case $stage in
        c | erl | ex | foundation | mabeam | asan)
            # A runner that died, or found nothing to run, closes on no failure: it is one.
            if [ "$stage_failed" = 0 ] && { [ "$status" != 0 ] || [ "$stage_passed" = 0 ]; }; then
                stage_failed=1
                closing+=("$stage: failed (see $logs/$stage.log)")
            fi ;;
        *)
            if [ "$status" = 0 ]; then stage_passed=1; else stage_failed=1; fi
            closing+=("$stage: $([ "$status" = 0 ] && echo ok || echo "failed (see $logs/$stage.log)")") ;;
    esac
    passed=$((passed + stage_passed))
    failed=$((failed + stage_failed))
    [ "$stage_failed" = 0 ] ||
        mapfile -t -O "${#wrong[@]}" wrong < <(echo "$stage failed:"; failures "$logs/$stage.log")
}

# In a process group of its own, which ends with this script when that is interrupted.
run_beside() {
    local stage
    for stage in "$@"; do rm -f "$logs/$stage".{ended,log}; done
    set -m
    {
        renice -n 10 "$BASHPID"
        for stage in "$@"; do
            started=$SECONDS
            "stage_$stage" > "$logs/$stage.log" 2>&1 < /dev/null
            echo "$? $((SECONDS - started))" > "$logs/$stage.ended"
        done
    } > /dev/null 2>&1 &
    set +m
    aside=$!
    trap 'kill -- "-$aside" 2> /dev/null' EXIT
}

stages=$*
beside=()
case " $stages " in *" -- "*) read -ra beside <<< "${stages#*-- }" ;; esac
aside=

for stage in ${stages%% -- *}; do
    started=$SECONDS
    echo "== $stage"
    "stage_$stage" 2>&1 | tee "$logs/$stage.log"
    status=$?
    judge "$stage" $status $((SECONDS - started))
    # Without a build there is nothing to test.
    [ "$stage" = build ] && [ $status != 0 ] && beside=() && break
    [ -n "$aside" ] || [ ${#beside[@]} = 0 ] || run_beside "${beside[@]}"
done

if [ ${#beside[@]} -gt 0 ]; then
    wait "$aside"
    trap - EXIT
fi
for stage in "${beside[@]}"; do
    echo "== $stage"
    read -r status seconds 2> /dev/null < "$logs/$stage.ended" || { status=1 seconds=0; }
    cat "$logs/$stage.log"
    judge "$stage" "$status" "$seconds"
done

echo
echo "Stages: $stages; $((SECONDS / 60)) min $((SECONDS % 60)) s."
echo "Long checks, as a part of make soak: storms $storm of 1000000 births a worker," \
    "$cycles of 1000 attach/detach cycles; 300 of 10000 kills and 2 of 20 partitions of the reference node;" \
    "2 of 20 seeds of the user's suite that leaks, 2 of 5 mutants of the attribution;" \
    "the journal's reader fuzzed for half a minute of an hour; benchmarks for the form of their output only."
printf '%s\n' "${closing[@]}"
# Last: who sees the end only, as CI shows it, sees what failed.
[ ${#wrong[@]} = 0 ] || printf '%s\n' "${wrong[@]}"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
