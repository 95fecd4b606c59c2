package fuse

import (
	"sync/atomic"
	"syscall"
	"time"
)

// LatencyBounds are the upper bounds of the latency buckets, in seconds; one more bucket
// follows for what took longer.
var LatencyBounds = [...]float64{
	0.00001, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
	30,
}

// Stats is what a session did since it began. Reads of files in passthrough mode do not
// pass through the session and are not in it.
type Stats struct {
	// Ops has one entry for each kind of request that came, by name.
	Ops map[string]OpStats `json:"ops"`
	// Reads are READs answered by copying, ReadBytes their bytes.
	Reads     int64 `json:"reads"`
	ReadBytes int64 `json:"readBytes"`
	// Served are the bytes of READs by the source which served them (cacheclient.Origin).
	Served map[string]int64 `json:"served"`
	// Errnos are the answers with an errno, by its name; "other" are all that have no name here.
	Errnos map[string]int64 `json:"errnos"`
	// Opens by the way that the kernel reads.
	PassthroughOpens int64 `json:"passthroughOpens"`
	CopyOpens        int64 `json:"copyOpens"`
	// OpenFiles and Nodes are what the kernel has open and knows, now.
	OpenFiles int64 `json:"openFiles"`
	Nodes     int64 `json:"nodes"`
	// InFlight are the requests that may wait for the source, now; Oldest is the one among
	// them that has waited longest, in milliseconds, and OldestOp its kind.
	InFlight int64   `json:"inFlight"`
	OldestOp string  `json:"oldestOp,omitempty"`
	Oldest   float64 `json:"oldestMs"`
	// Stalled are those of them that have waited for longer than StallTime.
	Stalled int64 `json:"stalled"`
	// Longest is the longest time that a request took, in milliseconds, and LongestOp its
	// kind.
	LongestOp string  `json:"longestOp,omitempty"`
	Longest   float64 `json:"longestMs"`
	// BytesReplied counts everything written to the device.
	BytesReplied int64 `json:"bytesReplied"`
	// Interrupts are the INTERRUPTs that came, Panics the requests that failed by a panic.
	Interrupts int64 `json:"interrupts"`
	Panics     int64 `json:"panics"`
	// Resumes is how many processes have taken the session over from one that ended.
	Resumes int64 `json:"resumes"`
	// Kernel is what was agreed with the kernel.
	Kernel KernelSettings `json:"kernel"`
}

// OpStats is one kind of request.
type OpStats struct {
	Count int64 `json:"count"`
	// Errors are the replies with an errno, ENOENT among them.
	Errors int64 `json:"errors"`
	// Seconds is the sum of the times taken.
	Seconds float64 `json:"seconds"`
	// Buckets count the requests by LatencyBounds; each counts its own only.
	Buckets []int64 `json:"buckets"`
}

// KernelSettings is what INIT agreed upon.
type KernelSettings struct {
	// Protocol is the version that the session speaks, as major.minor.
	Protocol string `json:"protocol"`
	// Flags are the capabilities in use (FUSE_* of linux/fuse.h).
	Flags uint64 `json:"flags"`
	// MaxRequest is the largest READ, in bytes.
	MaxRequest int `json:"maxRequest"`
	// ReadAheadKB is the read-ahead in KiB, 0 where it could not be found out.
	ReadAheadKB   int `json:"readAheadKB"`
	MaxBackground int `json:"maxBackground"`
	// Passthrough reports whether the kernel offers passthrough and it is wanted.
	Passthrough bool `json:"passthrough"`
}

// opCounters counts one kind of request.
type opCounters struct {
	errors  atomic.Int64
	nanos   atomic.Int64
	longest atomic.Int64
	buckets [len(LatencyBounds) + 1]atomic.Int64
}

// counters are what a session counts while it serves; all are atomic.
type counters struct {
	ops              [opLimit]opCounters
	copyReads        atomic.Int64
	copyBytes        atomic.Int64
	passthroughOpens atomic.Int64
	copyOpens        atomic.Int64
	bytesReplied     atomic.Int64
	panics           atomic.Int64
}

// done counts one request.
func (c *counters) done(op uint32, took time.Duration, errno syscall.Errno) {
	o := &c.ops[min(op, opLimit-1)]
	if errno != 0 {
		o.errors.Add(1)
	}
	o.nanos.Add(int64(took))
	o.buckets[bucketOf(took)].Add(1)
	for {
		longest := o.longest.Load()
		if int64(took) <= longest || o.longest.CompareAndSwap(longest, int64(took)) {
			return
		}
	}
}

// bucketOf is the index of the latency bucket.
func bucketOf(took time.Duration) int {
	seconds := took.Seconds()
	for i, bound := range LatencyBounds {
		if seconds <= bound {
			return i
		}
	}
	return len(LatencyBounds)
}

// snapshot copies the counters into s.
func (c *counters) snapshot(s *Stats) {
	s.Ops = make(map[string]OpStats)
	longest := int64(0)
	for op := range c.ops {
		o := &c.ops[op]
		name := opName(uint32(op))
		sum := s.Ops[name]
		if sum.Buckets == nil {
			sum.Buckets = make([]int64, len(o.buckets))
		}
		n := int64(0)
		for i := range o.buckets {
			v := o.buckets[i].Load()
			sum.Buckets[i] += v
			n += v
		}
		if n == 0 {
			continue
		}
		sum.Count += n
		sum.Errors += o.errors.Load()
		sum.Seconds += time.Duration(o.nanos.Load()).Seconds()
		s.Ops[name] = sum
		if l := o.longest.Load(); l > longest {
			longest, s.LongestOp = l, name
		}
	}
	s.Longest = milliseconds(time.Duration(longest))
	s.Reads, s.ReadBytes = c.copyReads.Load(), c.copyBytes.Load()
	s.PassthroughOpens, s.CopyOpens = c.passthroughOpens.Load(), c.copyOpens.Load()
	s.BytesReplied, s.Panics = c.bytesReplied.Load(), c.panics.Load()
	s.Interrupts = s.Ops[opName(opInterrupt)].Count
}

func milliseconds(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond)
}

// Stats tells what the session did and what goes on now, from memory.
func (s *Session) Stats() Stats {
	var out Stats
	s.counters.snapshot(&out)
	out.Nodes = int64(s.fs.nodes.known())
	out.OpenFiles = int64(s.fs.opens.count())
	count, op, age := s.inflight.oldest()
	out.InFlight = int64(count)
	if count > 0 {
		out.OldestOp, out.Oldest = opName(op), milliseconds(age)
	}
	out.Stalled = int64(s.inflight.stalled())
	out.Served, out.Errnos = s.outcomes.snapshot()
	out.Kernel = s.kernel
	out.Kernel.ReadAheadKB = s.readAheadKB
	out.Resumes = s.resumes
	return out
}
