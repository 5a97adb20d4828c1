# Targets for people and for CI. Each installs and builds what it needs; the second time there is nothing to do.

GO ?= go
# Paths of the building machine are in no program; one setting for all commands, so that build, vet and test share what is compiled.
export GOFLAGS += -trimpath
# One test of many: make test PKG=./migrate RUN=TestNext
PKG ?=
RUN ?= .
# Which benchmarks, a regular expression: make bench BENCH=hydrat
BENCH ?= .
# How long to soak, and the seed of its plans; 0 is another one each time.
SOAK ?= 30m
SEED ?= 0

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
# vet has seen everything before. End-to-end tests boot VMs and want the CPUs for themselves; all other packages are tested before, side by side.
END_TO_END := ./test
UNITS = $$($(GO) list ./... | grep -v '^drover/test$$')
GO_TEST := $(GO) test -vet=off -race -shuffle=on -run '$(RUN)'

.PHONY: all build bootstrap guest demo demo-postgres postgres-image test check format vet bench soak clean

all: build guest

# bin/drover is the product; bin/drover-init is PID 1 of a guest; bin/writer makes the records that demo and tests compare.
build:
	$(GO) build -o bin/ ./cmd/drover
	CGO_ENABLED=0 $(GO) build -o bin/ ./cmd/drover-init ./demo/writer ./demo/mkimage ./bench/load

# QEMU, NBD tools and the guest's kernel, where they are missing.
bootstrap:
	script/bootstrap

# The guest's initial RAM disk.
guest: bootstrap
	script/build-guest

# The main job, to watch.
demo: build guest
	$(GO) run ./demo -bin bin

# A Postgres cluster whose hosts are drained while a client writes: VARIANT=live|cold|powercut|two-on-one. Needs root. With powercut, SEED chooses which host loses its power when; 0
# is the primary's, in the second drain.
VARIANT ?= live
demo-postgres: postgres-image guest
	$(GO) run ./examples/postgres/demo -bin bin -variant '$(VARIANT)' -seed '$(SEED)'

# build/postgres/image: PostgreSQL and repmgr out of Debian's packages, and pgnode.
postgres-image: build
	examples/postgres/build-root
	CGO_ENABLED=0 $(GO) build -o bin/pgnode ./examples/postgres/node
	CGO_ENABLED=0 $(GO) build -o bin/pgload ./examples/postgres/load
	$(GO) run ./examples/postgres/image build/postgres/root.tar bin/pgnode build/postgres/image

# Everything, with real VMs. Packages and tests wait more than they compute, so four of each are tested at a time, and three of those that boot VMs. Needs root, or a user that may make user namespaces.
test: build guest format vet
ifeq ($(PKG),)
	$(GO_TEST) -timeout 14m -p 4 -parallel 4 $(UNITS)
	$(GO_TEST) -timeout 30m -parallel 3 $(END_TO_END)
else
	$(GO_TEST) -timeout 30m $(PKG)
endif

# What needs no VM; internal/lint has the house rules.
check: format vet
	$(GO) run $(STATICCHECK) ./...
	$(GO) test -race -shuffle=on -short $(UNITS)

format:
	@bad=$$(gofmt -l .); \
	if [ -n "$$bad" ]; then echo "gofmt would change:"; echo "$$bad"; exit 1; fi

vet:
	$(GO) vet ./...

# Numbers against peers: BENCHMARKS.md.
bench: build guest
	$(GO) run ./bench -drover bin/drover -run '$(BENCH)'

# Random faults for a long time, each part for so long: docs/CHAOS.md. The walks in memory end when they have walked everything.
soak: build guest
	$(GO) test -count=1 -timeout 0 -v -run Soak ./volume -soak '$(SOAK)'
	$(GO) test -count=1 -timeout 0 -v -run 'TestACrashAtEveryStep|TestEveryStepEveryPartyEveryStrike|TestABusOrHostMayGoAnywhereInAMove|TestAControllerMayDieAnywhereInADeploy' ./host ./fleet -walk-all
	set -e; for variant in live cold two-on-one; do $(MAKE) demo-postgres VARIANT=$$variant; done
	set -e; for seed in 0 1 2 3 4 5; do $(MAKE) demo-postgres VARIANT=powercut SEED=$$seed; done
	$(GO) test -count=1 -timeout 0 -v -run 'TestWalk$$|TestChaos$$' $(END_TO_END) -soak '$(SOAK)' -soak-seed '$(SEED)'

clean:
	rm -rf bin build
