package masters

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// repair brings the mount table to what is wanted.
func repair(ctx context.Context, conn *rpc.Cluster, wanted []rpc.Mount) error {
	table, err := conn.MountTable(ctx)
	if err != nil {
		return err
	}
	dirs, err := readParents(ctx, conn)
	if err != nil {
		return err
	}
	var errs []error
	failed := func(path string, err error) {
		errs = append(errs, fmt.Errorf("the mount %s: %w", path, err))
	}
	p := planned(table, wanted)
	for _, path := range p.unmount {
		err := dirs.note(ctx, path)
		if err == nil {
			err = conn.Unmount(ctx, path)
		}
		if err != nil {
			failed(path, err)
			p.remains(path)
		}
	}
	for _, m := range p.update {
		if err := conn.UpdateMount(ctx, m); err != nil {
			failed(m.Path, err)
		}
	}
	errs = append(errs, dirs.sweep(ctx, p.leftovers(dirs.made)))
	there := p.stay
	for _, m := range p.mount {
		if err := mountIn(ctx, conn, dirs, m, &p, there); err != nil {
			failed(m.Path, err)
			continue
		}
		there = append(there, m.Path)
	}
	return errors.Join(errs...)
}

// mountIn makes a mount, and before that the directories that it is in. there are the mounts that are there.
func mountIn(
	ctx context.Context, conn *rpc.Cluster, dirs *parents, m rpc.Mount, p *plan, there []string,
) error {
	if outer, missing := p.missing(m.Path, there); missing {
		return fmt.Errorf("it is in the mount %s, which is not there", outer)
	}
	if err := dirs.make(ctx, m.Path, there); err != nil {
		return err
	}
	if err := dirs.clear(ctx, m.Path, there); err != nil {
		return err
	}
	if err := conn.Mount(ctx, m); err != nil {
		return moduleMissing(m.Source, err)
	}
	return nil
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
