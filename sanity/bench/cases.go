package main

import "slices"

// The systems that are measured.
const (
	millrace = "millrace"
	native   = "native"
	rclone   = "rclone"
	curl     = "curl"
	// alluxioFuse is Alluxio's own FUSE client, alluxioCLI its shell.
	alluxioFuse = "alluxio-fuse"
	alluxioCLI  = "alluxio-cli"
)

// benchCase is one row of the table: what is measured, and what millrace must reach.
type benchCase struct {
	name string
	unit string
	// what says in a few words what is measured.
	what string
	// targets all have to be met.
	targets []target
}

// target bounds millrace's median: absolutely, or as a multiple of another system's.
type target struct {
	// of is the other system, "" for an absolute bound.
	of string
	// bound is the least value where atLeast is set, else the greatest.
	bound   float64
	atLeast bool
}

// cases are in the order in which they are printed.
func cases() []benchCase {
	least := func(x float64, of string) target { return target{of: of, bound: x, atLeast: true} }
	most := func(x float64, of string) target { return target{of: of, bound: x} }
	return slices.Concat([]benchCase{
		{"warm-seq", "MB/s", "sequential read of a cached file, passthrough", []target{least(0.9, native)}},
		{"warm-seq-copy", "MB/s", "the same, passthrough off", []target{least(0.25, native), least(2, rclone)}},
		{"warm-rand4k", "IOPS", "random 4 KiB reads of a cached file, 2 readers", []target{least(0.4, native)}},
		{"warm-mmap", "MB/s", "one byte of every page of a mapped, cached file", []target{least(0.8, native)}},
		{
			"cold-seq", "MB/s", "sequential read of a new file, bare loopback server",
			[]target{least(0.4, curl), least(3, rclone)},
		},
		{"cold-seq-limited", "MB/s", "the same, server limited to 200 MB/s", []target{least(0.95, curl)}},
		{"cold-seq-delay", "MB/s", "the same, 20 ms a request and 50 MB/s a connection", []target{least(3, curl)}},
		{"cold-traffic", "x", "bytes sent by the server for one cold-seq / file size", []target{most(1.02, "")}},
		{"first-byte", "ms", "first byte of a new file", []target{most(2, curl)}},
		{"mount", "ms", "until the mount command returns", []target{most(300, "")}},
		{"ls-warm", "s", "ls -lR of 100,000 files, not the first time", []target{most(2, native)}},
		{"memory", "MB", "peak memory beside the tier, four cold streams", []target{most(100, "")}},
	}, alluxioCases(), controllerCases())
}

// controllerCases are those of the Kubernetes controller against a real API server.
func controllerCases() []benchCase {
	most := func(x float64) []target { return []target{{bound: x}} }
	return []benchCase{
		{
			"controller-reconcile", "s", "1,000 Datasets with runtimes from empty until all objects are applied",
			most(120),
		},
		{"controller-steady", "1/s", "requests to the API server while nothing changes", most(1)},
		{"controller-memory", "MB", "memory of the controller after that", most(200)},
		{"controller-restart", "n", "objects that a controller which starts anew changes", most(0)},
		{"controller-change", "ms", "spec changed to StatefulSet patched, p99 of 100 Datasets", most(500)},
	}
}

// alluxioCases are those against a real Alluxio cluster.
func alluxioCases() []benchCase {
	least := func(x float64, of string) target { return target{of: of, bound: x, atLeast: true} }
	most := func(x float64, of string) target { return target{of: of, bound: x} }
	return []benchCase{
		{"alluxio-mount", "ms", "from the mount command's start to a file's stat", []target{most(100, "")}},
		{
			"alluxio-ls-fresh", "s", "ls -lR of 10,000 files that the master knows, fresh mount",
			[]target{most(1.0/5, alluxioFuse)},
		},
		{"alluxio-ls-again", "s", "the same again", []target{most(1.0/2, alluxioFuse)}},
		{
			"alluxio-warm-seq", "MB/s", "sequential read, in one block of the local worker",
			[]target{least(0.9, native), least(5, alluxioFuse)},
		},
		{
			"alluxio-warm-seq-blocks", "MB/s", "the same in blocks of 64 MiB",
			[]target{least(0.25, native), least(2, alluxioFuse)},
		},
		{
			"alluxio-rand4k", "IOPS", "random 4 KiB reads, one local block, 2 readers",
			[]target{least(0.4, native), least(15, alluxioFuse)},
		},
		{"alluxio-rand4k-blocks", "IOPS", "the same in blocks of 64 MiB", []target{least(30, alluxioFuse)}},
		{
			"alluxio-mmap", "MB/s", "one byte of every page of a mapped file, one local block",
			[]target{least(0.8, native), least(10, alluxioFuse)},
		},
		{"alluxio-memory", "MB", "memory of the mount's process after all of this", []target{most(100, "")}},
		{"alluxio-remote-seq", "MB/s", "sequential read from a remote worker", []target{least(2, alluxioFuse)}},
		{"alluxio-client-seq", "MB/s", "the same by the client alone, without FUSE", []target{least(1, alluxioCLI)}},
		{"alluxio-client-cpu", "s/GB", "its processor time", []target{most(0.7, alluxioCLI)}},
		{
			"alluxio-cold-limited", "MB/s", "cold sequential read, source limited to 100 MB/s",
			[]target{least(0.95, curl)},
		},
		{"alluxio-cold-traffic", "x", "bytes sent by the source for that / file size", []target{most(1.02, "")}},
		{"alluxio-cold-readers", "x", "the same for four readers at once", []target{most(1.02, "")}},
		{
			"alluxio-cold-limited-gateway", "MB/s", "cold-limited, the worker reads by the gateway",
			[]target{least(0.9, curl)},
		},
		{
			"alluxio-cold-traffic-gateway", "x", "bytes sent by the source for that / file size",
			[]target{most(1.02, "")},
		},
		{"alluxio-cold-readers-gateway", "x", "the same for four readers at once", []target{most(1.02, "")}},
		{
			"alluxio-cold-seq", "MB/s", "cold sequential read, bare source, cached at the end",
			[]target{least(2, alluxioFuse)},
		},
		{"alluxio-cold-tail", "ms", "last 1 MiB of a cold file in one block", []target{most(3, curl)}},
		{
			"alluxio-remote-seq-delay", "MB/s", "sequential read from a worker 10 ms away",
			[]target{least(2, alluxioFuse)},
		},
		{"alluxio-client-seq-delay", "MB/s", "the same by the client alone", []target{least(2, alluxioCLI)}},
	}
}

// caseNames are the names of all cases.
func caseNames() []string {
	var names []string
	for _, c := range cases() {
		names = append(names, c.name)
	}
	return names
}

// met reports whether the value reaches the target, other being the other system's value.
func (t target) met(value, other float64) bool {
	bound := t.bound
	if t.of != "" {
		bound *= other
	}
	if t.atLeast {
		return value >= bound
	}
	return value <= bound
}
