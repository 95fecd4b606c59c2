// Package kubenodes runs a real Kubernetes cluster of several nodes on this machine: etcd, API server, controllers,
// scheduler and DNS on one machine in namespaces (sanity/machines), and containerd, kubelet and kube-proxy on one for
// each node. Pods on them are real pods, with a network, volumes and mounts of their own.
//
// # Life of a cluster
//
// [Start] makes keys (sanity/pki), starts the machine of the control plane and its services (services.go, config.go),
// then those of the nodes, which import their images from files (sanity/images), and returns when all nodes are ready:
// some ten seconds. No packet leaves: pods reach each other, Services, and what runs on the control plane's machine,
// which is the name ctl to them; all else is refused.
//
// A test stops and kills what it likes: a node's power ([Cluster.PowerCut], [Cluster.Boot]), a service of a machine
// ([machines.Machine.StopService]), pods with [Cluster.Kubectl]. [Cluster.Stop] ends all and leaves nothing; so does
// the end of the program, in whatever way.
//
// The programs are built from Go modules once (sanity/kube); containerd, runc and the network plugins are the
// distribution's.
package kubenodes
