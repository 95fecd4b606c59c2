package main

// The systems that are measured.
const (
	millrace = "millrace"
	native   = "native"
	rclone   = "rclone"
	curl     = "curl"
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
	return []benchCase{
		{"warm-seq", "MB/s", "sequential read of a cached file, passthrough", []target{least(0.9, native)}},
		{"warm-seq-copy", "MB/s", "the same, passthrough off", []target{least(0.25, native), least(2, rclone)}},
		{"warm-rand4k", "IOPS", "random 4 KiB reads of a cached file, 2 readers", []target{least(0.4, native)}},
		{"warm-mmap", "MB/s", "one byte of every page of a mapped, cached file", []target{least(0.8, native)}},
		{"cold-seq", "MB/s", "sequential read of a new file, bare loopback server", []target{least(0.4, curl), least(3, rclone)}},
		{"cold-seq-limited", "MB/s", "the same, server limited to 200 MB/s", []target{least(0.95, curl)}},
		{"cold-seq-delay", "MB/s", "the same, 20 ms a request and 50 MB/s a connection", []target{least(3, curl)}},
		{"cold-traffic", "x", "bytes sent by the server for one cold-seq / file size", []target{most(1.02, "")}},
		{"first-byte", "ms", "first byte of a new file", []target{most(2, curl)}},
		{"mount", "ms", "until the mount command returns", []target{most(300, "")}},
		{"ls-warm", "s", "ls -lR of 100,000 files, not the first time", []target{most(2, native)}},
		{"memory", "MB", "peak memory beside the tier, four cold streams", []target{most(100, "")}},
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

// met says whether the value reaches the target, other being the other system's value.
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
