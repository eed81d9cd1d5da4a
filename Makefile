# The commands of the project; `make` alone lists them. PG_CONFIG chooses the PostgreSQL to build for.
.DEFAULT_GOAL := help
.PHONY: help bootstrap demo demo-stop test install bench lint package clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

bootstrap: ## install what building and testing need and this machine lacks
	@scripts/bootstrap

demo: ## a whole cluster in one folder, with real data, and a tour of what it does
	@scripts/bootstrap demo
	@demo/run

demo-stop: ## stop the demo's cluster and remove it
	@demo/stop

test: ## all tests (TESTS="unit regress isolation parity tpch cluster clients" chooses)
	@scripts/bootstrap
	@tests/run $(TESTS)

install: ## install a release build into the PostgreSQL of PG_CONFIG
	@scripts/bootstrap demo
	@scripts/install

bench: ## benchmarks against plain PostgreSQL and postgres_fdw, and TPC-H, written to bench/RESULTS.md
	@scripts/bootstrap
	@bench/run

lint: ## formatting and clippy, warnings are errors
	@scripts/bootstrap
	@scripts/lint

package: ## an archive of the built extension for the PostgreSQL of PG_CONFIG
	@scripts/bootstrap demo
	@scripts/package

clean: ## remove builds and throw-away clusters
	@scripts/clean
