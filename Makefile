# Lineage. `make help` lists what there is.

.DEFAULT_GOAL := all
.PHONY: all help packages native demo test test-c test-erl test-ex test-ref test-asan lint format dialyzer cross \
	soak bench matrix clean

export LC_ALL ?= C.UTF-8

RUN := test/support/run.sh

all: native ## build everything: priv/lineage.so, rebar3's side, mix's side
	@rebar3 compile
	@mix compile

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 12

packages: ## install the Debian packages that building and testing need
	@test/support/packages.sh build test

native: ## what is written in C only, into priv
	@$(MAKE) --no-print-directory -C c_src

demo: ## boot the reference node as it was audited, then under supervision, and audit both
	@test/support/packages.sh build
	@mix compile
	@test/support/demo.sh

test: ## every test and check, in under 20 minutes on 2 cores
	@test/support/packages.sh build test
	@$(RUN) build erl ex foundation mabeam bench -- c stress fuzz mutants dialyzer lint cross asan

test-c: ## Criterion, the stress programs under ThreadSanitizer, and a fuzzer
	@$(RUN) c stress fuzz

test-erl: ## EUnit and Common Test
	@$(RUN) erl

test-ex: ## ExUnit, and mutants that it must notice
	@$(RUN) ex mutants

test-ref: ## the tests of the reference node's two applications
	@$(RUN) foundation mabeam

test-asan: ## EUnit and Common Test under AddressSanitizer and UBSan
	@$(RUN) asan

lint: ## mix format, clang-format, cppcheck
	@$(RUN) lint

format: ## write C and Elixir as lint wants them
	clang-format -i $$(find c_src bench test/c -name '*.[ch]')
	mix format

dialyzer: ## rebar3 dialyzer
	@$(RUN) dialyzer

cross: ## compile for arm64 and against musl
	@$(RUN) cross

soak: native ## bars of time and memory at full size, long storms
	@test/support/packages.sh build
	@rebar3 as test compile
	@bench/soak.sh

bench: native ## all benchmarks, and _build/bench/report.html
	@test/support/packages.sh build
	@rebar3 compile
	@mix compile
	@bench/run.sh

matrix: ## the tests on OTP 27 and 29, in chroots (needs root)
	@test/support/matrix.sh

clean: ## remove what was built
	rm -rf _build priv/lineage.so priv/lineage-journal priv/lineage-probe
