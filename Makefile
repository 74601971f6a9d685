# Kith: `make run` and `make test` are all you need to know.
# Both expect Go 1.26 in PATH or in /usr/local/go; the rest they install themselves.

export PATH := $(PATH):/usr/local/go/bin
.DEFAULT_GOAL := help
.PHONY: help build run test setup check unit interop fuzz cross reproducible bench clean

PORT ?= 4222
ARGS ?=

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' Makefile | expand -t 20

build: ## Build bin/kith
	scripts/build.sh bin/kith

run: build ## Build, and run a DHT node (PORT=4222, more flags in ARGS)
	@scripts/next.sh "$(PORT)"
	exec bin/kith serve dht --port "$(PORT)" $(ARGS)

test: ## Install what tests need, and run every check and test
	scripts/test.sh

setup: ## Install the Debian packages and Go modules that tests need
	scripts/setup.sh

check: ## Format, vet, static analysis, rules of the house
	scripts/check.sh

unit: ## Tests with the race detector, without other implementations
	scripts/unit.sh

interop: ## Tests against other implementations
	scripts/interop.sh

fuzz: ## Fuzz every target for a short time (FUZZTIME=10)
	scripts/fuzz.sh

cross: ## Build for all platforms
	scripts/cross.sh

reproducible: ## Build twice from different folders and compare
	scripts/reproducible.sh

bench: ## Run the benchmarks
	go test -run '^$$' -bench . -benchmem ./...

clean: ## Remove what was built
	rm -rf bin
