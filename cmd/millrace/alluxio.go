package main

import (
	"context"
	"strings"

	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// isAlluxio tells whether a source is a cluster.
func isAlluxio(source string) bool { return strings.HasPrefix(source, rpc.Scheme+"://") }

// openAlluxio connects to the cluster that source names.
func openAlluxio(ctx context.Context, source string, cfg alluxio.Config, given alluxio.Given) (*alluxio.Client, error) {
	addr, err := rpc.ParseAddress(source)
	if err != nil {
		return nil, err
	}
	cfg.Address = addr
	if err := cfg.Apply(ctx, given); err != nil {
		return nil, err
	}
	return alluxio.New(ctx, cfg)
}
