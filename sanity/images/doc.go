// Package images makes the container images that a cluster for tests runs, from what this machine has, with no
// registry: one file each, a docker-archive, which a node imports. They have the names of the public images that a
// user's manifests name, and what those manifests use of them.
package images
