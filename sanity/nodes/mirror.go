package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/pattern"
	"millrace.io/millrace/sanity/serve"
)

// mirrorName is the host that deploy/examples name.
const mirrorName = "mirror.example.org"

// wire is the speed of the web server in bytes a second, 100 Mbit/s as of a server far away.
const wire = 100e6 / 8

// tree is like the directory that the examples name, and smaller: 110 MB.
var tree = map[string]int64{
	"apache/hbase/stable/CHANGES.md":                    521 << 10,
	"apache/hbase/stable/RELEASENOTES.md":               312 << 10,
	"apache/hbase/stable/hbase-2.6.3-bin.tar.gz":        64*1<<20 + 613<<10,
	"apache/hbase/stable/hbase-2.6.3-client-bin.tar.gz": 36*1<<20 + 702<<10,
	"apache/hbase/stable/hbase-2.6.3-src.tar.gz":        3*1<<20 + 411<<10,
}

// startMirror starts a web server that pods reach by the name of the examples, until the context ends.
func startMirror(ctx context.Context, c *kubenodes.Cluster) error {
	root := filepath.Join(c.Dir(), "mirror")
	for name, size := range tree {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := pattern.Write(path, name, size); err != nil {
			return err
		}
	}
	handler, err := serve.New(root, serve.Options{BytesPerSecond: wire})
	if err != nil {
		return err
	}
	listener, err := c.Control().Listen(ctx, "tcp", kubenodes.ControlPlane+":80")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	return nil
}
