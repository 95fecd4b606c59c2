package agent

import (
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse"
)

// The requests of the socket, version 1. This is an ABI: fields are added, never renamed,
// retyped or taken away, and a client ignores fields it does not know. Sizes are in bytes, times
// are RFC 3339, rates are per second.
//
//	GET  /v1/mounts             → [MountStatus]
//	GET  /v1/blocks?path=PATH   → [cacheclient.Block]
//	GET  /v1/trace?path=&op=&slower= → TraceEvent, one JSON object a line, until the client goes
//	GET  /v1/slowest?path=      → [TraceEvent], the slowest of the last minute first
//	GET  /v1/lost               → [handover.LostPod], pods of this node that have to be restarted
//	POST /v1/warm    WarmRequest    → WarmProgress, one JSON object a line, until "done"
//	POST /v1/free    FreeRequest    → FreeAnswer
//	POST /v1/unmount UnmountRequest → UnmountAnswer
//	GET  /healthz               → Health
//	GET  /metrics               → Prometheus text
//	GET  /debug/pprof/...       → as net/http/pprof
//
// A PATH is a file or directory in a mount as the machine sees it (/data/a/b), or,
// where the process serves one mount, relative to it (a/b; "" is the mount itself).
//
// Every failure is a status of 400 or more and an ErrorAnswer. A body that is no JSON, or
// has a field that does not exist, is 400.
const (
	pathMounts  = "/v1/mounts"
	pathBlocks  = "/v1/blocks"
	pathTrace   = "/v1/trace"
	pathSlowest = "/v1/slowest"
	pathLost    = "/v1/lost"
	pathWarm    = "/v1/warm"
	pathFree    = "/v1/free"
	pathUnmount = "/v1/unmount"
	pathHealth  = "/healthz"
	pathMetrics = "/metrics"
	pathPprof   = "/debug/pprof/"
)

// States of a mount.
const (
	// StateServing is a mount whose process answers.
	StateServing = "serving"
	// StateUnresponsive is a mount whose process is gone, or did not answer in time. The
	// server never says so of itself: its client does.
	StateUnresponsive = "unresponsive"
)

// MountStatus is one mount. It is also an element of `millrace status -o json`.
type MountStatus struct {
	// Dir is where it is mounted, Source what it shows (without secrets), Name the label of
	// its metrics.
	Dir    string `json:"dir"`
	Source string `json:"source"`
	Name   string `json:"name"`
	// State is StateServing or StateUnresponsive; Problem says why the latter.
	State   string `json:"state"`
	Problem string `json:"problem,omitempty"`
	// PID is the process that serves it, Socket where that process answers, Started since when.
	PID     int       `json:"pid"`
	Socket  string    `json:"socket"`
	Started time.Time `json:"started"`
	// Keeper keeps the mount while that process is replaced; absent where there is none. A node's keeper is not told of
	// by its agent, which does not know it: millrace status asks it.
	Keeper *Keeper `json:"keeper,omitempty"`
	// Condition reports whether the mount does what it should. It, Counters, Capacity and Session are absent when
	// the mount is unresponsive. All counts begin anew with a process that takes the mount over.
	Condition *Condition            `json:"condition,omitempty"`
	Counters  *cacheclient.Counters `json:"counters,omitempty"`
	Capacity  *cacheclient.Capacity `json:"capacity,omitempty"`
	Session   *fuse.Stats           `json:"session,omitempty"`
}

// HitRatio is the part of the reads that found all their bytes cached, between 0 and 1, and
// false before the first read.
func (m MountStatus) HitRatio() (float64, bool) {
	if m.Counters == nil || m.Counters.Hits+m.Counters.Misses == 0 {
		return 0, false
	}
	return float64(m.Counters.Hits) / float64(m.Counters.Hits+m.Counters.Misses), true
}

// Keeper is the process that has copies of a mount's descriptors and serves nothing.
type Keeper struct {
	// PID is the keeper of one mount, Socket where the one of a node answers; the other is absent.
	PID    int    `json:"pid,omitempty"`
	Socket string `json:"socket,omitempty"`
	// Keeps says that it is there and has the mount, Problem why not.
	Keeps   bool   `json:"keeps"`
	Problem string `json:"problem,omitempty"`
}

// KeeperGone is the Problem of a keeper that has ended before its mount.
const KeeperGone = "it has gone: the mount ends with the process that serves it"

// Condition reports whether a mount that answers does what it should.
type Condition struct {
	// Abnormal is set where something is wrong, and Message says what; else it says that all is well.
	Abnormal bool   `json:"abnormal"`
	Message  string `json:"message"`
}

// TraceEvent is one request of the kernel that was answered. It is also a line of `millrace trace -o json`.
//
// The query of GET /v1/trace chooses: path, a file, or a directory with all that is below it; op, kinds of
// requests with commas between them, such as read,open; slower, the shortest time taken, such as 10ms. Without path all
// mounts of the process are traced that it has at that time. Reads that the kernel makes by itself (passthrough) are
// not seen: their open is told, with its source.
type TraceEvent struct {
	// Time is when the request came.
	Time time.Time `json:"time"`
	// Mount is the mount point, Op the kind of request.
	Mount string `json:"mount"`
	Op    string `json:"op"`
	// Path is absolute; "" where the request is about no file, or one that the kernel has forgotten.
	Path string `json:"path"`
	// Offset and Bytes are the range of a read.
	Offset int64 `json:"offset"`
	Bytes  int64 `json:"bytes"`
	// LatencyNs is how long the answer took, in nanoseconds.
	LatencyNs int64 `json:"latencyNs"`
	// Errno is the answer's error by its name, such as ENOENT; absent for none.
	Errno string `json:"errno,omitempty"`
	// Source is which source served it: cache, staging, worker or source for a read, passthrough for an open after which
	// the kernel reads by itself; absent for all others.
	Source string `json:"source,omitempty"`
	// Reader is which of the backend's readers served a read, such as "new fill" (docs/alluxio.md lists them); absent
	// where the backend has one alone.
	Reader string `json:"reader,omitempty"`
	// Dropped is how many events were lost before this one, because the client was too slow; absent for none.
	Dropped int64 `json:"dropped,omitempty"`
}

// WarmRequest asks for a file, or all files below a directory, to be fetched. Closing the
// connection stops the fetching; what has come stays cached.
type WarmRequest struct {
	Path string `json:"path"`
	// Jobs is how many files are fetched at once, 1 to MaxWarmJobs; 0 means DefaultWarmJobs.
	Jobs int `json:"jobs,omitempty"`
}

// Files fetched at once by a WarmRequest.
const (
	DefaultWarmJobs = 4
	MaxWarmJobs     = 64
)

// WarmProgress is how far a WarmRequest has come. Lines come about five times a second; the
// last one has Done.
type WarmProgress struct {
	// File is one that is being fetched, relative to the mount.
	File string `json:"file"`
	// BytesDone and FilesDone are cached, whether they came now or were there before.
	BytesDone int64 `json:"bytesDone"`
	FilesDone int64 `json:"filesDone"`
	// BytesTotal and FilesTotal are what is to be cached, as far as the tree has been walked;
	// they grow while Listing.
	BytesTotal int64 `json:"bytesTotal"`
	FilesTotal int64 `json:"filesTotal"`
	Listing    bool  `json:"listing"`
	// FilesFailed could not be fetched. Error says why the first of what failed did.
	FilesFailed int64  `json:"filesFailed"`
	Error       string `json:"error,omitempty"`
	// DirsFailed could not be listed, and what is in them is not among the files; FailedDirs names the first of them.
	DirsFailed int64    `json:"dirsFailed,omitempty"`
	FailedDirs []string `json:"failedDirs,omitempty"`
	// BytesSource came from the source meanwhile, for any reader.
	BytesSource int64 `json:"bytesSource"`
	// Rate is the bytes a second that became done lately; in the last line, those that came from
	// the source, over the whole time.
	Rate float64 `json:"rate"`
	// Warning, in the last line, tells what the user should know though nothing failed.
	Warning string `json:"warning,omitempty"`
	Done    bool   `json:"done"`
}

// FreeRequest asks for what is cached of a file or a tree to be dropped.
type FreeRequest struct {
	Path string `json:"path"`
}

// FreeAnswer tells how many bytes were dropped. What is open stays.
type FreeAnswer struct {
	Freed int64 `json:"freed"`
}

// UnmountRequest asks for a mount to end. A mount in use is 409 unless Force is set.
type UnmountRequest struct {
	// Dir may be empty where the process serves one mount.
	Dir   string `json:"dir,omitempty"`
	Force bool   `json:"force,omitempty"`
}

// UnmountAnswer names the directory that was unmounted.
type UnmountAnswer struct {
	Dir string `json:"dir"`
}

// Health says that the process answers, and for how many mounts.
type Health struct {
	Status string `json:"status"`
	Mounts int    `json:"mounts"`
}

// ErrorAnswer is the body of every failure: one sentence.
type ErrorAnswer struct {
	Error string `json:"error"`
}
