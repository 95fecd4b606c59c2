package main

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"

	"millrace.io/millrace/fuse/mountpoint"
)

// ownMountsAge is how long the kernel's table of mounts is believed.
const ownMountsAge = 3 * time.Second

// ownMounts knows the mounts of millrace on this machine. A directory that is a source may hold one, even one that
// shows this very directory: a walk of it would never end, and a process that reads its own mount waits for itself.
type ownMounts struct {
	// mu guards the rest.
	mu      sync.Mutex
	devices map[uint64]bool
	at      time.Time
}

// has reports whether a device is that of such a mount.
func (o *ownMounts) has(device uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.devices == nil || time.Since(o.at) > ownMountsAge {
		// Where the table cannot be read, what was known stands.
		if mounts,
			err := mountpoint.Table(func(m *mount.MountInfo) bool { return m.FsType == mountpoint.FSType }); err == nil {
			o.devices = make(map[uint64]bool, len(mounts))
			for _, m := range mounts {
				o.devices[unix.Mkdev(uint32(m.Major), uint32(m.Minor))] = true
			}
		}
		o.at = time.Now()
	}
	return o.devices[device]
}
