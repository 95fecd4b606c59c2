package fuse

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// faultInterval is the time between two lines about the same fault.
	faultInterval = time.Minute
	// faultMemory bounds the number of faults that are remembered.
	faultMemory = 1024
)

// faultLog writes one line for each fault that an application sees as EIO, and repeats it
// at most once a minute: a reader that retries must not fill the log.
type faultLog struct {
	log *slog.Logger

	// mu guards last.
	mu   sync.Mutex
	last map[fault]time.Time
}

// fault is what makes two lines the same.
type fault struct{ op, path, text string }

// report logs the fault unless it was logged a short while ago.
func (f *faultLog) report(op, path string, err error) {
	key := fault{op, path, err.Error()}
	now := time.Now()
	f.mu.Lock()
	last, known := f.last[key]
	due := !known || now.Sub(last) >= faultInterval
	if due {
		if f.last == nil || len(f.last) >= faultMemory {
			f.last = make(map[fault]time.Time)
		}
		f.last[key] = now
	}
	f.mu.Unlock()
	if due {
		f.log.Error("the kernel was answered with EIO", "op", op, "path", path, "error", err)
	}
}
