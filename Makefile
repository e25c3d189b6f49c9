# Clade. `make` alone prints this help.
SHELL := /bin/bash
GO    ?= go
SEED  ?=
SEEDS ?= 200
MINUTES ?= 10
LAYOUT ?= 2+1
NODES ?= 3
FUZZTIME ?= 30s
COUNT ?= 6
BENCH ?= .
PKGS ?= ./aoe ./aoe/link ./raid ./store ./cluster
GOLANGCI := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help
.PHONY: help build test race sim soak mutations fuzz model initiators lint demo lab torture calm compose-up compose-demo compose-down bench bench-scale bench-compare ci clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## bin/clade, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/clade ./cmd/clade

test: ## every test that this machine can run; namespaces need root
	$(GO) vet ./...
	$(GO) test $$($(GO) list ./... | grep -v /integration/)
	$(GO) test -p 1 ./integration/...

race: ## the tests that use goroutines, under the race detector
	$(GO) test -race ./aoe/... ./cluster/... ./store ./store/raftlog ./cmd/...

sim: ## simulated clusters: SEED=n replays one with its timeline, else SEEDS=n from the first
	@if [ -n "$(SEED)" ]; then $(GO) test ./integration/sim -count=1 -run 'TestSeed$$' -v -seed $(SEED); \
	else $(GO) test ./integration/sim -count=1 -timeout 0 -run TestManySeeds -seeds $(SEEDS); fi

soak: ## fresh simulated clusters for MINUTES=n, a process a core
	$(GO) test -c -o bin/sim.test ./integration/sim
	@cd integration/sim; for core in $$(seq $$(nproc)); do \
	  timeout -s INT $(MINUTES)m ../../bin/sim.test -test.run TestManySeeds -test.timeout 0 -seeds 100000000 -start $$((RANDOM * 1000000 + RANDOM * 10)) 2>&1 & \
	done; wait

mutations: ## switch the protocol's rules off one by one: the tests must notice each
	$(GO) test -tags mutation -count=1 -p 1 -run 'Mutation' ./raid ./store/disktest ./membership ./cluster ./cluster/runtime ./integration/sim

fuzz: ## every fuzz target for FUZZTIME=30s
	@set -e; $(GO) list ./... | while read -r p; do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$p; done; done

model: ## the Spin model: the protocol holds, each seeded bug is found (needs spin and gcc)
	docs/model/check.sh quick

initiators: ## real initiators against labs: aoetools, Linux' driver and iPXE in QEMU, OCFS2, GFS2, vblade beside us (root; installs packages)
	@for p in qemu-system-x86 seabios ipxe-qemu ipxe kmod syslinux mtools dosfstools vblade aoetools tshark tcpdump; do \
	  dpkg -s $$p >/dev/null 2>&1 || need="$$need $$p"; done; \
	  [ -z "$$need" ] || { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $$need; }
	CI=true $(GO) test ./integration/initiators -count=1 -v
	CI=true $(GO) test ./integration/guest -count=1 -v -timeout 40m -guest.long

lint: ## golangci-lint with .golangci.yml
	$(GOLANGCI) run ./...

demo: build ## three nodes, real data, two deaths: what Clade is for, in under two minutes (KEEP=1 leaves it up)
	@KEEP=$(KEEP) bin/clade lab demo

lab: build ## a cluster in namespaces that stays up: NODES=3 LAYOUT=2+1
	bin/clade lab up --nodes $(NODES) --layout $(LAYOUT)

torture: build ## kill, pause, cut and rob nodes of real labs under a verifying load, MINUTES=10 over three shapes (SEED=n again; root)
	bin/clade lab torture --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --svg bin/torture.svg

calm: build ## busy processors and 1 % lost frames for MINUTES=10: no volume may change its owner (root)
	bin/clade lab calm --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

compose-up: build ## three nodes and an initiator in containers; starts a Docker engine of its own if none runs (docs/compose.md)
	@$(GO) run ./integration/compose up

compose-demo: build ## the demo in containers: docker kill, pause and network disconnect; needs docker and docker-compose
	@$(GO) run ./integration/compose demo

compose-down: ## remove the containers, their disks, and the engine if it was started for them
	@$(GO) run ./integration/compose down

bench: build ## speed against vblade, the wire alone and the disk's limits, and the goals: one table, under ten minutes (root; ARGS="--rows 2+1")
	$(GO) run ./integration/bench $(ARGS)

bench-scale: build ## what more volumes, nodes, bytes and initiators cost, takeovers, tail and resync: one table, under twelve minutes (root; ARGS="--cases 1.TiB")
	$(GO) run ./integration/bench scale $(ARGS)

bench-compare: ## Go benchmarks of the hot packages at REF=commit against this tree (COUNT=6, BENCH=regexp, PKGS="./raid")
	@[ -n "$(REF)" ] || { echo "which commit? make bench-compare REF=HEAD~10"; exit 2; }
	integration/bench/compare.sh "$(REF)" "$(COUNT)" "$(BENCH)" $(PKGS)

ci: ## what CI runs
	.ci/run

clean: ## remove what was built
	rm -rf bin
