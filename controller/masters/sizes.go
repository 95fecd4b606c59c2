package masters

import (
	"context"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// walkEvery is how often the sizes of the sources are found out, while the mounts stay the same.
	walkEvery = time.Hour
	// walkPatience bounds a walk.
	walkPatience = 25 * time.Minute
	// metadataAge is how old the leader's knowledge of a directory may be for it.
	metadataAge = 10 * time.Minute
)

// walk finds out how large the sources are.
func (c *Clusters) walk(ctx context.Context, cl *cluster) {
	ctx, cancel := context.WithTimeout(ctx, walkPatience)
	defer cancel()
	var total, files int64
	var err error
	cl.mu.Lock()
	want := cl.want
	cl.mu.Unlock()
	select {
	case c.walks <- struct{}{}:
		total, files, err = c.measure(ctx, want)
		<-c.walks
	case <-ctx.Done():
		err = ctx.Err()
	}
	cl.mu.Lock()
	cl.walking = false
	if err == nil {
		cl.walked = time.Now()
		cl.state.Sized, cl.state.Total, cl.state.Files = true, total, files
	} else {
		// Not at once again, so that a source that is down is not asked all the time.
		cl.walked = time.Now().Add(time.Minute - walkEvery)
	}
	cl.mu.Unlock()
	if err != nil {
		c.Log.Warn("the sizes of the sources are not known", "dataset", cl.key, "err", err)
		return
	}
	c.Notify(cl.key)
}

// measure adds up all files of the mounts.
func (c *Clusters) measure(ctx context.Context, want Want) (total, files int64, err error) {
	conn, err := connect(want, c.Log)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Release()
	seen := map[string]bool{}
	var queue []string
	for _, m := range want.Mounts {
		queue = append(queue, m.Path)
	}
	for len(queue) > 0 {
		dir := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if seen[dir] {
			continue
		}
		seen[dir] = true
		sum, count, below, err := list(ctx, conn, dir)
		if err != nil {
			return 0, 0, err
		}
		total, files, queue = total+sum, files+count, append(queue, below...)
	}
	return total, files, nil
}

// list adds up the files of one directory, and names the directories in it.
func list(ctx context.Context, conn *rpc.Cluster, dir string) (sum, count int64, below []string, err error) {
	restart := func() error {
		sum, count, below = 0, 0, nil
		return nil
	}
	err = conn.List(ctx, dir, metadataAge, restart, func(f *wire.FileInfo) error {
		if f.GetFolder() {
			below = append(below, f.GetPath())
			return nil
		}
		sum += f.GetLength()
		count++
		return nil
	})
	return sum, count, below, err
}
