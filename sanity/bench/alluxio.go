package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/cluster"
)

// What the clusters show, as directories of Alluxio's root.
const (
	// inOne has the large file in one block, inBlocks in blocks of 64 MiB, and inMany is a tree of small files: their
	// under stores are directories of this machine.
	inOne, inBlocks, inMany = "one", "blocks", "many"
	// inLimited and inBare have the large file in one block; their under stores are gateways to web servers, one of 100
	// MB/s and one without limits.
	inLimited, inBare = "limited", "bare"
	// tinyName is a file beside the large one in inOne.
	tinyName = "tiny"
)

const (
	// alluxioFiles is how many files the listings have at most.
	alluxioFiles = 10_000
	// manyBlocks is the block size of inBlocks in bytes.
	manyBlocks = 64 << 20
	// sourceRate is the limit of the source of inLimited in bytes a second.
	sourceRate = 100_000_000
	// alluxioLimit bounds each question to the cluster, and each filling of a cache.
	alluxioLimit = 2 * time.Minute
	// cachedLimit bounds how long a block takes to be cached after its last byte was read.
	cachedLimit = 30 * time.Second
)

// alluxioRig is a running cluster and what is shown in it.
type alluxioRig struct {
	cluster *cluster.Cluster
	// masters and client are ours: by them the benchmark mounts, warms, frees and looks.
	masters *rpc.Cluster
	client  *alluxio.Client
	// limited and bare are the sources behind inLimited and inBare, nil where the cluster has none.
	limited, bare *webServer
	// spared are the mappings of block files that spareBlocks made.
	spared [][]byte
}

// alluxioGroups are measured against a cluster of three masters and one worker.
func alluxioGroups() []group {
	return []group{
		{[]string{"alluxio-mount"}, (*bench).measureAlluxioMount},
		{
			[]string{
				"alluxio-ls-fresh", "alluxio-ls-again", "alluxio-warm-seq", "alluxio-warm-seq-blocks",
				"alluxio-rand4k", "alluxio-rand4k-blocks", "alluxio-mmap", "alluxio-memory",
			},
			(*bench).measureAlluxioLocal,
		},
		{[]string{"alluxio-remote-seq"}, (*bench).measureAlluxioRemote},
		{[]string{"alluxio-client-seq", "alluxio-client-cpu"}, (*bench).measureAlluxioClient},
		{[]string{"alluxio-cold-limited", "alluxio-cold-traffic"}, (*bench).measureAlluxioCold},
		{[]string{"alluxio-cold-limited-gateway", "alluxio-cold-traffic-gateway"}, (*bench).measureAlluxioGateway},
		{[]string{"alluxio-cold-readers", "alluxio-cold-readers-gateway"}, (*bench).measureAlluxioReaders},
		{[]string{"alluxio-cold-seq"}, (*bench).measureAlluxioBare},
		{[]string{"alluxio-cold-tail"}, (*bench).measureAlluxioTail},
	}
}

// startAlluxio starts the cluster and its sources, and warms what is read warm.
func (b *bench) startAlluxio() error {
	fmt.Println("starting three Alluxio masters and a worker")
	if err := b.startCluster(cluster.Config{Workers: 1}); err != nil {
		return err
	}
	for _, dir := range []string{inOne, inBlocks, inMany} {
		if err := b.showDirectory(dir); err != nil {
			return err
		}
	}
	var err error
	if b.alluxio.limited, err = startServer(b.session, b.data, "-total", strconv.Itoa(sourceRate)); err != nil {
		return err
	}
	b.alluxio.bare = b.bare
	for dir, server := range map[string]*webServer{inLimited: b.alluxio.limited, inBare: b.alluxio.bare} {
		if err := b.showServer(dir, server); err != nil {
			return err
		}
	}
	for _, file := range []string{inOne + "/" + tinyName, inOne + "/" + bigName(0), inBlocks + "/" + bigName(0)} {
		if err := b.warmAlluxio(file); err != nil {
			return err
		}
	}
	if err := b.alluxio.spareBlocks(); err != nil {
		return err
	}
	// The master learns of all files, and Java compiles what lists them.
	for range 3 {
		if _, err := b.alluxio.walk(b.session.Context(), ""); err != nil {
			return err
		}
	}
	return nil
}

// stopAlluxio stops the cluster.
func (b *bench) stopAlluxio() error {
	rig := b.alluxio
	if rig == nil {
		return nil
	}
	b.alluxio = nil
	err := rig.release()
	if rig.client != nil {
		err = errors.Join(err, rig.client.Close())
	}
	if rig.masters != nil {
		rig.masters.Release()
	}
	return errors.Join(err, rig.cluster.Stop())
}

// startCluster starts a cluster and connects to it. An error wraps errAbsent where it needs a program that is not here.
func (b *bench) startCluster(cfg cluster.Config) error {
	if err := b.makeAlluxioData(); err != nil {
		return err
	}
	cfg.Optimise = true
	cfg.TierQuota = 4*b.cfg.size + 1<<30
	cfg.MasterHeap, cfg.WorkerHeap, cfg.WorkerDirect = 512<<20, 512<<20, 1<<30
	c, err := cluster.Start(b.session.Context(), cfg)
	if errors.Is(err, cluster.ErrMissing) {
		return fmt.Errorf("%w: %w", errAbsent, err)
	}
	if err != nil {
		return err
	}
	b.alluxio = &alluxioRig{cluster: c}
	b.session.Defer(func() { _ = c.Stop() })
	addr, err := rpc.ParseAddress(c.Address())
	if err != nil {
		return err
	}
	if b.alluxio.masters, err = rpc.Connect(rpc.Config{Masters: addr.Masters}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.session.Context(), alluxioLimit)
	defer cancel()
	b.alluxio.client, err = alluxio.New(ctx, alluxio.Config{Address: addr, TTL: -1, NameTTL: -1})
	return err
}

// makeAlluxioData makes the directories that are under stores: other names of the large file, and a tree of small ones.
func (b *bench) makeAlluxioData() error {
	root := filepath.Join(b.data, "alluxio")
	if _, err := os.Stat(root); err == nil {
		return nil
	}
	for _, dir := range []string{inOne, inBlocks, inMany} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{inOne, inBlocks} {
		if err := os.Link(filepath.Join(b.data, "big", bigName(0)), filepath.Join(root, dir, bigName(0))); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, inOne, tinyName), []byte("tiny\n"), 0o644); err != nil {
		return err
	}
	if err := makeTree(filepath.Join(root, inMany), min(b.cfg.files, alluxioFiles)); err != nil {
		return err
	}
	return age(root)
}

// alluxioData is the under store of a directory.
func (b *bench) alluxioData(dir string) string { return filepath.Join(b.data, "alluxio", dir) }

// blockSize is the block size of a directory's files in bytes. All but inBlocks have each file in one block.
func (b *bench) blockSize(dir string) int64 {
	if dir == inBlocks {
		return manyBlocks
	}
	return max(2<<30, b.cfg.size)
}

// blockSizeProperty is the property of a mount that sets it.
func (b *bench) blockSizeProperty(dir string) map[string]string {
	return map[string]string{"alluxio.user.block.size.bytes.default": strconv.FormatInt(b.blockSize(dir), 10)}
}

// showDirectory mounts a directory of this machine in Alluxio.
func (b *bench) showDirectory(dir string) error {
	return b.show(rpc.Mount{
		Path: "/" + dir, Source: b.alluxioData(dir), ReadOnly: true,
		Properties: b.blockSizeProperty(dir),
	})
}

// show makes a mount in Alluxio.
func (b *bench) show(m rpc.Mount) error {
	ctx, cancel := context.WithTimeout(b.session.Context(), alluxioLimit)
	defer cancel()
	if err := b.alluxio.masters.Mount(ctx, m); err != nil {
		return fmt.Errorf("mount %s in Alluxio: %w", m.Path, err)
	}
	return nil
}

// warmAlluxio brings a file into the worker.
func (b *bench) warmAlluxio(file string) error {
	ctx, cancel := context.WithTimeout(b.session.Context(), alluxioLimit)
	defer cancel()
	return b.alluxio.client.Warm(ctx, file, nil)
}

// coolAlluxio frees a file in the worker.
func (b *bench) coolAlluxio(file string) error {
	ctx, cancel := context.WithTimeout(b.session.Context(), alluxioLimit)
	defer cancel()
	if _, err := b.alluxio.client.Free(ctx, file); err != nil {
		return err
	}
	if missing, err := b.alluxio.missing(ctx, file); err != nil || missing > 0 {
		return err
	}
	return fmt.Errorf("%s is still cached after it was freed", file)
}

// awaitCached waits until every block of the file is cached.
func (b *bench) awaitCached(file string) error {
	ctx, cancel := context.WithTimeout(b.session.Context(), cachedLimit)
	defer cancel()
	for {
		missing, err := b.alluxio.missing(ctx, file)
		if err == nil && missing == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%d blocks of %s are not cached after %v", missing, file, cachedLimit), err)
		}
	}
}

// missing is how many blocks of a file no worker has.
func (r *alluxioRig) missing(ctx context.Context, file string) (int, error) {
	blocks, err := r.client.Blocks(ctx, file)
	missing := 0
	for _, block := range blocks {
		if len(block.Where) == 0 {
			missing++
		}
	}
	return missing, err
}

// walk lists a tree, and returns how many files it has.
func (r *alluxioRig) walk(ctx context.Context, dir string) (int, error) {
	files := 0
	for from := (cacheclient.Cursor{}); ; {
		page, err := r.client.List(ctx, dir, from, 1000, true)
		if err != nil {
			return files, err
		}
		for _, e := range page.Entries {
			if !e.Dir {
				files++
				continue
			}
			n, err := r.walk(ctx, e.Path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return files, err
			}
			files += n
		}
		from = page.Next
		if page.End {
			return files, nil
		}
	}
}
