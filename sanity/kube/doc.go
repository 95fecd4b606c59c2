// Package kube runs a real Kubernetes API for tests: etcd, kube-apiserver, and where a test asks for it the
// controllers of kube-controller-manager, each a process of its own on the loopback.
//
// # Life of a server
//
// [Binaries] builds the programs from Go modules once, into a directory of the user's cache (build.go): Kubernetes
// publishes its source in the module proxy, and that is all that is needed. [Start] makes keys and certificates
// (sanity/pki), picks free ports on an address of its own, starts etcd on a tmpfs and kube-apiserver, and returns when
// the API answers. [Server.Stop] ends all and removes what they wrote. However the process that started them ends,
// nothing is left: the kernel kills them with it, and a janitor (sanity/janitor) removes their directory.
//
// A test takes a server with [Shared], which all tests of a package use, or [ForTest]. There are no nodes: pods stay
// pending unless a test writes their status, as a kubelet would.
package kube
