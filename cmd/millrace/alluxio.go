package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// isAlluxio reports whether a source is a cluster.
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

// openVolume is openAlluxio for a volume that is staged. One that has nothing, neither a mount nor a file, is not there
// yet: a Dataset's masters lead a moment before the controller has made its mounts, and a pod that was started that
// early would run on an empty directory. A Dataset without mounts says that it may be empty. Its stager tries again.
// The client that looks is another one than the
// one that serves, as it may have read the mount table before what it lists was mounted, and would not know the source.
func openVolume(ctx context.Context, source string, cfg alluxio.Config, given alluxio.Given) (
	cacheclient.Client, error,
) {
	if !cfg.Deferred {
		if err := lookInto(ctx, source, cfg, given); err != nil {
			return nil, err
		}
	}
	client, err := openAlluxio(ctx, source, cfg, given)
	if err != nil {
		return nil, err
	}
	return client, nil
}

// lookInto fails while there is nothing.
func lookInto(ctx context.Context, source string, cfg alluxio.Config, given alluxio.Given) error {
	client, err := openAlluxio(ctx, source, cfg, given)
	if err != nil {
		return err
	}
	page, err := client.List(ctx, "", cacheclient.Cursor{}, 1, false)
	if err == nil && len(page.Entries) == 0 && !client.MayBeEmpty() {
		err = fmt.Errorf("%s is empty: nothing is mounted there yet: %w", source, cacheclient.ErrUnavailable)
	}
	return errors.Join(err, client.Close())
}
