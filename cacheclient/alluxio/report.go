package alluxio

import (
	"context"
	"fmt"
	"os"
	"time"
)

const (
	// reportMetrics is how often the masters are told what was read, and reportPatience how long that may take.
	reportMetrics  = 10 * time.Second
	reportPatience = 5 * time.Second
)

// report tells the masters the bytes that were read from tiers of this machine, until Close: workers do not see those
// reads, and without them Alluxio's own hit ratio is wrong.
func (c *Client) report() {
	host, _ := os.Hostname()
	source := fmt.Sprintf("millrace-%s-%d", host, os.Getpid())
	var told int64
	for sleep(c.life, reportMetrics) {
		now := c.count.bytesLocal.Load()
		if now == told {
			continue
		}
		ctx, cancel := context.WithTimeout(c.life, reportPatience)
		err := c.cluster.Report(ctx, source, map[string]int64{"BytesReadLocal": now - told})
		cancel()
		if err == nil {
			told = now
		}
	}
}
