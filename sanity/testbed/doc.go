// Package testbed is where tests use millrace as its users have it: a cluster of nodes (sanity/kubenodes) in which it
// is installed from deploy/kustomize with an image built by deploy/image, kubectl with waits, and an S3 server that has
// nothing to do with ours. sanity/e2e and sanity/fluid stand on it, each with a web server of its own.
package testbed
