package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config says what cluster to start. The zero value is three masters and two workers with small heaps.
type Config struct {
	// Masters and Workers are how many of each; 0 is 3 masters, and 2 workers. NoWorkers is a cluster without any.
	Masters, Workers int
	NoWorkers        bool
	// SameHost puts all servers on 127.0.0.1, so that each worker is local to a client there. Otherwise each
	// server has an address of its own.
	SameHost bool
	// Proxies puts a proxy that can misbehave between clients and each server (Server.Proxy). The servers reach each other
	// without.
	Proxies bool
	// UFS is the root under store: a directory that stays as it is when the cluster stops, or a URI that Alluxio
	// mounts. "" is an empty directory that goes with the cluster.
	UFS string
	// BlockSize is the block size of new files in bytes; 0 is 1 MiB.
	BlockSize int64
	// TierQuota is what each worker's tier in /dev/shm holds, in bytes; 0 is 256 MiB.
	TierQuota int64
	// ElectionMin and ElectionMax are between which the masters' election timeouts are drawn; 0 is 1 s and 2 s.
	ElectionMin, ElectionMax time.Duration
	// Properties are more site properties for all servers and for clients of this package; those for masters and
	// for workers only go before them, and all of them before the ones that the package sets. Nothing guards the source
	// against a TTL by itself (alluxio.master.metadata.sync.ignore.ttl): clients must be safe without.
	Properties, MasterProperties, WorkerProperties map[string]string
	// MasterHeap and WorkerHeap are the largest heaps in bytes; 0 is 128 and 96 MiB. WorkerDirect bounds a worker's
	// memory outside its heap, in which it sends blocks; 0 is 64 MiB.
	MasterHeap, WorkerHeap, WorkerDirect int64
	// Optimise has Java compile for speed and not for a quick start: for benchmarks.
	Optimise bool
}

const mib = 1 << 20

// withDefaults fills in what is not said, and refuses what cannot be.
func (c Config) withDefaults() (Config, error) {
	orInt(&c.Masters, 3)
	if c.NoWorkers {
		if c.Workers != 0 {
			return c, fmt.Errorf("NoWorkers of the cluster.Config is set and Workers is %d: one of them", c.Workers)
		}
	} else {
		orInt(&c.Workers, 2)
	}
	orInt(&c.BlockSize, mib)
	orInt(&c.TierQuota, 256*mib)
	orInt(&c.MasterHeap, 128*mib)
	orInt(&c.WorkerHeap, 96*mib)
	orInt(&c.WorkerDirect, 64*mib)
	if c.ElectionMin == 0 && c.ElectionMax == 0 {
		c.ElectionMin, c.ElectionMax = time.Second, 2*time.Second
	}
	for _, n := range []struct {
		name      string
		value     int64
		min, most int64
	}{
		{"Masters", int64(c.Masters), 1, 9},
		{"Workers", int64(c.Workers), 0, 64},
		{"BlockSize", c.BlockSize, 1, 1 << 40},
		{"TierQuota", c.TierQuota, 1, 1 << 50},
		{"MasterHeap", c.MasterHeap, 64 * mib, 1 << 40},
		{"WorkerHeap", c.WorkerHeap, 64 * mib, 1 << 40},
		{"WorkerDirect", c.WorkerDirect, 16 * mib, 1 << 40},
	} {
		if n.value < n.min || n.value > n.most {
			return c, fmt.Errorf("%s of the cluster.Config is %d: from %d to %d", n.name, n.value, n.min, n.most)
		}
	}
	if c.ElectionMin <= 0 || c.ElectionMax <= c.ElectionMin {
		return c, fmt.Errorf("ElectionMin of the cluster.Config is %v and ElectionMax %v: both above 0, the second "+
			"the larger", c.ElectionMin, c.ElectionMax)
	}
	return c, checkUFS(c.UFS)
}

// checkUFS refuses a directory that is none; whether Alluxio can mount a URI it says itself.
func checkUFS(ufs string) error {
	if ufs == "" || strings.Contains(ufs, "://") {
		return nil
	}
	if info, err := os.Stat(ufs); err != nil || !info.IsDir() || !filepath.IsAbs(ufs) {
		return fmt.Errorf("UFS of the cluster.Config is %q: the absolute path of a directory, or a URI", ufs)
	}
	return nil
}

func orInt[T int | int64](value *T, otherwise T) {
	if *value == 0 {
		*value = otherwise
	}
}
