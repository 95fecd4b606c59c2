package masters

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/controller/objects"
)

// repair brings the mount table to what is wanted. A mount that somebody made by hand, which has no hash, stays, unless
// it is where one is wanted.
func repair(ctx context.Context, conn *rpc.Cluster, wanted []rpc.Mount) error {
	table, err := conn.MountTable(ctx)
	if err != nil {
		return err
	}
	byPath := make(map[string]rpc.Mount, len(wanted))
	for _, m := range wanted {
		byPath[m.Path] = m
	}
	// Inner mounts go before those around them.
	paths := slices.Sorted(maps.Keys(table))
	slices.Reverse(paths)
	var errs []error
	for _, path := range paths {
		have := table[path]
		want, kept := byPath[path]
		ours := have.GetProperties()[objects.HashOption]
		switch {
		case path == "/" || !kept && ours == "":
			continue
		case kept && ours == want.Properties[objects.HashOption]:
			delete(byPath, path)
			continue
		case kept && sameSource(have, want):
			err = conn.UpdateMount(ctx, want)
			delete(byPath, path)
		default:
			err = conn.Unmount(ctx, path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the mount %s: %w", path, err))
			delete(byPath, path)
		}
	}
	// Outer mounts come before those inside them.
	for _, path := range slices.Sorted(maps.Keys(byPath)) {
		if err := conn.Mount(ctx, byPath[path]); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, fmt.Errorf("the mount %s: %w", path, moduleMissing(byPath[path].Source, err)))
		}
	}
	return errors.Join(errs...)
}

// moduleMissing says of Alluxio's error that its image cannot read such sources, where it is that.
func moduleMissing(source string, err error) error {
	scheme, _, _ := strings.Cut(source, "://")
	if !strings.Contains(err.Error(), "No Under File System Factory found for") {
		return err
	}
	return fmt.Errorf("the image of Alluxio has no module for %s://; name one that has it in "+
		"AlluxioRuntime.spec.alluxioVersion: %w", scheme, err)
}

// pin keeps what is cached of the mounts from eviction, or lets go of it. What Alluxio comes to know below a directory
// that is pinned is pinned from the beginning.
func pin(ctx context.Context, conn *rpc.Cluster, mounts []rpc.Mount, pinned bool) error {
	for _, m := range mounts {
		info, err := conn.Status(ctx, m.Path, rpc.NeverSync)
		if err == nil && info.GetPinned() != pinned {
			err = conn.Pin(ctx, m.Path, pinned)
		}
		if err != nil {
			return fmt.Errorf("data.pin of the mount %s: %w", m.Path, err)
		}
	}
	return nil
}

// sameSource reports whether only options differ, which leaves what is cached.
func sameSource(have *wire.MountPointInfo, want rpc.Mount) bool {
	return trimSlash(have.GetUfsUri()) == trimSlash(want.Source) && have.GetReadOnly() == want.ReadOnly && have.GetShared() == want.Shared
}

func trimSlash(uri string) string {
	for len(uri) > 0 && uri[len(uri)-1] == '/' {
		uri = uri[:len(uri)-1]
	}
	return uri
}
