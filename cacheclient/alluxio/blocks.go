package alluxio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// Blocks implements cacheclient.Client: the workers that have each block, as the masters know it now.
func (c *Client) Blocks(ctx context.Context, path string) ([]cacheclient.Block, error) {
	info, err := c.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	if info.Dir {
		return nil, fmt.Errorf("blocks of %q: %w", path, cacheclient.ErrIsDir)
	}
	f, err := c.store.status(ctx, path)
	if err != nil {
		return nil, err
	}
	l := layout{fileID: f.GetFileId(), blockSize: max(f.GetBlockSizeBytes(), 1), size: f.GetLength()}
	blocks := make([]cacheclient.Block, 0, l.blocks())
	for k := range l.blocks() {
		b := cacheclient.Block{Offset: int64(k) * l.blockSize, Length: l.length(k), Where: []string{}}
		for _, loc := range locations(f, k) {
			w, err := c.cluster.At(loc.GetWorkerAddress())
			if err != nil {
				continue
			}
			if c.local.is(w) {
				b.Where = append([]string{w.Addr()}, b.Where...)
			} else {
				b.Where = append(b.Where, w.Addr())
			}
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// locations are those of the k-th block.
func locations(f *wire.FileInfo, k int) []*wire.BlockLocation {
	infos := f.GetFileBlockInfos()
	if k >= len(infos) {
		return nil
	}
	return infos[k].GetBlockInfo().GetLocations()
}

// Capacity implements cacheclient.Client: the workers' tiers together, as the masters told lately.
func (c *Client) Capacity() cacheclient.Capacity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.capacity
}

// measure asks the masters for the workers' use.
func (c *Client) measure(ctx context.Context) {
	infos, err := c.cluster.WorkerInfos(ctx)
	if err != nil {
		return
	}
	var sum cacheclient.Capacity
	for _, w := range infos {
		host := w.GetAddress().GetHost()
		sum.Quota += w.GetCapacityBytes()
		sum.Used += w.GetUsedBytes()
		sum.Levels = append(sum.Levels, cacheclient.Level{
			Where: fmt.Sprintf("%s:%d", host, w.GetAddress().GetRpcPort()), Quota: w.GetCapacityBytes(), Used: w.GetUsedBytes(),
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.capacity = sum
}

const (
	// usePatience is how long to wait for the masters to count what the workers have: workers tell with their heartbeats.
	usePatience = 1500 * time.Millisecond
	useAgain    = 50 * time.Millisecond
)

// awaitUse measures until the bytes in use satisfy enough, or for usePatience.
func (c *Client) awaitUse(ctx context.Context, enough func(used int64) bool) {
	ctx, cancel := context.WithTimeout(ctx, usePatience)
	defer cancel()
	for {
		c.measure(ctx)
		if enough(c.Capacity().Used) || !sleep(ctx, useAgain) {
			return
		}
	}
}

// Cluster describes the cluster to an operator.
type Cluster struct {
	// Leader is the leading master, host:port.
	Leader string `json:"leader"`
	// Masters are all of them.
	Masters []string `json:"masters"`
	// Version is Alluxio's.
	Version string `json:"version"`
	// Workers are those that live.
	Workers []WorkerUse `json:"workers"`
}

// WorkerUse is one worker.
type WorkerUse struct {
	Addr string `json:"addr"`
	// Capacity and Used are in bytes.
	Capacity int64 `json:"capacity"`
	Used     int64 `json:"used"`
	// Local says that its files are read on this machine without it.
	Local bool `json:"local"`
}

// Describe asks the masters about the cluster.
func (c *Client) Describe(ctx context.Context) (Cluster, error) {
	info, err := c.cluster.MasterInfo(ctx)
	if err != nil {
		return Cluster{}, err
	}
	leader, err := c.cluster.Leader(ctx)
	if err != nil {
		return Cluster{}, err
	}
	out := Cluster{Leader: leader, Masters: c.cfg.Address.Masters, Version: info.Version}
	workers, err := c.cluster.WorkerInfos(ctx)
	for _, w := range workers {
		use := WorkerUse{
			Addr:     fmt.Sprintf("%s:%d", w.GetAddress().GetHost(), w.GetAddress().GetRpcPort()),
			Capacity: w.GetCapacityBytes(), Used: w.GetUsedBytes(),
		}
		if known, err := c.cluster.At(w.GetAddress()); err == nil {
			use.Local = c.local.is(known)
		}
		out.Workers = append(out.Workers, use)
	}
	if errors.Is(err, cacheclient.ErrUnavailable) {
		// A leader in safe mode tells nothing of workers yet.
		return out, nil
	}
	return out, err
}
