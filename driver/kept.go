package driver

import (
	"context"
	"os"
	"slices"

	"millrace.io/millrace/fuse/handover"
)

// takeKept takes back what the keeper has of a volume, and reports whether it has it and the mount is there. The agent
// that is connected, or the next one, is given it. Without that an error is the keeper's. The caller has the volume's
// lock.
func (d *Driver) takeKept(ctx context.Context, rec record) (record, bool, error) {
	id := rec.Volume.ID
	if d.third.keeper == nil || rec.Mount == "" || !isMounted(rec) {
		return rec, false, nil
	}
	if err := d.third.await(ctx); err != nil {
		return rec, false, err
	}
	if d.third.present() == 0 {
		return rec, false, nil
	}
	device, state, err := d.third.get(ctx, id, rec.Mount)
	if err != nil || device == nil {
		if d.third.present() == 0 {
			// It has gone meanwhile, with what it had.
			err = nil
		}
		return rec, false, err
	}
	rec, ok, err := d.restore(ctx, rec)
	if err != nil || !ok {
		handover.CloseAll([]*os.File{device, state})
		return rec, err != nil, err
	}
	d.third.put(ctx, d.custody.add(rec.Volume, rec.Mount, device, state, 0))
	d.log.Info("a volume was taken back from the keeper", "volume", id)
	return rec, true, nil
}

// isMounted reports whether the volume's mount is still at one of its places.
func isMounted(rec record) bool {
	paths := []string{rec.Volume.Dir}
	for _, t := range rec.Targets {
		paths = append(paths, t.Path)
	}
	return slices.ContainsFunc(paths, func(path string) bool {
		mounts, err := layers(path)
		return err == nil && len(mounts) > 0 && mounts[len(mounts)-1].Minor == rec.Minor
	})
}

// adoptKept takes from the keeper what an earlier process left there, whether or not an agent is there, and has it drop
// what no record knows.
func (d *Driver) adoptKept(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, keeperTime)
	kept, err := d.third.keeper.List(asking)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			d.log.Info("the keeper does not tell what it keeps", "error", err)
		}
		return
	}
	ids := make([]string, 0, len(kept))
	for _, k := range kept {
		ids = append(ids, k.ID)
	}
	err = d.each(ctx, ids, func(ctx context.Context, id string) error {
		rec, ok := d.records.get(id)
		switch {
		case !ok && len(d.records.damaged) > 0:
			// Its record may be the one that could not be read.
			return nil
		case !ok:
			d.log.Warn("the keeper drops a volume that no record knows", "volume", id)
			return d.third.drop(ctx, id)
		case rec.Phase == phasePartial || d.custody.holds(id):
			return nil
		}
		_, _, err := d.takeKept(ctx, rec)
		return err
	})
	if err != nil && ctx.Err() == nil {
		d.log.Info("some volumes were not taken from the keeper yet", "error", err)
	}
}
