// Package e2e runs millrace as its users have it, on a real Kubernetes cluster of two nodes (sanity/kubenodes), from
// installation to removal: real Alluxio in pods, a real web server with the data, pods that mount the claim, and parts
// of all of it that fail. `make e2e` runs it; without MILLRACE_E2E its tests are skipped.
//
// All tests share one cluster, which starts with the first one, in which millrace is installed from deploy/kustomize
// with an image built by deploy/image. Each test makes its Datasets and removes them. What the first of them,
// Walkthrough, types and sees becomes a page: bin/walkthrough.md, or by `make walkthrough` deploy/walkthrough.md.
package e2e
