package driver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/mountpoint"
)

// publish binds the staged volume to a target, in a directory that it makes. The caller has the volume's lock.
func (d *Driver) publish(ctx context.Context, rec record, t target) error {
	id := rec.Volume.ID
	if err := mayPublish(rec, t, d.mountsOf(rec.handle())); err != nil {
		return err
	}
	if err := makeDir(t.Path); err != nil {
		return fmt.Errorf("making the target: %w", err)
	}
	// Something else that is mounted there would keep the target in the record for ever.
	if _, err := layers(t.Path); err != nil {
		return err
	}
	added := rec.target(t.Path) == nil
	if added {
		// The record goes first: a mount that no record tells of would stay for ever.
		rec = rec.with(t)
		if err := d.records.put(id, rec); err != nil {
			return err
		}
	}
	err := bind(ctx, rec, t)
	if err == nil || !added {
		return err
	}
	return errors.Join(err, d.unpublish(context.WithoutCancel(ctx), rec.handle(), t.Path))
}

// mayPublish reports whether the volume, which has these mounts, may be published at one place more, or once more at
// the same.
func mayPublish(rec record, t target, mounts []record) error {
	id := rec.handle()
	if old := rec.target(t.Path); old != nil {
		if !old.sameUse(t) {
			return status.Errorf(codes.AlreadyExists,
				"volume %s is published at %s with another readonly or access mode", id, t.Path)
		}
		return nil
	}
	for _, mount := range mounts {
		for _, other := range mount.Targets {
			if t.Alone || other.Alone {
				return status.Errorf(codes.FailedPrecondition,
					"volume %s is published at %s, and SINGLE_NODE_SINGLE_WRITER allows one place", id, other.Path)
			}
		}
	}
	return nil
}

// bind has the target show the volume's present mount, and nothing else of ours. A target that does so stays as
// it is.
func bind(ctx context.Context, rec record, t target) error {
	mounts, err := layers(t.Path)
	if err != nil {
		return err
	}
	if len(mounts) == 1 && mounts[0].Minor == rec.Minor {
		return nil
	}
	if err := unmountAll(ctx, t.Path, mountpoint.Lazily); err != nil {
		return err
	}
	// A bare staging directory is the host's disk.
	if minor, err := mountedDevice(rec.Volume.Dir); err != nil || minor != rec.Minor {
		return errors.Join(err, fmt.Errorf("binding %s: the volume's mount is not at %s", t.Path, rec.Volume.Dir))
	}
	return bounded(ctx, "binding "+t.Path, func() error {
		err := mountpoint.Bind(rec.Volume.Dir, t.Path, t.ReadOnly)
		if err == nil && ctx.Err() != nil {
			// The caller has gone, and may have unpublished meanwhile.
			err = errors.Join(ctx.Err(), mountpoint.Detach(t.Path, mountpoint.Lazily))
		}
		return err
	})
}

// unpublish takes the volume away from a target and removes its directory. A target that is not there is no
// error. The caller has the volume's lock.
func (d *Driver) unpublish(ctx context.Context, id, path string) error {
	if err := unmountAll(ctx, path, mountpoint.Lazily); err != nil {
		return err
	}
	if err := bounded(ctx, "removing "+path, func() error { return removeDir(path) }); err != nil {
		return err
	}
	var errs []error
	for _, rec := range d.mountsOf(id) {
		errs = append(errs, d.withdraw(ctx, rec, path))
	}
	return errors.Join(errs...)
}

// withdraw takes the target out of the record of a mount, and the mount away where its last target has gone with
// which it goes.
func (d *Driver) withdraw(ctx context.Context, rec record, path string) error {
	// What was staged by a publishing that was cut short has no target yet, and nothing else ends it.
	if rec.target(path) == nil && (!rec.Ephemeral || len(rec.Targets) > 0) {
		return nil
	}
	rec = rec.without(path)
	if rec.Ephemeral && len(rec.Targets) == 0 {
		return d.clear(ctx, rec)
	}
	return d.records.put(rec.Volume.ID, rec)
}

// stillPublished is a target of the volume at which something of ours is mounted, "" where there is none.
func stillPublished(rec record) string {
	for _, t := range rec.Targets {
		if mounts, err := layers(t.Path); err != nil || len(mounts) > 0 {
			return t.Path
		}
	}
	return ""
}
