package main

import (
	"os"
	"path/filepath"
	"time"

	"millrace.io/millrace/sanity/cluster"
)

// reach is how a mount gets at blocks.
type reach int

const (
	// local reads the worker's files.
	local reach = iota
	// remote has every block come by gRPC.
	remote
	// byGateway is local, and has the worker read what is cold.
	byGateway
)

// mountAlluxio mounts all that the cluster shows, by millrace or by Alluxio's own FUSE.
func (b *bench) mountAlluxio(system string, how reach) (*mount, error) {
	if system == alluxioFuse {
		return b.mountBy(system, func(m *mount) (func(), error) { return b.startAlluxioFuse(m, how) })
	}
	flags := []string{"--revalidate", "1h"}
	switch how {
	case remote:
		flags = append(flags, "--option", "short_circuit=false")
	case byGateway:
		flags = append(flags, "--option", "workers_read=true")
	case local:
	}
	return b.mountBy(system, func(m *mount) (func(), error) {
		return b.mountMillrace(m, b.alluxio.cluster.Address(), flags)
	})
}

// startAlluxioFuse mounts with Alluxio's own FUSE, tuned as its documentation says (cluster.FuseConfig): local to the
// worker, or to none.
func (b *bench) startAlluxioFuse(m *mount, how reach) (stop func(), err error) {
	cfg := cluster.FuseConfig{Host: b.alluxio.cluster.Workers()[0].Host}
	if how == remote {
		cfg = cluster.FuseConfig{Properties: map[string]string{"alluxio.user.short.circuit.enabled": "false"}}
	}
	begin := time.Now()
	f, err := b.alluxio.cluster.Fuse(b.session.Context(), m.dir, cfg)
	if err != nil {
		return func() {}, err
	}
	m.took = time.Since(begin)
	m.pids = []int{f.Pid()}
	return func() {
		if err := f.Stop(); err != nil {
			b.failed("unmount", alluxioFuse, err)
		}
	}, nil
}

// mountEach mounts for both systems, in turn. What fails is noted. The caller closes what is returned.
func (b *bench) mountEach(round int, name string, how reach) map[string]*mount {
	mounts := map[string]*mount{}
	for _, system := range b.turns(round, millrace, alluxioFuse) {
		m, err := b.mountAlluxio(system, how)
		if err != nil {
			b.failed(name, system, err)
			continue
		}
		mounts[system] = m
	}
	return mounts
}

// closeAll closes mounts.
func closeAll(mounts map[string]*mount) {
	for _, m := range mounts {
		m.close()
	}
}

// measureAlluxioMount times the mount command until a file can be looked at.
func (b *bench) measureAlluxioMount(round int) error {
	for _, system := range b.turns(round, millrace, alluxioFuse) {
		var values []float64
		for i := range repeats {
			if i > 0 && system == alluxioFuse {
				break
			}
			v, err := b.mountToStat(system)
			if err != nil {
				b.failed("alluxio-mount", system, err)
				break
			}
			values = append(values, v)
		}
		if len(values) > 0 {
			b.keep("alluxio-mount", system, median(values))
		}
	}
	return nil
}

// mountToStat is how many milliseconds it takes from the mount command's start until a file's attributes are known.
func (b *bench) mountToStat(system string) (float64, error) {
	m, err := b.mountAlluxio(system, local)
	if err != nil {
		return 0, err
	}
	defer m.close()
	begin := time.Now()
	if _, err := os.Stat(filepath.Join(m.dir, inOne, bigName(0))); err != nil {
		return 0, err
	}
	return milliseconds(m.took + time.Since(begin)), nil
}
