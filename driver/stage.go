package driver

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// serveTime bounds a mount: the agent may open a source that is slow.
	serveTime = 2 * time.Minute
	// clearTime bounds the end of a volume, whatever hangs, and detachTime the agent's part of it.
	clearTime  = 4500 * time.Millisecond
	detachTime = 2500 * time.Millisecond
	// readAheadKB is the kernel's read-ahead in KiB.
	readAheadKB = 4096
)

// stage has the volume mounted and served on rec.Volume.Dir. One that is staged in the same way already stays as
// it is; in another way is a status of AlreadyExists. The caller has the volume's lock.
func (d *Driver) stage(ctx context.Context, rec record) (record, error) {
	old, ok := d.records.get(rec.Volume.ID)
	if ok && old.Phase == phaseStaged {
		if err := sameStage(old, rec); err != nil {
			return old, err
		}
		if !reflect.DeepEqual(old.Volume.Secrets, rec.Volume.Secrets) {
			// They were rotated. A repair that mounts the volume anew needs the present ones.
			old.Volume.Secrets = rec.Volume.Secrets
			if err := d.records.put(old.Volume.ID, old); err != nil {
				return old, err
			}
		}
		old, err := d.ensure(ctx, old)
		if err == nil {
			d.renew(ctx, old.Volume)
		}
		return old, err
	}
	if ok {
		if err := d.clear(ctx, old); err != nil {
			return rec, err
		}
	}
	if _, err := d.custody.await(ctx); err != nil {
		return rec, err
	}
	if other := d.stagedAt(rec.Volume.Dir); other != "" {
		return rec, status.Errorf(codes.FailedPrecondition, "volume %s is staged at %s", other, rec.Volume.Dir)
	}
	// What a predecessor without a record left there.
	if err := unmountAll(ctx, rec.Volume.Dir, mountpoint.Abruptly); err != nil {
		return rec, err
	}
	if err := makeDir(rec.Volume.Dir); err != nil {
		return rec, fmt.Errorf("making the staging directory: %w", err)
	}
	rec.Phase = phasePartial
	if err := d.records.put(rec.Volume.ID, rec); err != nil {
		return rec, err
	}
	rec, err := d.serve(ctx, rec)
	if err == nil {
		rec.Phase = phaseStaged
		err = d.records.put(rec.Volume.ID, rec)
	}
	if err != nil {
		return rec, errors.Join(err, d.clear(ctx, rec))
	}
	return rec, nil
}

// renew has the agent go on with the volume's present secrets, and custody give them to the next agent. Those that the
// source refuses leave the session as it is: readers of its cache read on.
func (d *Driver) renew(ctx context.Context, v handover.Volume) {
	if len(v.Secrets) == 0 {
		return
	}
	d.custody.renew(v)
	if err := d.agent.Renew(ctx, v); err != nil {
		d.log.Warn("a volume goes on with the secrets that it had", "volume", v, "error", err)
	}
}

// stagedAt is the volume that is staged at the path, "" where there is none.
func (d *Driver) stagedAt(path string) string {
	for _, id := range d.records.ids() {
		if rec, ok := d.records.get(id); ok && rec.Volume.Dir == path {
			return id
		}
	}
	return ""
}

// sameStage reports whether a volume that is staged is what is asked for now. Secrets do not count, as they are
// rotated while a volume is in use, nor does whose the files are: each publish is shown what its pod asks for.
func sameStage(old, asked record) error {
	a, b := old.Volume, asked.Volume
	switch {
	case a.Dir != b.Dir:
		return status.Errorf(codes.AlreadyExists, "volume %s is staged at %s, not at %s", a.ID, a.Dir, b.Dir)
	case !reflect.DeepEqual(attributesOf(a), attributesOf(b)):
		return status.Errorf(codes.AlreadyExists, "volume %s is staged with other attributes", a.ID)
	}
	return nil
}

// serve mounts the volume and has the agent serve it, and keeps the descriptors. The record that it returns, and has
// put, has the mount's device. Where it fails, the mount is gone.
//
// The order makes sure that whenever the agent has a session of the volume, the record has the device of its mount:
// an earlier session ends before the record changes, and the record changes before the next one begins.
func (d *Driver) serve(ctx context.Context, rec record) (_ record, err error) {
	ctx, cancel := context.WithTimeout(ctx, serveTime)
	defer cancel()
	v := rec.Volume
	generation, err := d.custody.await(ctx)
	if err != nil {
		return rec, err
	}
	if err := d.agent.Detach(ctx, v.ID); err != nil {
		return rec, fmt.Errorf("ending an earlier session: %w", err)
	}
	device, err := mountpoint.Attach(ctx, mountpoint.Options{
		Dir: v.Dir, Source: v.Source, AllowOther: true, SELinuxContext: rec.SELinuxContext,
	})
	if err != nil {
		return rec, err
	}
	held := false
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, unmountAll(context.WithoutCancel(ctx), v.Dir, mountpoint.Abruptly))
		if held {
			d.custody.release(v.ID)
		} else {
			_ = device.Close()
		}
	}()
	if rec.Minor, err = mountedDevice(v.Dir); err != nil {
		return rec, err
	}
	rec.Connection, rec.Mount = d.connection(rec.Minor), mountName()
	if err = d.records.put(v.ID, rec); err != nil {
		return rec, err
	}
	state, err := d.agent.Attach(ctx, v, device, nil)
	if err != nil {
		return rec, err
	}
	// Before the mount is asked: should the agent die now, the next one gets the connection and answers.
	d.third.put(ctx, d.custody.add(v, rec.Mount, device, state, generation))
	held = true
	err = bounded(ctx, "the new mount does not answer", func() error {
		_, err := mountpoint.Settle(v.Dir, readAheadKB)
		return err
	})
	return rec, err
}

// clear takes the volume away: its mounts, its session, its descriptors and its record, in this order, each in
// bounded time. It goes on where the caller's context ends. The record goes last, and only when the mounts are
// gone, so that an interrupted clear is repeated.
func (d *Driver) clear(ctx context.Context, rec record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTime)
	defer cancel()
	id := rec.Volume.ID
	if rec.Phase != phasePartial {
		rec.Phase = phasePartial
		if err := d.records.put(id, rec); err != nil {
			return err
		}
	}
	var errs []error
	for _, t := range rec.Targets {
		errs = append(errs, unmountAll(ctx, t.Path, mountpoint.Lazily))
	}
	errs = append(errs, unmountAll(ctx, rec.Volume.Dir, mountpoint.Abruptly))
	d.endSession(ctx, id, rec.Connection)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if rec.Ephemeral {
		if err := removeDir(rec.Volume.Dir); err != nil {
			return err
		}
	}
	d.usage.drop(id)
	return d.records.drop(id)
}

// endSession ends the session of a volume whose mounts are gone. An agent that does not do it is told by the
// kernel: the connection is aborted, and ends for good with the agent's descriptors.
func (d *Driver) endSession(ctx context.Context, id string, connection mountpoint.Connection) {
	ctx, cancel := context.WithTimeout(ctx, detachTime)
	defer cancel()
	// First, as this gives up an attach that the agent may be waiting in.
	d.custody.release(id)
	err := errors.Join(d.third.drop(ctx, id), d.agent.Detach(ctx, id))
	if err == nil {
		return
	}
	aborted := connection.Abort()
	if answered(err) || errors.Is(err, context.DeadlineExceeded) {
		d.log.Warn("a session did not end", "volume", id, "error", err, "connection", abortSentence(aborted))
	}
}

// answered reports whether the error is the agent's answer, and not that there was none.
func answered(err error) bool {
	var e *handover.Error
	return errors.As(err, &e)
}
