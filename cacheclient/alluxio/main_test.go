package alluxio

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// shared is the cluster of all tests that harm no server for good.
var shared = cluster.Shared{Config: cluster.Config{TierQuota: 512 << 20}}

func TestMain(m *testing.M) {
	code := shared.Run(m)
	for _, own := range []*cluster.Shared{&small, &wired} {
		if err := own.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// mounts numbers the mounts of the tests.
var mounts atomic.Int64

// mountDir shows a directory in the cluster's name space, in blocks of that size, and returns its path there.
func mountDir(t *testing.T, c *cluster.Cluster, dir string, blockSize int64) string {
	t.Helper()
	addr, err := rpc.ParseAddress(c.Address())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := rpc.Connect(rpc.Config{Masters: addr.Masters})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	path := fmt.Sprintf("/m%d", mounts.Add(1))
	if err := conn.Mount(ctx, rpc.Mount{
		Path: path, Source: dir, ReadOnly: true,
		Properties: map[string]string{"alluxio.user.block.size.bytes.default": strconv.FormatInt(blockSize, 10)},
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pace.Limit(30*time.Second))
		defer cancel()
		if err := conn.Unmount(ctx, path); err != nil {
			t.Logf("unmount %s: %v", path, err)
		}
		conn.Release()
	})
	return path
}

// config is that of a client of the cluster, which shows path.
func config(t *testing.T, c *cluster.Cluster, path string) Config {
	t.Helper()
	addr, err := rpc.ParseAddress(strings.TrimSuffix(c.Address(), "/") + path)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Address: addr, SourceOptions: ufs.Options{FollowLinks: true}, Log: testLog(t)}
}

// newClient is a client that is closed with the test.
func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// testLog writes to the test's log.
func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
