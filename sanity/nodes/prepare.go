package main

import (
	"context"
	"io"
	"os"
	"time"

	"millrace.io/millrace/deploy/heartbeat"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/images"
	"millrace.io/millrace/sanity/kube"
	"millrace.io/millrace/sanity/kubenodes"
)

// prepareLimit bounds the build, which takes a quarter of an hour on two busy cores with nothing built before.
const prepareLimit = 40 * time.Minute

// prepareMachine builds what is built once. Where there can be no cluster it says so, as the tests do that are skipped
// then.
func prepareMachine(ctx context.Context, out io.Writer, log images.Log) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	if err := kubenodes.Check(); err != nil {
		log("setup: %v; the tests on a cluster of nodes are skipped without it", err)
		return nil
	}
	if !kube.NodesBuilt() {
		log("building Kubernetes' programs for nodes, once: up to 15 min")
	}
	stop := heartbeat.Start(out, heartbeat.Interval, func() string { return "        building Kubernetes' programs" })
	_, err := kube.NodeBinaries(ctx)
	stop()
	if err != nil {
		return err
	}
	stop = heartbeat.Start(out, heartbeat.Interval,
		func() string { return "        fetching Alluxio's jars and archiving their classes" })
	err = cluster.Prepare(ctx)
	stop()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-images-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	stop = heartbeat.Start(out, heartbeat.Interval, func() string { return "        images are built, once" })
	defer stop()
	_, err = images.Build(ctx, dir, log)
	return err
}
