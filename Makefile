SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Debian keeps servers (nginx, apache2) where only root's PATH looks.
export PATH := $(PATH):/usr/sbin:/sbin

GO ?= go
# How long each fuzz target runs.
FUZZTIME ?= 30s
# Passed on to `make demo`, `make alluxio` and `make bench`: make bench ARGS='-rounds 1 -cases warm-seq,first-byte'.
ARGS ?=

# The tools have a module of their own, so that the program's go.mod holds what the program needs.
TOOL := $(GO) tool -modfile=.tools/go.mod
# A checkout that git refuses to read (another owner, a tarball) still builds, unstamped.
VCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)
# The race detector needs a C compiler.
RACE := $(shell command -v "$$($(GO) env CC)" >/dev/null 2>&1 && echo -race)

# Says what takes long, and how long it may take, while it does.
PROGRESS := sanity/progress.sh

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/millrace, and millrace-controller and millrace-gateway beside it
	@CGO_ENABLED=0 $(PROGRESS) 'building the programs' '3 min with nothing built before' -- \
		$(GO) build -trimpath -buildvcs=$(VCS) -o bin/ ./cmd/millrace ./cmd/millrace-controller ./cmd/millrace-gateway ./cmd/millrace-keeper

# What is prepared, by need. Each is quick where it was done before, and what a machine cannot have is said.
.PHONY: packages-test packages-bench packages-alluxio jars control-plane helm runner python
packages-test packages-bench packages-alluxio: packages-%:
	@sanity/setup.sh $*
jars: packages-alluxio
	@$(PROGRESS) "fetching Alluxio's jars and archiving their classes" '2 min' -- $(GO) run ./sanity/alluxio -prepare
control-plane:
	@$(PROGRESS) 'building etcd and a Kubernetes control plane, once' '6 min' -- $(GO) run ./sanity/apiserver -prepare
helm:
	@$(PROGRESS) 'building helm' '90 s' -- bash -c '$(HELM) version >/dev/null'
# What the Python examples import, into the user's cache. Without it they are parsed and not run, which their test says.
python: packages-test
	@dir=$${XDG_CACHE_HOME:-$$HOME/.cache}/millrace/python; wanted=deploy/examples/safetensors/requirements.txt; \
	cmp -s "$$wanted" "$$dir/requirements.txt" || { $(PROGRESS) 'installing what the Python examples import' '30 s' -- \
		env PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --upgrade --disable-pip-version-check --target "$$dir" -r "$$wanted" && cp "$$wanted" "$$dir/"; } || \
		echo 'setup: the safetensors example is parsed and not run'
runner:
	@$(PROGRESS) 'building the test runner' '20 s' -- $(GO) build -modfile=.tools/go.mod -o bin/ gotest.tools/gotestsum
	@$(PROGRESS) 'building the ring' '5 s' -- $(GO) build -o bin/ ./sanity/ring

.PHONY: setup
setup: packages-test runner jars control-plane helm python ## prepare all that make test uses: packages (root), jars, a control plane, helm

# RING runs tests by bin/gotestsum, never silent for long: $(call RING,target,needs,takes,flags) gotestsum's flags -- go test's.
RING = bin/ring -name '$(1)' -needs '$(2)' -takes '$(3)' $(4) bin/gotestsum --jsonfile EVENTS

# What has nothing for the quick ring: tests on clusters, on mounts and on built programs. To link them takes a third as
# long as to link all others, and without symbols (-s -w) these are linked in two thirds of the time. D-231 says more.
SLOW := clustermount|controller|csi|e2e|kube|kubenodes|liar/fakealluxio|onemachine|rootstat

.PHONY: unit
unit: runner ## the quick ring, with which a change is tried: no root, no Java, no network but loopback; 2 min
	@$(call RING,unit,Go alone,2 min from a built tree,-reasons) --format pkgname --hide-summary=skipped \
		--packages "$$($(GO) list ./... | grep -vE '/sanity/($(SLOW))$$')" -- \
		$(RACE) -short -timeout 5m -ldflags='-s -w'

.PHONY: test
test: setup build ## everything but clusters of nodes, under the race detector, the summary last; 20 min once set up
	@[ -n '$(RACE)' ] || echo 'no C compiler: testing without the race detector'
	@echo 'the FUSE tests on one processor:'
	@GOMAXPROCS=1 $(call RING,test,/dev/fuse,a minute) --format pkgname --packages ./fuse/... -- -timeout 10m
	@echo 'all tests:'
	@# Two packages at a time: much of what they do is to wait for servers, and their limits of time hold on a busy machine.
	@$(call RING,test,what was just set up; root for some,20 min) --format pkgname --packages ./... -- $(RACE) -p 2 -timeout 30m

.PHONY: sanity
sanity: packages-test runner jars build ## CSI sanity, in process and by upstream's csi-sanity against the running binaries (root)
	@$(call RING,sanity,root,2 min) --format testname -- -count 1 -timeout 15m -run 'Sanity' ./sanity/csi

.PHONY: e2e-setup
e2e-setup: runner
	@sanity/setup.sh e2e
	@$(PROGRESS) 'building what runs nodes' '1 min' -- $(GO) build -o bin/nodes ./sanity/nodes
	@bin/nodes -prepare

# E2E runs tests on nodes, which are built before they start: $(call E2E,target,takes,packages). It fails where they change the checkout.
define E2E
	@$(PROGRESS) 'building the tests' '1 min' -- $(GO) test -count 1 -run '^$$' $(3) >/dev/null
	@before=$$(git status --porcelain 2>/dev/null || true); \
	$(call RING,$(1),root,$(2)) --format standard-verbose --packages '$(3)' -- -p 1 -count 1 -timeout 60m; \
	[ "$$before" = "$$(git status --porcelain 2>/dev/null || true)" ] || { echo 'make $(1) has changed the checkout:' >&2; git status --short >&2; exit 1; }
endef

# Where a run writes what the walkthrough typed and saw.
e2e e2e-short: export MILLRACE_E2E_PAGE := $(CURDIR)/bin/walkthrough.md
e2e: export MILLRACE_E2E := 1
e2e-short: export MILLRACE_E2E := short
walkthrough: export MILLRACE_E2E := walkthrough
walkthrough: export MILLRACE_E2E_PAGE := $(CURDIR)/deploy/walkthrough.md

.PHONY: e2e
e2e: e2e-setup installer helm ## millrace on a real Kubernetes of two nodes: the walkthrough, failures, the rest of the API (root)
	$(call E2E,e2e,25 min,./sanity/kubenodes ./sanity/e2e)

.PHONY: e2e-short
e2e-short: e2e-setup ## the walkthrough and the first half of the failures (root)
	$(call E2E,e2e-short,20 min,./sanity/e2e)

# What the run has seen of each document; docs/fluid.md is what it is to see.
fluid: export MILLRACE_FLUID := 1
fluid: export MILLRACE_FLUID_PAGE := $(CURDIR)/bin/fluid.md

.PHONY: fluid
fluid: e2e-setup ## what Fluid's users do: each of its documents and tests about Alluxio on a real Kubernetes (root)
	$(call E2E,fluid,15 min,./sanity/fluid)

.PHONY: walkthrough
walkthrough: e2e-setup ## the walkthrough alone, which writes deploy/walkthrough.md from what it typed and saw (root)
	@$(call RING,walkthrough,root,5 min) --format standard-verbose --packages ./sanity/e2e -- -count 1 -timeout 40m -run 'TestMillrace/Walkthrough'

.PHONY: nodes
nodes: e2e-setup ## a real Kubernetes of two nodes on this machine until Ctrl-C, with all images and the next three commands (root)
	@exec bin/nodes $(ARGS)

# What make image builds for: this machine alone is PLATFORMS=linux/amd64.
PLATFORMS ?= linux/amd64,linux/arm64

.PHONY: image
image: ## the container image for PLATFORMS (linux/amd64,linux/arm64), without a daemon, into bin/image
	@$(PROGRESS) 'building what builds the image' '20 s' -- $(GO) build -o bin/image-builder ./deploy/image
	@bin/image-builder -platforms '$(PLATFORMS)' -revision "$$(git rev-parse HEAD 2>/dev/null)" \
		-epoch "$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null)}" $(ARGS)

# What is released: make release VERSION=v0.2.0 SIGNING_KEY=key; ALLOW_DIRTY=1 tries it with changes that are not committed.
VERSION ?=
SIGNING_KEY ?=
ALLOW_DIRTY ?=

.PHONY: release
release: ## VERSION's tarballs, images, chart, SBOMs, checksums, signed with SIGNING_KEY, into bin/release; no daemon
	@$(PROGRESS) 'building what makes the release' '20 s' -- $(GO) build -o bin/releaser ./deploy/release
	@bin/releaser -version '$(VERSION)' -signing-key '$(SIGNING_KEY)' $(if $(filter-out 0,$(ALLOW_DIRTY)),-allow-dirty) $(ARGS)

.PHONY: release-check
release-check: ## make VERSION's release in two other folders and compare them, bit for bit
	@$(PROGRESS) 'building what makes the release' '20 s' -- $(GO) build -o bin/releaser ./deploy/release
	@deploy/release/check.sh bin/releaser '$(or $(VERSION),v0.0.0)'

.PHONY: vulncheck
vulncheck: ## what the Go vulnerability database knows of the code that is reached; says NOT RUN where it cannot be asked
	@$(PROGRESS) 'building govulncheck' '20 s' -- $(GO) build -modfile=.tools/release/go.mod -o bin/govulncheck golang.org/x/vuln/cmd/govulncheck
	@deploy/release/vulncheck.sh bin/govulncheck ./...

# How long `make soak` kills.
SOAK ?= 60s

.PHONY: controller
controller: runner jars control-plane build ## the controller on a real API server, with the long forms: the API away for a minute, a kill at each write
	@MILLRACE_KUBE=1 $(call RING,controller,Java,10 min) --format testname -- $(RACE) -count 1 -timeout 40m ./sanity/kube ./sanity/controller

.PHONY: apiserver
apiserver: control-plane ## a real Kubernetes API with the CRDs on loopback until Ctrl-C
	@$(GO) build -o bin/apiserver ./sanity/apiserver
	@exec bin/apiserver $(ARGS)

.PHONY: soak
soak: packages-test runner jars build ## the long forms: an agent that is killed, Alluxio under a storm, for $SOAK (60s) each; 1,000 rounds of attaching (root)
	@MILLRACE_SOAK=$(SOAK) $(call RING,soak,root,10 min) --format standard-verbose -- -count 1 -timeout 40m \
		-run 'Killed|Many|Soak|Volumes|NeverAWrongByte' ./fuse ./fuse/agent ./sanity/csi ./cacheclient/alluxio

# How long `make storm` draws seeds, and the one SEED that it replays.
STORM ?= 10m
SEED ?=

.PHONY: storm
storm: ## sources that lie by a seed, for $STORM (10m), every read judged by a model; SEED=n replays one; ARGS='-kinds http -go-on'
	@CGO_ENABLED=0 $(PROGRESS) 'building millrace' 'two minutes with nothing built before' -- \
		$(GO) build -trimpath -buildvcs=$(VCS) -o bin/ ./cmd/millrace ./cmd/millrace-keeper ./sanity/storm
	@exec bin/storm -millrace bin/millrace $(if $(SEED),-seed $(SEED),-for $(STORM)) $(ARGS)

.PHONY: race
race: test ## the same as test, which runs under the race detector

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (30s)
	@grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' cmd cacheclient controller driver fuse sanity | \
	while IFS=: read -r file _ func; do \
		dir=$$(dirname "$$file"); name=$${func#func }; \
		echo "== $$dir $$name"; \
		$(GO) test "./$$dir" -run '^$$' -fuzz "^$$name\$$" -fuzztime '$(FUZZTIME)' </dev/null; \
	done

# The generator of protobuf code is a module of its own, which needs no golangci-lint to build.
PROTOGEN := $(GO) -C .tools/protogen run .
PROTOS := cacheclient/alluxio/wire

# The generator of the API's copies, CRDs and roles has a module of its own for the same reason.
CONTROLLERGEN := $(GO) tool -modfile=.tools/controllergen/go.mod controller-gen
CONTROLLERGEN_API := object crd rbac:roleName=millrace-controller paths=./controller/api/... paths=./controller/rights
# Rights that an operator may withhold are a role of their own.
CONTROLLERGEN_NODES := rbac:roleName=millrace-controller-nodes,fileName=nodes.yaml paths=./controller/nodes

.PHONY: generate
generate: ## write the Go code of the .proto files, the copies, CRDs and roles of the controller, and the kustomize base
	$(PROTOGEN) $(PROTOS)
	$(CONTROLLERGEN) $(CONTROLLERGEN_API) output:crd:dir=deploy/crd output:rbac:dir=deploy/rbac
	$(CONTROLLERGEN) $(CONTROLLERGEN_NODES) output:rbac:dir=deploy/rbac
	deploy/render.sh

.PHONY: generate-check
generate-check: ## fail if what is generated is not what make generate would write
	@$(PROTOGEN) -check $(PROTOS)
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(CONTROLLERGEN) $(CONTROLLERGEN_API) output:object:dir="$$fresh/api" output:crd:dir="$$fresh/crd" output:rbac:dir="$$fresh/rbac"; \
	$(CONTROLLERGEN) $(CONTROLLERGEN_NODES) output:rbac:dir="$$fresh/rbac"; \
	diff -r deploy/crd "$$fresh/crd" && diff -r deploy/rbac "$$fresh/rbac" && \
	diff controller/api/v1alpha1/zz_generated.deepcopy.go "$$fresh/api/zz_generated.deepcopy.go" || \
	{ echo 'the API has changed: run make generate' >&2; exit 1; }
	@deploy/render.sh -check

.PHONY: lint
lint: generate-check ## golangci-lint, which also checks who may import whom; what locks guard; generate-check
	@$(PROGRESS) 'linting' '2 min; 8 min where the linter is built first' -- $(TOOL) golangci-lint run ./...
	cd .tools/protogen && $(GO) tool -modfile=../go.mod golangci-lint run --config ../../.golangci.yml ./...
	cd .tools/guards && $(GO) tool -modfile=../go.mod golangci-lint run --config ../../.golangci.yml ./...
	$(GO) -C .tools/guards test ./... && $(GO) -C .tools/guards build -o ../../bin/guards . && bin/guards ./...

.PHONY: fmt
fmt: ## format the code in place
	$(TOOL) golangci-lint fmt ./...

.PHONY: tidy-check
tidy-check: ## fail if go.mod or go.sum are not what `go mod tidy` would write
	$(GO) mod tidy -diff
	$(GO) -C .tools/protogen mod tidy -diff
	$(GO) -C .tools/guards mod tidy -diff
	$(GO) -C .tools/controllergen mod verify >/dev/null
	$(GO) -C .tools/helm mod tidy -diff
	$(GO) -C .tools/release mod tidy -diff

.PHONY: check
check: lint tidy-check ## lint, tidy-check and go vet
	$(GO) vet ./...

HELM := $(GO) tool -modfile=.tools/helm/go.mod helm
# While make nodes runs in this directory, it is its cluster that is meant where KUBECONFIG names none.
NODES := $(and $(wildcard bin/cluster/kubeconfig),$(if $(KUBECONFIG),,yes))
KUBECTL ?= $(if $(NODES),bin/cluster/kubectl --kubeconfig bin/cluster/kubeconfig,kubectl)
# Where millrace is installed, from which image, with which other values of the chart: make deploy VALUES='--set networkPolicy=false'.
NAMESPACE ?= millrace-system
IMAGE ?=
ALLUXIO_IMAGE ?=
VALUES ?=
# Kinds that some API servers have and others do not; a chart that is only rendered cannot ask.
SERVED = $(foreach version,v1beta1 v1,$(if $(findstring "MutatingAdmissionPolicy",$(shell \
	$(KUBECTL) get --raw /apis/admissionregistration.k8s.io/$(version) --request-timeout=8s 2>/dev/null)), \
	--api-versions admissionregistration.k8s.io/$(version)/MutatingAdmissionPolicy))
RENDER = $(HELM) template millrace deploy/chart --namespace '$(NAMESPACE)' --set createNamespace=true $(SERVED) \
	$(if $(IMAGE),--set 'image=$(IMAGE)') $(if $(ALLUXIO_IMAGE),--set 'alluxioImage=$(ALLUXIO_IMAGE)') $(VALUES)

.PHONY: installer
installer:
	@$(PROGRESS) 'building the installer' '1 min' -- $(GO) build -o bin/install ./deploy/install

.PHONY: deploy
deploy: installer helm ## install into the cluster that kubectl reaches, or that of make nodes: IMAGE, ALLUXIO_IMAGE, NAMESPACE, VALUES
	@bin/install -namespace '$(NAMESPACE)' -kubectl '$(KUBECTL)' -- $(RENDER)

.PHONY: undeploy
undeploy: ## remove what make deploy installed, CRDs too, when no Dataset is left; with the same NAMESPACE and VALUES
	@if $(KUBECTL) get crd datasets.data.fluid.io --ignore-not-found -o name | grep -q .; then \
		left=$$($(KUBECTL) get dataset,alluxioruntime,dataload --all-namespaces --no-headers --ignore-not-found | wc -l); \
		[ "$$left" = 0 ] || { echo "$$left Datasets, AlluxioRuntimes and DataLoads are left, and only the controller removes what belongs to them: delete them first" >&2; exit 1; }; \
	fi
	@$(RENDER) | $(KUBECTL) delete --ignore-not-found -f -

.PHONY: alluxio
alluxio: jars ## a real Alluxio cluster on loopback until Ctrl-C; ARGS=-check: start it, prove that it works, stop it
	@$(GO) build -o bin/alluxio ./sanity/alluxio
	@exec bin/alluxio $(ARGS)

.PHONY: demo
demo: ## mount a real web server, map a model, copy it out twice, kill the mount's process, compare every checksum; needs Go alone
	@[ -e /dev/fuse ] || { echo 'demo: /dev/fuse is not there; as root: modprobe fuse' >&2; exit 1; }
	@(: <>/dev/fuse) 2>/dev/null || { echo 'demo: /dev/fuse cannot be opened; as root: chmod 0666 /dev/fuse, and a container needs --device /dev/fuse' >&2; exit 1; }
	@[ "$$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || \
		{ echo 'demo: fusermount3, which mounts for users, is not there; as root: apt-get install fuse3' >&2; exit 1; }
	@CGO_ENABLED=0 $(PROGRESS) 'building millrace' 'two minutes with nothing built before' -- \
		$(GO) build -trimpath -buildvcs=$(VCS) -o bin/ ./cmd/millrace ./cmd/millrace-keeper ./sanity/demo
	@exec bin/demo -millrace bin/millrace $(ARGS)

.PHONY: bench
bench: packages-bench jars build ## measure beside native, rclone and curl; writes sanity/bench/results.json
	@$(GO) build -o bin/bench ./sanity/bench
	@exec bin/bench -millrace bin/millrace -results sanity/bench/results.json $(ARGS)

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
