# Targets for people and for CI. Every target installs and builds what it needs; the second time nothing is done.

GO ?= go
# A package pattern and flags for go test, for one test of many: make test PKG=./migrate RUN=TestNext
PKG ?= ./...
RUN ?= .
# A regular expression of benchmarks: make bench BENCH=hydration
BENCH ?= .
# How long to soak.
SOAK ?= 30m

GUEST := build/guest

.PHONY: all build guest bootstrap demo test check bench soak clean

all: build guest

# bin/drover is the whole product; bin/writer is the program whose records the demo and the tests compare.
build:
	$(GO) build -trimpath -o bin/ ./cmd/drover
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/drover-init ./demo/writer

# What is missing of QEMU, NBD tools and the guest kernel.
bootstrap:
	script/bootstrap

# The guest's kernel and initial RAM disk.
guest: bootstrap
	script/build-guest

demo: build guest
	$(GO) run ./demo -bin bin

# The end-to-end tests share two CPUs with the VMs they boot, so packages run one after the other.
test: build guest
	$(GO) vet ./...
	$(GO) test -race -shuffle=on -p 2 -timeout 14m -run '$(RUN)' $(PKG)

# What needs no VM: formatting, vet, static analysis, house rules (internal/lint), unit tests.
check:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test -race -shuffle=on -short $$($(GO) list ./... | grep -v '^drover/\(test\|bench\)$$')

bench: build guest
	$(GO) run ./bench -drover bin/drover -run '$(BENCH)'

soak: build guest
	$(GO) test -count=1 -timeout 0 -run Soak ./test -soak '$(SOAK)'

clean:
	rm -rf bin build
