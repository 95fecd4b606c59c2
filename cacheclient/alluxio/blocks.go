package alluxio

import (
	"context"
	"fmt"
	"time"

	"millrace.io/millrace/cacheclient"
)

// mostBlocksTold is how many blocks of a file are told at once.
const mostBlocksTold = 1 << 18

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
	l, ok := layoutOf(infoOf(f, path))
	if !ok {
		return nil, fmt.Errorf("blocks of %q: %w", path, cacheclient.ErrIsDir)
	}
	if l.blocks() > mostBlocksTold {
		return nil, fmt.Errorf("blocks of %q: it has %d; %d are told: %w", path, l.blocks(), mostBlocksTold,
			cacheclient.ErrTooLarge)
	}
	blocks, places := []cacheclient.Block{}, l.told(f)
	for k := range l.blocks() {
		b := cacheclient.Block{Offset: int64(k) * l.blockSize, Length: l.length(k), Where: []string{}}
		for _, w := range c.workersAt(places[k]) {
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
	if sum.Leader, err = c.cluster.Leader(ctx); err != nil {
		return
	}
	for _, info := range infos {
		w, err := c.cluster.At(info.GetAddress())
		if err != nil {
			continue
		}
		sum.Quota += info.GetCapacityBytes()
		sum.Used += info.GetUsedBytes()
		sum.Levels = append(sum.Levels, cacheclient.Level{
			Where: w.Addr(), Quota: info.GetCapacityBytes(), Used: info.GetUsedBytes(), Local: c.local.isHere(w),
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.capacity = sum
}

const (
	// usePatience is how long to wait for the masters to count what the workers have: workers tell with their heartbeats.
	usePatience = 3 * time.Second
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
