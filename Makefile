# What to type. `make help` lists it.
#
# Everything is built with one set of flags, linked statically: the same programs run on this host and in the lab's VM,
# and Cargo builds each dependency once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

TARGET := x86_64-unknown-linux-gnu
CACHE ?= $(or $(WEIR_CACHE),$(CURDIR)/.cache)
export WEIR_CACHE := $(CACHE)
export CARGO_BUILD_TARGET := $(TARGET)
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS := -C target-feature=+crt-static
export WEIR_LAB_TARGET_DIR := $(CURDIR)/target
DEBUG := target/$(TARGET)/debug

CARGO_DENY := $(CACHE)/bin/cargo-deny
CARGO_DEB := $(CACHE)/bin/cargo-deb
# Their versions.
cargo-deny := 0.20.2
cargo-deb := 3.8.0

KERNELS := 6.1 6.12

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: build
build: ## Build weir for this host
	cargo build --bin weir

.PHONY: demo
demo: programs ## Show the main job on a real IPVS kernel, in a VM, in under a minute
	tests/lab/setup >/dev/null
	tests/lab/run --base tools --timeout 300 --program $(DEBUG)/weir:/lab/weir \
		--program $(DEBUG)/examples/demo:/lab/demo --tree $(CURDIR)/deploy/examples:$(CURDIR)/deploy/examples \
		--env WEIR_DEMO_PAUSE=$${WEIR_DEMO_PAUSE:-2} -- demo

.PHONY: demo-kubernetes
demo-kubernetes: programs ## Show Weir in Kubernetes: Helm, kubectl, rolling updates; five minutes, the first call builds Kubernetes
	tests/tools/build
	tests/lab/setup >/dev/null
	$(DEBUG)/examples/demo-kubernetes

# Built as the tests build them, so that no feature differs and nothing is compiled twice.
.PHONY: programs
programs:
	cargo test --no-run --quiet

.PHONY: test
test: lint test-quick fuzz test-kernel test-control-plane test-cluster test-coexistence test-real-nodes \
	test-observability test-demo ## Everything, from a fresh clone

.PHONY: test-quick
test-quick: ## What needs neither VM nor control plane
	cargo test --quiet
	cargo test --quiet --doc

.PHONY: fuzz
fuzz: ## Feed what Weir reads of others with anything: FUZZ_SECONDS=600 make fuzz, for each target
	fuzz/run

.PHONY: test-kernel
test-kernel: programs ## On real kernels, in the lab's VM
	tests/lab/setup >/dev/null
	for kernel in $(KERNELS); do
		echo "== kernel $$kernel"
		export WEIR_LAB_KERNEL=$$kernel
		tests/lab/cargo test --quiet --test kernel
		tests/lab/cargo test --quiet --test kernel -- --test-threads 1 alone::
	done

.PHONY: test-control-plane
test-control-plane: programs ## Against a real API server
	tests/tools/build
	# These mostly wait: for a refusal to be over, for a deadline.
	cargo test --quiet --test control_plane -- --include-ignored --test-threads 4

.PHONY: test-cluster
test-cluster: programs ## A real API server, agents in the VM, traffic
	tests/tools/build
	tests/lab/setup >/dev/null
	cargo test --quiet --test cluster -- --include-ignored remote:: whole_line::

.PHONY: test-coexistence
test-coexistence: programs ## Weir and kube-proxy in IPVS mode on one node
	tests/tools/build
	tests/lab/setup >/dev/null
	cargo test --quiet --test cluster -- --include-ignored coexistence::

.PHONY: test-real-nodes
test-real-nodes: programs ## The chart's pods on Kubernetes nodes in the VM
	tests/tools/build
	tests/lab/setup >/dev/null
	cargo test --quiet --test cluster -- --include-ignored real_nodes::

.PHONY: test-observability
test-observability: programs ## Prometheus scrapes agents in the VM; its linter; alerts and dashboards
	tests/lab/setup >/dev/null
	tests/tools/prometheus >/dev/null
	cargo test --quiet --test cluster -- --include-ignored observability::

.PHONY: test-demo
test-demo: ## That the demo tells its story, without the pauses
	$(MAKE) --no-print-directory demo WEIR_DEMO_PAUSE=0

.PHONY: lint
lint: $(CARGO_DENY) ## Format, clippy, licences and sources of dependencies, documentation
	cargo fmt --all --check
	cargo clippy --all-targets --quiet -- -D warnings
	$(CARGO_DENY) --workspace --locked check --hide-inclusion-graph bans licenses sources
	# With the examples, so that dependencies have the features that they have above, and are not compiled again.
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --lib --examples --quiet

.PHONY: advisories
advisories: $(CARGO_DENY) ## Known faults of dependencies; needs the network
	$(CARGO_DENY) --workspace --locked check --hide-inclusion-graph advisories

# Without this package's flags: these are programs for this host and no other.
# Compiling cargo-deny takes longer than running it: it is not optimized.
$(CARGO_DENY): profile := --debug
$(CARGO_DENY) $(CARGO_DEB):
	env -u CARGO_BUILD_TARGET -u CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS \
		cargo install --quiet --locked $(profile) $(@F) --version $($(@F)) --root $(CACHE)

.PHONY: crds
crds: ## Write the CustomResourceDefinitions from the types
	UPDATE_EXPECTED=1 cargo test --quiet --test pure crds::
	cp crds/*.yaml charts/weir/crd-files/

.PHONY: bench
bench: ## Measure, in the instruction-counting VM, and write docs/benchmarks.md
	benches/run

.PHONY: bench-scale
bench-scale: ## Measure a large cluster on this host, which should be idle, and write docs/scale.md
	benches/scale

.PHONY: image-binary
image-binary: ## The static binary for the container image; ARCHITECTURE=arm64 for another machine's
	deploy/image/build-binary target/image/weir $(ARCHITECTURE)

# The service is checked where the package puts it, beside this host's own units; a word that systemd does not know is to it
# only a warning.
.PHONY: deb
deb: $(CARGO_DEB) ## The Debian package, for hosts without Kubernetes
	rm -rf target/deb
	$(CARGO_DEB) deb --quiet --locked --profile dist --target $(TARGET) --output target/deb/
	dpkg-deb --extract target/deb/*.deb target/deb/root
	cp /usr/lib/systemd/system/*.{target,slice} target/deb/root/usr/lib/systemd/system/
	warnings=$$(systemd-analyze verify --root=$(CURDIR)/target/deb/root weir-agent.service 2>&1) && [ -z "$$warnings" ] ||
		{ echo "$$warnings" >&2; exit 1; }
	ls target/deb/*.deb
