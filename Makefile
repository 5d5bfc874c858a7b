# The project's commands; `make` alone lists them.

.PHONY: help run example test node clients model lists chaos soak fuzz bench bench-node bench-peers profile attack load lint msrv deny
.DEFAULT_GOAL := help

# Lists the targets with the text after `##` below.
help:
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

# Requires only cargo: the sample documents replace MongoDB. The profile `quick` builds without optimisation, in about two
# minutes on two cores.
run: ## serve the sample schema over the sample documents
	cargo run --locked --profile quick -- serve --schema schemas/fylora-sharing.toml --documents examples/fylora \
		--hints examples/fylora/hints.txt

# Requires Node.js and npm. Ctrl+C ends the application, the service and MongoDB.
example: ## run an Express application with the service and MongoDB (examples/express)
	cargo build --locked --profile quick
	scripts/run-example

# Runs against real servers, and fetches missing ones into target/servers. The tests that involve Redis also run on Valkey,
# which many platforms use in its place. The package for Node.js is tested last.
test: ## run all tests
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export REDIS_SERVER MONGOD && cargo test --locked && \
		if [ -n "$$VALKEY_SERVER" ] && [ "$$VALKEY_SERVER" != "$$REDIS_SERVER" ]; then \
			REDIS_SERVER=$$VALKEY_SERVER cargo test --locked --test integration -- fleet:: history:: redis_servers:: shared_facts::; \
		fi
	scripts/test-node

# Requires npm and, the first time, the npm registry. For one file: cd clients/node && npm test -- test/calls.test.mjs
node: ## build, check and test the package for Node.js (clients/node)
	cargo build --locked
	scripts/test-node

# Requires Node.js, Go, Python and, the first time, their package registries. For one language: scripts/test-clients --only go
clients: ## run the snippets of docs/clients.md against real servers
	cargo build --locked
	scripts/test-clients

# `make test` includes the smaller runs. This takes three minutes on two cores, and a gigabyte of memory.
model: ## check the freshness protocol at length (docs/proof.md)
	cargo test --locked --test integration model:: -- --ignored --nocapture

# `make test` includes the short form. PROPTEST_RNG_SEED selects other cases.
lists: ## compare the filters of lists with the evaluator over a million triples (docs/proof.md)
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export MONGOD && \
		cargo test --locked --test integration filters:: -- --ignored --nocapture

# `make test` includes the short form, without lists. CHAOS_SECONDS sets the duration, CHAOS_SEED the writes, questions and faults,
# CHAOS_LISTS_PERCENT how many requests are for lists.
chaos: ## check the answers while MongoDB and Redis fail, for ten minutes (docs/proof.md)
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export MONGOD REDIS_SERVER && \
		CHAOS_LISTS_PERCENT=$${CHAOS_LISTS_PERCENT-20} \
		cargo test --locked --test integration history:: -- --ignored --nocapture --skip history::soak:: --test-threads 1

# SOAK_SECONDS sets the duration, SOAK_DIRECTORY where the plot is written. Facts live in Redis for an hour, so a shorter run does
# not show what happens afterwards.
soak: ## serve a mixed load for an hour while links fail now and then, and plot the memory (docs/proof.md)
	cargo build --locked --release
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export MONGOD REDIS_SERVER && \
		PERMCACHED_PROGRAM=$(CURDIR)/target/release/permcached \
		cargo test --locked --test integration history::soak:: -- --ignored --nocapture

# Requires a nightly Rust (rustup toolchain install nightly) and cargo-fuzz (cargo install --locked cargo-fuzz). Tries the kept
# inputs of fuzz/corpus first. What it generates goes to fuzz/target/corpus, and what breaks a promise to fuzz/artifacts.
FUZZ_SECONDS = 60
FUZZ_TARGETS = $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz: ## fuzz requests, schemas, documents, Redis, change events and page tokens, FUZZ_SECONDS each (docs/proof.md)
	cargo +nightly fuzz build
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/target/corpus/$$target && \
		cargo +nightly fuzz run $$target fuzz/target/corpus/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 || exit 1; \
	done

# Use a quiet machine: other load distorts the numbers.
bench: ## run the benchmarks
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export REDIS_SERVER MONGOD && cargo bench --locked \
		--bench cold --bench evaluate --bench growth --bench large_relations --bench lists --bench memory --bench redis --bench revocation --bench served

# Requires npm. Use a quiet machine. BENCH_SECONDS and BENCH_ROUNDS set how long, and how often.
bench-node: ## measure checks of the package for Node.js beside Redis and mongoose (clients/node)
	cargo build --locked --release
	scripts/build-node
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export MONGOD REDIS_SERVER && cd clients/node && \
		PERMCACHED_PROGRAM=$${PERMCACHED_PROGRAM:-$(CURDIR)/target/release/permcached} node bench/bench.mjs

# Requires Go, and builds the peers into target/peers the first time, in some ten minutes. Use a quiet machine.
bench-peers: ## compare with OpenFGA and SpiceDB: answers, checks a second, processor time (docs/performance.md)
	peers=$$(scripts/build-peers) && eval "$$peers" && export OPENFGA SPICEDB && cargo bench --locked --bench peers

# Requires perf. PROFILE chooses the calls whose names contain it. With frame pointers, so that perf can follow the callers.
PROFILE = Check, owner
profile: ## profile the served calls into target/profile: by layer, by function, by caller (docs/performance.md)
	RUSTFLAGS="$(RUSTFLAGS) -C force-frame-pointers=yes" cargo bench --locked --profile profiling --bench served -- \
		--profile "$(PROFILE)"

# Use a quiet machine. ATTACK chooses the attacks whose names contain it: make attack ATTACK=unread
attack: ## measure what one client can do to another: latency and peak memory (docs/performance.md)
	cargo bench --locked --bench attack -- $(ATTACK)

# Also requires Go. Installs ghz into target/load, and writes the report there.
load: ## run the load tests, and write a report with plots (docs/load.md)
	cargo build --locked --release
	GOBIN=$(CURDIR)/target/load/bin go install github.com/bojand/ghz/cmd/ghz@v0.121.0
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export REDIS_SERVER MONGOD && cd load && \
		go build -o ../target/load/bin/load . && \
		../target/load/bin/load -ghz ../target/load/bin/ghz -permcached ../target/release/permcached

# Treats warnings as errors. Runs the cheapest check first.
lint: ## check formatting, lints and documentation
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# The oldest supported Rust is `rust-version` in Cargo.toml. rustup fetches it if the default toolchain is another one.
RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"$$/\1/p' Cargo.toml)
msrv: ## check that the oldest supported Rust compiles everything
	case $$(rustc --version) in \
		"rustc $(RUST_VERSION)."*) cargo check --locked --all-targets ;; \
		*) rustup run --install $(RUST_VERSION) cargo check --locked --all-targets ;; \
	esac

# Requires cargo-deny: cargo install --locked cargo-deny. `advisories` fetches the list of known vulnerabilities from GitHub;
# without access to it: make deny DENY="bans licenses sources"
DENY = advisories bans licenses sources
deny: ## check the dependencies' vulnerabilities, licenses and sources (deny.toml)
	cargo deny --locked check $(DENY)
