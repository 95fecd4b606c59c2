// Package cluster runs a real Alluxio cluster on loopback for the tests and the benchmarks: masters with the embedded
// journal, and workers with a tier in /dev/shm, each a Java process of its own, from jars that Maven resolves once.
//
// # Life of a cluster
//
// [Jars] copies the jars that pom.xml names into a directory of the user's cache; only the first call ever fetches
// anything. [Start] gives each server a 127.x.y.z address of its own, so that "local" and "remote" mean to a client
// what they mean on a real network, and free ports there. It writes each server's alluxio-site.properties, starts all
// servers at once, and returns when one master leads and every worker has registered with it. [Cluster.Stop] kills
// the servers and takes away what they wrote.
//
// A test takes a cluster of its own with [ForTest], or shares one with the other tests of its package by [Shared].
// Servers can be killed, paused and started again ([Server]); Alluxio's own shells and its FUSE client run against
// the cluster ([Cluster.Shell], [Cluster.Admin], [Cluster.Fuse]), to compare ours with.
//
// # What is left behind
//
// Nothing, however the process that started the cluster ends. The kernel kills the servers with it (process.go), and
// a janitor, a shell that waits for the end of a pipe, unmounts and removes what they leave (sanity/janitor). Several
// clusters run side by side, in one process or in many.
package cluster
