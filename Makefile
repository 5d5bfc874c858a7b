# The project's commands; `make` alone lists them.

.PHONY: help run test clients model chaos bench load lint
.DEFAULT_GOAL := help

# Lists the targets: the words after `##` below.
help:
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST)

# Nothing but cargo is needed: the documents stand for MongoDB.
run: ## serve the sample schema over the sample documents
	cargo run --locked --release -- serve --schema schemas/fylora-sharing.toml --documents examples/fylora \
		--hints examples/fylora/hints.txt

# Against real servers; those not on this machine are fetched into target/servers. What has to do with Redis is tested on
# Valkey as well, which many platforms run in its place.
test: ## run all tests
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export REDIS_SERVER MONGOD && cargo test --locked && \
		if [ -n "$$VALKEY_SERVER" ] && [ "$$VALKEY_SERVER" != "$$REDIS_SERVER" ]; then \
			REDIS_SERVER=$$VALKEY_SERVER cargo test --locked --test integration -- fleet:: history:: redis_servers:: shared_facts::; \
		fi

# Wants Node.js, Go and Python, and their package registries the first time. Of one alone: scripts/test-clients --only go
clients: ## run the snippets of docs/clients.md against real servers
	cargo build --locked
	scripts/test-clients

# The smaller runs are among the tests already. Three minutes on two cores, and a gigabyte of memory.
model: ## check the freshness protocol at length (docs/proof.md)
	cargo test --locked --test integration model:: -- --ignored --nocapture

# The short form is among the tests already. CHAOS_SECONDS and CHAOS_SEED choose how long, and which writes, questions and faults.
chaos: ## check what is answered while MongoDB and Redis fail, for ten minutes (docs/proof.md)
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export MONGOD REDIS_SERVER && \
		cargo test --locked --test integration history:: -- --ignored --nocapture

# Use a quiet machine: the numbers are only worth what else it is doing.
bench: ## run the benchmarks
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export REDIS_SERVER MONGOD && cargo bench --locked --benches

# Go is needed besides. ghz is installed into target/load, where the report will be.
load: ## run the load tests, and write a report with plots (docs/load.md)
	cargo build --locked --release
	GOBIN=$(CURDIR)/target/load/bin go install github.com/bojand/ghz/cmd/ghz@v0.121.0
	servers=$$(scripts/fetch-test-servers) && eval "$$servers" && export REDIS_SERVER MONGOD && cd load && \
		go build -o ../target/load/bin/load . && \
		../target/load/bin/load -ghz ../target/load/bin/ghz -permcached ../target/release/permcached

# Warnings fail. The cheapest check first.
lint: ## check format, lints and documentation
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
