package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/fuse/agent"
	"millrace.io/millrace/fuse/handover"
)

// backend opens what volumes show, for an agent.
type backend struct {
	// tierDirs are where volumes may cache; the first is for those that name none.
	tierDirs []string
	// quota is the tier of a volume that names none, and keep what the caches of one tier directory that no volume uses
	// any more may take with the others, in bytes; 0 stands for half of its file system.
	quota, keep int64
	// allowLocal are the directories that local sources must be in.
	allowLocal []string
	// localHosts are the names by which workers of this machine go; the machine's own where it is empty.
	localHosts []string
	// networkDir has the operator's settings of the network, "" for none. Sources that are opened have them as they are
	// then.
	networkDir string
	// budget is the memory that all volumes bring bytes in through.
	budget *embedded.Budget
	// mounts are those of this machine.
	mounts ownMounts
	// caches are those above under stores.
	caches caches
	log    *slog.Logger

	// pruning serializes prunings; pruned counts their goroutines.
	pruning sync.Mutex
	pruned  sync.WaitGroup
}

// open opens a volume's source and the tier above it.
func (b *backend) open(ctx context.Context, v handover.Volume, resumed bool) (cacheclient.Client, error) {
	connections := orDefault(v.Connections, defaultVolumeConnections)
	timeout := orDefault(v.Timeout, defaultVolumeTimeout)
	revalidate := orDefault(v.Revalidate, time.Minute)
	if isAlluxio(v.Source) {
		settings, err := b.network(resumed)
		if err != nil {
			return nil, err
		}
		return openVolume(ctx, v.Source, alluxio.Config{
			// The mount table names directories as the masters see them; those of this node are another matter.
			SourceOptions: ufs.Options{
				Network: settings, Within: b.allowLocal, Left: b.mounts.has,
				Log: b.log,
			}, NoLocalSources: len(b.allowLocal) == 0,
			TTL: revalidate, NameTTL: nameTTLs * revalidate, Timeout: timeout, Connections: connections,
			LocalHosts: b.localHosts, Budget: b.budget, Deferred: resumed, Log: b.log.With("source", v.Source),
		}, alluxio.Given{Values: v.Options, Secrets: v.Secrets})
	}
	opened, err := b.openStore(ctx, v, resumed)
	if err != nil {
		return nil, err
	}
	store := newRenewable(opened)
	level := embedded.LevelConfig{Dir: v.TierDir, Quota: v.Quota, High: v.High, Low: v.Low}
	if level.Dir == "" {
		level.Dir = b.tierDirs[0]
	}
	if level.Quota == 0 {
		level.Quota = b.quota
	}
	b.prune(level.Dir)
	wish := embedded.Tuning{TTL: revalidate, NameTTL: nameTTLs * revalidate, Level: level}
	use, err := b.caches.open(ctx, store, wish, func() (*embedded.Cache, error) {
		return embedded.New(store, embedded.Config{
			Levels: []embedded.LevelConfig{level}, TTL: revalidate, NameTTL: nameTTLs * revalidate,
			Timeout: timeout, Connections: connections, Budget: b.budget, Log: b.log.With("source", v.Source),
		})
	})
	if err != nil {
		return nil, err
	}
	return &volumeCache{cacheUse: use, backend: b}, nil
}

// volumeCache is a volume's use of a cache.
type volumeCache struct {
	*cacheUse
	backend *backend
}

var (
	_ cacheclient.Client = (*volumeCache)(nil)
	_ agent.Renewer      = (*volumeCache)(nil)
)

// Renew implements agent.Renewer. The source is asked with the new secrets before they count.
func (c *volumeCache) Renew(ctx context.Context, v handover.Volume) error {
	store, err := c.backend.openStore(ctx, v, false)
	if err != nil {
		return err
	}
	return c.of.store.renew(store)
}

// openStore opens a volume's source.
func (b *backend) openStore(ctx context.Context, v handover.Volume, deferred bool) (ufs.Store, error) {
	settings, err := b.network(deferred)
	if err != nil {
		return nil, err
	}
	return ufs.Open(ctx, v.Source, ufs.Options{
		Network: settings, Values: v.Options, Secrets: v.Secrets,
		ResponseTimeout: orDefault(v.Timeout, defaultVolumeTimeout),
		MaxConns:        orDefault(v.Connections, defaultVolumeConnections),
		Deferred:        deferred, Within: b.allowLocal, Left: b.mounts.has, Log: b.log.With("source", v.Source),
	})
}

// network reads the operator's settings. Users of a volume that goes on are not left without it for what they cannot
// mend.
func (b *backend) network(resumed bool) (network.Settings, error) {
	if b.networkDir == "" {
		return network.Settings{}, nil
	}
	settings, err := network.Read(b.networkDir)
	if err != nil && resumed {
		b.log.Error("a volume goes on without the network's settings", "error", err)
		return network.Settings{}, nil
	}
	return settings, err
}

const (
	defaultVolumeTimeout     = 10 * time.Second
	defaultVolumeConnections = 16
)

// prune has the tier directory rid of what volumes of the past left there, beyond what may be kept, in the
// background.
func (b *backend) prune(dir string) {
	b.pruned.Go(func() {
		if !b.pruning.TryLock() {
			return
		}
		defer b.pruning.Unlock()
		most := b.keep
		if most == 0 {
			size, err := fileSystemSize(dir)
			if err != nil {
				b.log.Warn("a tier directory cannot be looked at", "dir", dir, "error", err)
				return
			}
			most = size / 2
		}
		// Those in use have a lock.
		freed, err := embedded.Prune(dir, func(string) bool { return false }, most)
		if err != nil {
			b.log.Warn("a tier directory was not cleaned up", "dir", dir, "error", err)
		}
		if freed > 0 {
			b.log.Info("caches of the past were removed", "dir", dir, "bytes", freed)
		}
	})
}
