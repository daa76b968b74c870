# `make` lists the targets: the comments after ## are its help.
.DEFAULT_GOAL := help
.PHONY: help demo dev formal formal-small simulate torture test test-cluster test-fast test-rules fuzz lint lint-api vet build generate up down bench-smoke

SERVERS := deploy/local/servers
# Pinned in a module of their own, so that no user of our packages gets them.
TOOL    := go tool -modfile=tools/go.mod
GOTEST  := $(TOOL) gotestsum --format pkgname --format-hide-empty-pkg -- -count=1 -timeout 15m
FUZZTIME ?= 10s
# The end-to-end tests run built binaries and have the machine to themselves.
UNITS    = $$(go list ./... | grep -v /internal/e2e)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## sell out a flash sale on embedded stand-ins, kill workers, show that the books balance
	go run ./cmd/seckill demo

dev: ## run the whole stack on embedded stand-ins and keep it up
	go run ./cmd/seckill dev

formal: ## check the protocol's model with spin: every set-up has 0 errors, every mutant is caught
	formal/check

formal-small: ## the same with the small set-ups, in less than a minute
	formal/check small

SEEDS ?= 1000000
simulate: ## play SEEDS sales with faults over stores in memory and check every law (SEEDS=1000000, WITHIN=2m or as many as fit)
	go run ./internal/simulator/cmd --seeds $(SEEDS) --within $(or $(WITHIN),0)

test: up vet ## run every test on real Redis, Kafka and MariaDB, with the race detector; installs and starts what is missing
	deploy/local/install monitoring
	eval "$$($(SERVERS) env)"; status=0; \
		$(GOTEST) -race $(UNITS) || status=1; \
		$(GOTEST) -timeout 25m ./internal/e2e/... || status=1; \
		exit $$status

CLUSTER = SECKILL_SERVERS_DATA=$${TMPDIR:-/tmp}/seckill-test-cluster SECKILL_SERVERS_REDIS_PORT=17379 SECKILL_SERVERS_MYSQL_PORT=14306 SECKILL_SERVERS_KAFKA_PORT=20092 $(SERVERS)

test-cluster: ## run the end-to-end tests on three Redis masters with replicas and three brokers, a set of their own
	$(CLUSTER) up --redis-cluster --brokers 3
	eval "$$($(CLUSTER) env)"; status=0; \
		$(GOTEST) -timeout 40m ./internal/e2e/... || status=1; \
		$(CLUSTER) wipe; \
		exit $$status

test-fast: vet ## run the tests on embedded stand-ins; what only real servers show is skipped
	SECKILL_TEST_SERVERS=embedded $(GOTEST) ./...

fuzz: up ## run every fuzz target for FUZZTIME (10s), on real servers where it needs them
	@eval "$$($(SERVERS) env)"; for dir in $$(git grep --untracked -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
		targets=$$(go test -list '^Fuzz' ./$$dir) || { echo "$$targets"; exit 1; }; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			echo "== $$dir $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) ./$$dir || exit 1; \
		done; \
	done

test-rules: ## check alerts, their cases and the routes with promtool and amtool; installs them where they are missing
	deploy/prometheus/test

lint: ## check Go with golangci-lint and the scripts with bash and, where it is installed, shellcheck
	$(TOOL) golangci-lint run --allow-serial-runners ./...
	@for script in $$(git grep -lI '^#!/usr/bin/env bash'); do \
		bash -n $$script || exit 1; \
		if command -v shellcheck >/dev/null; then shellcheck $$script || exit 1; fi; \
	done

lint-api: ## check the contracts, api/openapi.yaml and api/asyncapi.yaml, with their standards' own tools from npm
	api/lint

vet: ## run go vet
	go vet ./...

build: ## build the binaries into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/gateway ./cmd/stock-worker ./cmd/settle-worker ./cmd/seckill

generate: ## rewrite the generated files
	go generate ./...

torture: ## break everything for a minute while it sells, on real servers of its own, and check every promise
	go run ./cmd/torture --duration 60s --seed 1

up: ## start real servers on loopback: Redis 16379, MariaDB 13306, Kafka 19092
	$(SERVERS) up

down: ## stop them; their data stays
	$(SERVERS) down

bench-smoke: up ## measure the engine and the ledger against the usual way, on real servers
	go run ./cmd/seckill bench engine settle
