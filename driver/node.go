package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
	"millrace.io/millrace/fuse/mountpoint"
)

// NodeStageVolume mounts the volume on the staging path and has the agent serve it.
func (d *Driver) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (
	*csi.NodeStageVolumeResponse, error,
) {
	id, path := req.GetVolumeId(), req.GetStagingTargetPath()
	if err := errors.Join(checkID("volume_id", id), checkPath("staging_target_path", path),
		checkCapability(req.GetVolumeCapability())); err != nil {
		return nil, invalid(err)
	}
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	if view, ok := d.records.get(id); ok && view.Of != "" {
		return nil, invalid(fmt.Errorf("volume_id %q is the name of a mount of volume %s", id, view.Of))
	}
	resolved, err := makeParent(path)
	if err != nil {
		return nil, internal(err)
	}
	rec, err := d.describe(id, resolved, req.GetVolumeContext(), req.GetVolumeCapability(), req.GetSecrets())
	if err != nil {
		return nil, err
	}
	if rec, err = d.stage(ctx, rec); err != nil {
		return nil, statusOf(err)
	}
	d.spread(ctx, rec)
	return &csi.NodeStageVolumeResponse{}, nil
}

// NodeUnstageVolume takes the volume off the staging path and ends its session. It ends in bounded time, whatever
// hangs.
func (d *Driver) NodeUnstageVolume(
	ctx context.Context, req *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	id, path := req.GetVolumeId(), req.GetStagingTargetPath()
	if err := errors.Join(checkID("volume_id", id), checkPath("staging_target_path", path)); err != nil {
		return nil, invalid(err)
	}
	release, err := d.locks.seize(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	known := knownPath(path)
	rec, ok := d.records.get(id)
	if !ok || rec.Volume.Dir != known {
		// Not staged, or not there, is what was asked for. A mount of ours that no record knows goes.
		if d.stagedAt(known) == "" {
			err = unmountAll(ctx, known, mountpoint.Abruptly)
		}
		return &csi.NodeUnstageVolumeResponse{}, statusOf(err)
	}
	for _, shown := range d.mountsOf(id) {
		if target := stillPublished(shown); target != "" {
			return nil, status.Errorf(codes.FailedPrecondition,
				"volume %s is published at %s; unpublish it first", id, target)
		}
	}
	if err := errors.Join(d.clearViews(ctx, id), d.clear(ctx, rec)); err != nil {
		return nil, statusOf(err)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// NodePublishVolume binds the staged volume to the target path. An ephemeral volume is staged by it.
func (d *Driver) NodePublishVolume(
	ctx context.Context, req *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	id, path := req.GetVolumeId(), req.GetTargetPath()
	ephemeral := req.GetVolumeContext()[ephemeralKey] == "true"
	err := errors.Join(checkID("volume_id", id), checkPath("target_path", path),
		checkCapability(req.GetVolumeCapability()))
	if !ephemeral {
		err = errors.Join(err, checkPath("staging_target_path", req.GetStagingTargetPath()))
	}
	if err != nil {
		return nil, invalid(err)
	}
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	rec, err := d.staged(ctx, req, ephemeral)
	if err != nil {
		return nil, statusOf(err)
	}
	resolved, err := makeParent(path)
	if err != nil {
		return nil, internal(err)
	}
	err = d.publish(ctx, rec, target{
		Path: resolved, ReadOnly: req.GetReadonly() || ephemeral,
		Alone: req.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
		Pod:   podOf(req.GetVolumeContext()),
	})
	if err != nil {
		return nil, statusOf(err)
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

// staged is the record of the volume that is to be published, in order and served. The caller has the
// volume's lock.
func (d *Driver) staged(ctx context.Context, req *csi.NodePublishVolumeRequest, ephemeral bool) (record, error) {
	id := req.GetVolumeId()
	if ephemeral {
		dir, err := makeParent(filepath.Join(d.cfg.StateDir, ephemeralDir, fileName(id)))
		if err != nil {
			return record{}, err
		}
		rec, err := d.describe(id, dir, req.GetVolumeContext(), req.GetVolumeCapability(), req.GetSecrets())
		if err != nil {
			return record{}, err
		}
		rec.Ephemeral = true
		return d.stage(ctx, rec)
	}
	rec, ok := d.records.get(id)
	if !ok || rec.Phase != phaseStaged || rec.Volume.Dir != knownPath(req.GetStagingTargetPath()) {
		return record{}, status.Errorf(codes.FailedPrecondition, "volume %s is not staged at %s", id,
			req.GetStagingTargetPath())
	}
	return d.shown(ctx, rec, req)
}

// NodeUnpublishVolume takes the volume off the target path and removes it. It ends in bounded time, whatever
// hangs.
func (d *Driver) NodeUnpublishVolume(
	ctx context.Context, req *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	id, path := req.GetVolumeId(), req.GetTargetPath()
	if err := errors.Join(checkID("volume_id", id), checkPath("target_path", path)); err != nil {
		return nil, invalid(err)
	}
	release, err := d.locks.seize(ctx, id)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := d.unpublish(ctx, id, knownPath(path)); err != nil {
		return nil, statusOf(err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats tells how much of the volume is cached, and the condition for orchestrators before CSI 1.13.
func (d *Driver) NodeGetVolumeStats(
	ctx context.Context, req *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	id, path := req.GetVolumeId(), req.GetVolumePath()
	if err := checkID("volume_id", id); err != nil {
		return nil, invalid(err)
	}
	if path == "" {
		return nil, invalid(errors.New("volume_path is empty"))
	}
	mounts := d.mountsOf(id)
	if len(mounts) == 0 {
		return nil, status.Errorf(codes.NotFound, "volume %s is not on this node", id)
	}
	known := knownPath(path)
	i := slices.IndexFunc(mounts, func(rec record) bool { return rec.Volume.Dir == known || rec.target(known) != nil })
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "volume %s is neither staged nor published at %s", id, path)
	}
	stats, c := d.observe(ctx, mounts[i].Volume.ID)
	if there, err := layers(known); c.reason == "" && (err != nil || len(there) == 0) {
		c = condition{reason: reasonUnmounted, message: "the volume is not mounted at " + known}
	}
	if t := mounts[i].target(known); c.reason == "" && t != nil && t.Lost.is() {
		c = condition{reason: reasonLost, message: lostSentence}
	}
	return statsResponse(stats, c), nil
}

// NodeGetVolumeHealth tells the volume's condition.
func (d *Driver) NodeGetVolumeHealth(
	ctx context.Context, req *csi.NodeGetVolumeHealthRequest,
) (*csi.NodeGetVolumeHealthResponse, error) {
	id := req.GetVolumeId()
	if err := checkID("volume_id", id); err != nil {
		return nil, invalid(err)
	}
	mounts := d.mountsOf(id)
	if len(mounts) == 0 {
		return nil, status.Errorf(codes.NotFound, "volume %s is not on this node", id)
	}
	conditions := make([]condition, len(mounts))
	var asking sync.WaitGroup
	for i, rec := range mounts {
		asking.Go(func() { conditions[i] = d.conditionOf(ctx, rec) })
	}
	asking.Wait()
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: healthOf(id, conditions)}, nil
}

// conditionOf returns what is wrong with one mount of a volume.
func (d *Driver) conditionOf(ctx context.Context, rec record) condition {
	_, c := d.observe(ctx, rec.Volume.ID)
	if c.reason == "" && rec.lost() {
		c = condition{reason: reasonLost, message: lostSentence}
	}
	return c
}

// NodeGetStorageHealth reports whether the agent is there, without which no volume of this node can be read.
func (d *Driver) NodeGetStorageHealth(
	context.Context, *csi.NodeGetStorageHealthRequest,
) (*csi.NodeGetStorageHealthResponse, error) {
	up, since := d.custody.present()
	if up || time.Since(since) < awayTime {
		return &csi.NodeGetStorageHealthResponse{}, nil
	}
	return &csi.NodeGetStorageHealthResponse{BackendHealth: []*csi.NodeGetStorageHealthResponse_StorageBackendHealth{{
		Status: csi.StorageHealthErrorType_STORAGE_UNREACHABLE, Reason: reasonAway, Message: errAway.Error(),
	}}}, nil
}

// NodeGetCapabilities tells what this service can do.
func (d *Driver) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		capabilityVolumeCondition,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
		csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}

// NodeGetInfo names the node.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId: d.cfg.NodeID, MaxVolumesPerNode: d.cfg.MaxVolumes,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{TopologyKey: d.cfg.NodeID}},
	}, nil
}

// describe reads a request into the record of a volume that is mounted at the path, and holds it against what the
// operator allows.
func (d *Driver) describe(
	id, path string, values map[string]string, c *csi.VolumeCapability, secrets map[string]string,
) (record, error) {
	a, err := parseAttributes(values)
	if err != nil {
		return record{}, invalid(err)
	}
	if a.Dataset != "" {
		return record{}, status.Errorf(codes.FailedPrecondition,
			"dataset %s cannot be mounted by this build, which serves volumes with the attribute source", a.Dataset)
	}
	m, err := parseMountOptions(c.GetMount().GetMountFlags(), c.GetMount().GetVolumeMountGroup())
	if err != nil {
		return record{}, invalid(err)
	}
	v, err := a.volume(id, path, m, secrets)
	if err == nil {
		err = d.cfg.Policy.Check(v)
	}
	if err != nil {
		return record{}, invalid(err)
	}
	return record{Volume: v, SELinuxContext: m.seLinuxContext}, nil
}

// knownPath is a path as records have it. One that cannot be looked up is not there, and then its text serves.
func knownPath(path string) string {
	resolved, err := resolvePath(path)
	if err != nil {
		return filepath.Clean(path)
	}
	return resolved
}

// checkID checks a volume's id, or its name.
func checkID(field, id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%s is empty", field)
	case len(id) > handover.MaxID:
		return fmt.Errorf("%s has %d bytes; accepted are at most %d", field, len(id), handover.MaxID)
	case !printable(id):
		return fmt.Errorf("%s %q has control characters", field, id)
	}
	return nil
}

// checkPath checks a path that the orchestrator names.
func checkPath(name, path string) error {
	switch {
	case path == "":
		return fmt.Errorf("%s is empty", name)
	case !filepath.IsAbs(path) || filepath.Clean(path) == "/":
		return fmt.Errorf("%s %q is not accepted; accepted is an absolute path that is not /", name, path)
	}
	return nil
}

// checkCapability checks how a volume is to be used. Every access mode will do: no pod can write.
func checkCapability(c *csi.VolumeCapability) error {
	switch {
	case c == nil:
		return errors.New("volume_capability is missing")
	case c.GetBlock() != nil:
		return errors.New("volume_capability asks for a block device; accepted is a mount")
	case c.GetMount() == nil:
		return errors.New("volume_capability has no access type; accepted is a mount")
	case c.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN:
		return errors.New("volume_capability has no access mode")
	}
	switch fsType := c.GetMount().GetFsType(); fsType {
	case "", "fuse", "fuse.millrace":
		return nil
	default:
		return fmt.Errorf("fs_type %q is not accepted; accepted is none", fsType)
	}
}

// invalid is a request that can never succeed. Several errors become one line.
func invalid(err error) error { return status.Error(codes.InvalidArgument, oneLine(err)) }

// internal is a failure of this node.
func internal(err error) error { return status.Error(codes.Internal, oneLine(err)) }

// statusOf is the status for an error of an operation.
func statusOf(err error) error {
	var s interface{ GRPCStatus() *status.Status }
	var agent *handover.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &s):
		return s.GRPCStatus().Err()
	case errors.As(err, &agent):
		return status.Error(codeOfAgent(agent.Code), oneLine(err))
	case errors.Is(err, errAway):
		return status.Error(codes.Unavailable, oneLine(err))
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, oneLine(err))
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, oneLine(err))
	case errors.Is(err, errForeign):
		return status.Error(codes.FailedPrecondition, oneLine(err))
	case errors.Is(err, fs.ErrPermission):
		return status.Error(codes.PermissionDenied, oneLine(err))
	case lostAgent(err):
		return status.Error(codes.Unavailable, oneLine(err))
	}
	return internal(err)
}

// codeOfAgent is the code for a failure that the agent reports.
func codeOfAgent(code handover.Code) codes.Code {
	switch code {
	case handover.CodeInvalid:
		return codes.InvalidArgument
	case handover.CodeUnavailable:
		return codes.Unavailable
	case handover.CodeExists, handover.CodeNotFound:
		// Another process works on the session; the next try finds it settled.
		return codes.Aborted
	}
	return codes.Internal
}
