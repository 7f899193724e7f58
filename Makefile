# What there is to do here: `make help`. It needs Go and nothing else prepared.
# Each tool is built once into bin/, at the version that its go.mod under tools/ pins.

.DEFAULT_GOAL := help
SHELL := /bin/bash

GO ?= go
# More arguments for go test, such as TESTFLAGS='-run Onboarding -count 1'.
TESTFLAGS ?=
# The packages that test and lint look at.
PACKAGES ?= ./...

.PHONY: help
help: ## show this
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- Running ---------------------------------------------------------------------------------------

# exec: the program takes the shell's place, so that Ctrl-C and SIGTERM reach it.
.PHONY: dev
dev: ## run everything on this machine, until Ctrl-C
	@$(GO) build -o bin/dev ./cmd/dev
	@exec bin/dev

.PHONY: build
build: ## build the programs into bin/
	$(GO) build -trimpath -o bin/ ./cmd/...

# --- Checking --------------------------------------------------------------------------------------

# Those that take longest are named first, so that none of them runs on alone at the end.
SLOWEST := ./test/fences ./test/e2e ./test/api ./test/deploys ./internal/app ./test/bulk ./activities
ifeq ($(PACKAGES),./...)
TESTED = $(SLOWEST) $(PACKAGES)
else
TESTED = $(PACKAGES)
endif

# A package may take long on a small machine where all of them run at once.
.PHONY: test
test: tools-test ## run all tests, with the race detector
	$(GO) test -race -timeout 20m $(TESTFLAGS) $(TESTED)

# How long deliveries are made up.
FUZZ_FOR ?= 1m

.PHONY: fuzz
fuzz: tools-test ## send both webhook endpoints what they do not expect: make fuzz FUZZ_FOR=1h
	FUZZ_FOR=$(FUZZ_FOR) $(GO) test -race -count=1 -v -timeout 0 -run TestFuzzedDeliveries ./test/refusals

# A run with a new seed each time. FAULTS_FOR=1h is the long one; the table it made is in docs/reliability.md.
.PHONY: test-faults
test-faults: tools-test ## break everything that can break while the load goes on
	$(GO) test -tags faults -count 1 -timeout 6h -v $(TESTFLAGS) ./test/faults

# What `go run ./bench -h` knows: BENCH='-only ack -runs 5'.
BENCH ?= -write docs/performance.md

.PHONY: bench
bench: tools-test ## measure both programs beside what they are compared with, into docs/performance.md
	$(GO) build -trimpath -o bin/bench/ ./bench ./bench/load ./bench/baseline ./cmd/starter-api ./cmd/worker
	bin/bench/bench -binaries bin/bench $(BENCH)

# What of it is compared, with which commit and by how much it may be worse, is in bench/marks.json: BENCH_COMPARE='-runs 1 -for 1s'.
BENCH_COMPARE ?=

.PHONY: bench-compare
bench-compare: tools-test ## measure both programs beside those of the commit in bench/marks.json; fails where a ratio is worse
	$(GO) build -trimpath -buildvcs=false -o bin/bench/ ./bench ./bench/load ./bench/baseline ./cmd/starter-api ./cmd/worker ./cmd/syncctl
	bin/bench/bench -binaries bin/bench -against bench/marks.json $(BENCH_COMPARE)

.PHONY: model
model: ## check the models of the protocol, see docs/model
	docs/model/run

# Histories that are there are kept: versions to come have to replay what ran before them.
.PHONY: golden
golden: tools-test ## record golden histories of workflows that have none yet
	GOLDEN=1 $(GO) test ./test/histories -count=1 -v -run TestHistoriesOf

.PHONY: lint
lint: lint-format lint-vet lint-code lint-workflows lint-modules lint-generated lint-description ## check format, code, workflows, modules and the API's description

.PHONY: lint-format
lint-format:
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi

.PHONY: lint-vet
lint-vet:
	$(GO) vet -tags faults $(PACKAGES)

.PHONY: lint-code
lint-code: bin/golangci-lint
	bin/golangci-lint run --build-tags faults $(PACKAGES)

# Workflows must decide the same when they are replayed.
.PHONY: lint-workflows
lint-workflows: bin/workflowcheck
	bin/workflowcheck -test=false $(PACKAGES)

.PHONY: lint-modules
lint-modules:
	$(GO) mod tidy -diff
	$(GO) mod verify

# What is made from something else is what would be made from it now.
.PHONY: lint-generated
lint-generated: bin/oapi-codegen
	@cp client/client.gen.go bin/client.gen.go.before
	@$(GO) generate ./client
	@if ! cmp -s client/client.gen.go bin/client.gen.go.before; then \
		mv bin/client.gen.go.before client/client.gen.go; echo "client/client.gen.go is not what internal/httpapi/openapi.yaml gives: run make generate"; exit 1; fi
	@rm bin/client.gen.go.before

.PHONY: lint-description
lint-description: bin/redocly
	bin/redocly lint --config tools/redocly/redocly.yaml internal/httpapi/openapi.yaml

.PHONY: generate
generate: bin/oapi-codegen ## make the client from the API's description
	$(GO) generate ./client

.PHONY: fmt
fmt: ## format the code
	gofmt -w .

# --- Tools -----------------------------------------------------------------------------------------

# PostgreSQL and the Temporal CLI are looked for on the machine first.
.PHONY: tools-test
tools-test: bin/stripe-mock
	@$(GO) run ./internal/localstack/provision

# A tool appears under its name when it is whole.
define build-tool
	@mkdir -p bin
	$(GO) -C $(1) build -trimpath -ldflags='-s -w' -o $(CURDIR)/$@.new $(2)
	@mv $@.new $@
endef

bin/stripe-mock: tools/stripemock/go.mod
	$(call build-tool,tools/stripemock,github.com/stripe/stripe-mock)

bin/golangci-lint: tools/lint/go.mod
	$(call build-tool,tools/lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)

bin/oapi-codegen: tools/openapi/go.mod
	$(call build-tool,tools/openapi,github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen)

# The public linter of OpenAPI documents is a program for Node.js.
bin/redocly: tools/redocly/package-lock.json
	@command -v npm >/dev/null || { echo "the API's description is linted by a program that needs npm: install Node.js" >&2; exit 1; }
	@mkdir -p bin
	npm --prefix tools/redocly ci --no-audit --no-fund --loglevel=error
	@printf '#!/bin/sh\nexec "%s" "$$@"\n' "$(CURDIR)/tools/redocly/node_modules/.bin/redocly" > $@
	@chmod +x $@

bin/workflowcheck: tools/lint/go.mod
	$(call build-tool,tools/lint,go.temporal.io/sdk/contrib/tools/workflowcheck)

# --- Tidying up ------------------------------------------------------------------------------------

# The data may lie outside of the project, where PostgreSQL's own user can reach them: .dev/postgres is a
# link then. Nothing that runs is stopped, so nothing is removed from under it.
.PHONY: clean
clean: ## remove the data of make dev and the built programs
	@if pid=$$(head -n 1 .dev/postgres/postmaster.pid 2>/dev/null) && kill -0 "$$pid" 2>/dev/null; then \
		echo "make dev is running (PostgreSQL is process $$pid): stop it first" >&2; exit 1; fi
	@data=$$(readlink .dev/postgres 2>/dev/null); \
	case "$$data" in */clerk-stripe-sync-*/postgres) rm -rf "$${data%/postgres}";; esac
	rm -rf .dev bin/bench bin/dev bin/starter-api bin/worker bin/syncctl

.PHONY: clean-all
clean-all: clean ## also remove the built tools, which take minutes to make
	rm -rf bin
