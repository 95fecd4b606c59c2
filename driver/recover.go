package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// roundTime is how long after a good round the volumes are looked at again, and shortestRetry and longestRetry
	// bound that time after another one.
	roundTime     = 2 * time.Second
	shortestRetry = 50 * time.Millisecond
	longestRetry  = 2 * time.Second
	// lockPatience is how long a repair waits for a volume that another operation works on: that may do what is needed, or
	// take long, and other volumes wait behind.
	lockPatience = 100 * time.Millisecond
	// askTime bounds questions that the agent answers from its memory.
	askTime = 10 * time.Second
)

// keep brings volumes and the present agent together, again and again, until the context ends.
func (d *Driver) keep(ctx context.Context) {
	retry := shortestRetry
	for {
		pause := roundTime
		if err := d.round(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			d.log.Info("some volumes are not served yet", "error", err, "retry", retry)
			pause, retry = retry, min(2*retry, longestRetry)
		} else {
			retry = shortestRetry
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-d.custody.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// round gives the agent what this process holds and the agent does not serve, takes from keeper and agent what the
// records know and this process does not hold, makes anew what no process has, and ends what no record knows.
// D-038 says why.
func (d *Driver) round(ctx context.Context) error {
	lost, err := d.custody.reattach(ctx)
	errs := []error{err}
	missing := slices.DeleteFunc(d.records.ids(), func(id string) bool {
		return d.custody.holds(id) &&
			!slices.Contains(lost, id)
	})
	errs = append(errs, d.each(ctx, missing, func(ctx context.Context, id string) error {
		rec, ok := d.records.get(id)
		if !ok {
			return nil
		}
		if slices.Contains(lost, id) {
			d.log.Warn("a volume cannot be taken over by this agent and is mounted anew", "volume", id)
			d.custody.release(id)
			// What the keeper has of it is of no more use.
			rec.Mount = ""
			if err := d.records.put(id, rec); err != nil {
				return err
			}
		}
		_, err := d.ensure(ctx, rec)
		return err
	}))
	ids, err := d.custody.list(ctx)
	errs = append(errs, err)
	if err == nil {
		// Every volume was looked at. One that cannot be served now, for its source, does not make the node unready.
		d.adopted.Store(true)
	}
	errs = append(errs, d.tellLost(ctx))
	orphans := slices.DeleteFunc(ids, func(id string) bool { _, ok := d.records.get(id); return ok })
	errs = append(errs, d.each(ctx, orphans, d.endOrphan))
	return errors.Join(errs...)
}

// each runs a repair of several volumes, some at once, each with its volume's lock.
func (d *Driver) each(ctx context.Context, ids []string, repair func(context.Context, string) error) error {
	errs := make([]error, len(ids))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, id := range ids {
		group.Go(func() error {
			ctx, release, err := d.locks.repair(ctx, d.handleOf(id), lockPatience)
			if err == nil {
				err = repair(ctx, id)
				release()
			}
			errs[i] = err
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// ensure sees to it that the volume's session is there and its descriptors are held, and returns the record as it
// is then. What was interrupted is undone. The caller has the volume's lock.
func (d *Driver) ensure(ctx context.Context, rec record) (record, error) {
	id := rec.Volume.ID
	if rec.Phase == phasePartial {
		d.log.Info("what was interrupted is undone", "volume", id)
		return rec, d.clear(ctx, rec)
	}
	rec, err := d.identified(rec)
	if err != nil {
		return rec, err
	}
	if d.custody.holds(id) {
		// The staging path alone may have been unmounted by hand: the targets keep the connection alive.
		if ok, err := restoreStaging(rec); ok || err != nil {
			return rec, err
		}
		return d.recover(ctx, rec)
	}
	rec, ok, err := d.takeKept(ctx, rec)
	if ok {
		return rec, err
	}
	return d.takeServed(ctx, rec, err)
}

// takeServed takes a volume back from the agent, or makes it anew where the agent does not have it either; unless the
// keeper may have it, which did not answer for the reason that is given.
func (d *Driver) takeServed(ctx context.Context, rec record, keeper error) (record, error) {
	id := rec.Volume.ID
	generation, err := d.custody.await(ctx)
	if err != nil {
		return rec, err
	}
	v, device, state, err := d.agent.Take(ctx, id)
	if handover.CodeOf(err) == handover.CodeNotFound {
		if keeper != nil {
			return rec, fmt.Errorf("asking the keeper: %w", keeper)
		}
		return d.recover(ctx, rec)
	}
	if err != nil {
		return rec, err
	}
	rec, ok, err := d.restore(ctx, rec)
	if err == nil && ok && rec.Mount == "" {
		// An earlier build mounted it, for which there was no keeper.
		rec.Mount = mountName()
		err = d.records.put(id, rec)
	}
	if err != nil || !ok {
		handover.CloseAll([]*os.File{device, state})
		if err != nil {
			return rec, err
		}
		return d.recover(ctx, rec)
	}
	d.third.put(ctx, d.custody.add(v, rec.Mount, device, state, generation))
	d.log.Info("a volume was taken back from the agent", "volume", id)
	return rec, nil
}

// restore has the mount of a volume that is taken back show where it was staged and published, and reports whether it
// is there at all.
func (d *Driver) restore(ctx context.Context, rec record) (record, bool, error) {
	ok, err := restoreStaging(rec)
	if err != nil || !ok {
		return rec, false, err
	}
	// The repair that made the volume anew may not have come to this.
	rec, _ = presentTargets(rec)
	return rec, true, d.rebind(ctx, rec)
}

// identified is the record with the connection of its mount where that is there, and the build that made it did not
// note one.
func (d *Driver) identified(rec record) (record, error) {
	if rec.Minor == 0 || rec.Connection != (mountpoint.Connection{}) {
		return rec, nil
	}
	if minor, err := mountedDevice(rec.Volume.Dir); err != nil || minor != rec.Minor {
		return rec, err
	}
	if rec.Connection = d.connection(rec.Minor); rec.Connection == (mountpoint.Connection{}) {
		return rec, nil
	}
	return rec, d.records.put(rec.Volume.ID, rec)
}

// restoreStaging reports whether the mount of the volume's session is where it was staged. A mount namespace that began
// after it sees only what was propagated, which may be the targets alone; then it is bound from there.
func restoreStaging(rec record) (bool, error) {
	mounts, err := layers(rec.Volume.Dir)
	if err != nil || len(mounts) > 0 {
		return err == nil && len(mounts) == 1 && mounts[0].Minor == rec.Minor, err
	}
	for _, t := range rec.Targets {
		if minor, err := mountedDevice(t.Path); err != nil || minor != rec.Minor {
			continue
		}
		if err := makeDir(rec.Volume.Dir); err != nil {
			return false, err
		}
		return true, mountpoint.Bind(t.Path, rec.Volume.Dir, false)
	}
	return false, nil
}

// recover makes anew a volume whose connection no process has: its stale mounts go, it is staged again, and
// each target whose directory is still there is bound again, in order. The targets' stale mounts stay until the
// new one is there, as the bare directory below them could be written to.
func (d *Driver) recover(ctx context.Context, rec record) (record, error) {
	id := rec.Volume.ID
	d.custody.release(id)
	if err := unmountAll(ctx, rec.Volume.Dir, mountpoint.Abruptly); err != nil {
		return rec, err
	}
	rec, there := presentTargets(rec)
	if !there && !isDir(rec.Volume.Dir) {
		d.log.Info("a volume whose directories are gone is forgotten", "volume", id)
		return rec, d.clear(ctx, rec)
	}
	if _, err := makeParent(rec.Volume.Dir); err != nil {
		return rec, err
	}
	if err := makeDir(rec.Volume.Dir); err != nil {
		return rec, err
	}
	// What lies at the targets now is what their pods began with.
	rec = d.noteLost(rec)
	rec, err := d.serve(ctx, rec)
	if err != nil {
		return rec, err
	}
	d.log.Info("a volume was mounted anew", "volume", id, "targets", len(rec.Targets))
	if err := d.rebind(ctx, rec); err != nil {
		// What is not held is looked at again.
		d.custody.release(id)
		return rec, err
	}
	return rec, nil
}

// rebind shows the volume's mount at all its targets, but for those that have something else mounted on them.
func (d *Driver) rebind(ctx context.Context, rec record) error {
	var errs []error
	for _, t := range rec.Targets {
		err := bind(ctx, rec, t)
		if errors.Is(err, errForeign) {
			d.log.Warn("a target is left alone", "volume", rec.Volume.ID, "error", err)
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// presentTargets is the record without the targets whose directories are gone, and whether one is left.
func presentTargets(rec record) (record, bool) {
	rec.Targets = slices.DeleteFunc(slices.Clone(rec.Targets), func(t target) bool {
		mounts, err := layers(t.Path)
		return err == nil && len(mounts) == 0 && !isDir(t.Path)
	})
	return rec, len(rec.Targets) > 0
}

// endOrphan ends a session that no record knows: its holder was killed in the midst of an attach that no caller asked
// for again.
func (d *Driver) endOrphan(ctx context.Context, id string) error {
	if _, ok := d.records.get(id); ok || len(d.records.damaged) > 0 {
		// Its record may be the one that could not be read.
		return nil
	}
	v, device, state, err := d.agent.Take(ctx, id)
	if handover.CodeOf(err) == handover.CodeNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	handover.CloseAll([]*os.File{device, state})
	d.log.Warn("a session that no record knows is ended", "volume", id)
	if err := unmountAll(ctx, v.Dir, mountpoint.Abruptly); err != nil && !errors.Is(err, errForeign) {
		return err
	}
	return d.agent.Detach(ctx, id)
}
