package driver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// created is a volume that CreateVolume made: nothing but its description, as the data is elsewhere. Its id is its
// name.
type created struct {
	// Capacity is in bytes, 0 where none was asked for.
	Capacity int64 `json:"capacity,omitempty"`
	// Attributes are the volume_context.
	Attributes map[string]string `json:"attributes"`
}

// lockOf is the name of the lock for the controller's part of a volume, which has nothing to do with its mounts.
func lockOf(id string) string { return "created\x00" + id }

// CreateVolume makes a volume out of the parameters of a StorageClass.
func (d *Driver) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	c, err := newCreated(req)
	if err != nil {
		return nil, err
	}
	id := req.GetName()
	release, err := d.locks.take(ctx, lockOf(id))
	if err != nil {
		return nil, err
	}
	defer release()
	if old, ok := d.created.get(id); ok {
		capacity := req.GetCapacityRange()
		if !maps.Equal(old.Attributes, c.Attributes) ||
			old.Capacity < capacity.GetRequiredBytes() ||
			capacity.GetLimitBytes() > 0 && old.Capacity > capacity.GetLimitBytes() {
			return nil, status.Errorf(codes.AlreadyExists, "volume %s exists with other parameters or another capacity",
				id)
		}
		return &csi.CreateVolumeResponse{Volume: volumeOf(id, old)}, nil
	}
	if err := d.created.put(id, c); err != nil {
		return nil, internal(err)
	}
	return &csi.CreateVolumeResponse{Volume: volumeOf(id, c)}, nil
}

// newCreated checks a request and reads it. What a node allows is checked there, as the controller may run on
// another.
func newCreated(req *csi.CreateVolumeRequest) (created, error) {
	if err := errors.Join(checkID("name", req.GetName()), checkCapabilities(req.GetVolumeCapabilities())); err != nil {
		return created{}, invalid(err)
	}
	if req.GetVolumeContentSource() != nil {
		return created{}, invalid(errors.New("volume_content_source is not accepted: a cache has no snapshots and no " +
			"clones"))
	}
	if len(req.GetMutableParameters()) > 0 {
		return created{}, invalid(errors.New("mutable_parameters are not accepted: a volume keeps its parameters"))
	}
	a, err := parseAttributes(req.GetParameters())
	if err != nil {
		return created{}, invalid(err)
	}
	required, limit := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	if required < 0 || limit < 0 || limit > 0 && limit < required {
		return created{}, status.Errorf(codes.OutOfRange, "capacity_range has required_bytes %d and limit_bytes %d",
			required, limit)
	}
	if required == 0 {
		required = limit
	}
	return created{Capacity: required, Attributes: a.context()}, nil
}

// CheckClass tells what a node would refuse of a volume with these parameters and mount options of a StorageClass, in
// one sentence that names the key, the value and what is accepted. What the operator of a node allows is checked there.
func CheckClass(parameters map[string]string, mountOptions []string) error {
	a, err := parseAttributes(parameters)
	if err != nil {
		return err
	}
	if a.Dataset != "" {
		return fmt.Errorf("attribute dataset %q is not accepted: a Dataset has a claim of its own; accepted is source",
			a.Dataset)
	}
	_, err = parseMountOptions(mountOptions, "")
	return err
}

// checkCapabilities checks how a volume is to be used.
func checkCapabilities(all []*csi.VolumeCapability) error {
	if len(all) == 0 {
		return errors.New("volume_capabilities are missing")
	}
	for _, c := range all {
		if err := checkCapability(c); err != nil {
			return err
		}
	}
	return nil
}

// volumeOf is a created volume as CSI has it.
func volumeOf(id string, c created) *csi.Volume {
	return &csi.Volume{VolumeId: id, CapacityBytes: c.Capacity, VolumeContext: c.Attributes}
}

// DeleteVolume forgets a volume. What nodes have cached of it is theirs, and goes with their use of it.
func (d *Driver) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	id := req.GetVolumeId()
	if id == "" {
		return nil, invalid(errors.New("volume_id is empty"))
	}
	release, err := d.locks.take(ctx, lockOf(id))
	if err != nil {
		return nil, err
	}
	defer release()
	if err := d.created.drop(id); err != nil {
		return nil, internal(err)
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities reports whether a volume can be used in these ways.
func (d *Driver) ValidateVolumeCapabilities(
	_ context.Context, req *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	id, capabilities := req.GetVolumeId(), req.GetVolumeCapabilities()
	if id == "" || len(capabilities) == 0 {
		return nil, invalid(errors.New("volume_id or volume_capabilities are missing"))
	}
	if _, ok := d.created.get(id); !ok {
		return nil, status.Errorf(codes.NotFound, "volume %s does not exist", id)
	}
	if err := checkCapabilities(capabilities); err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: oneLine(err)}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: req.GetVolumeContext(), VolumeCapabilities: capabilities, Parameters: req.GetParameters(),
	}}, nil
}

// ListVolumes lists the volumes that CreateVolume made, by id.
func (d *Driver) ListVolumes(_ context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	if req.GetMaxEntries() < 0 {
		return nil, invalid(fmt.Errorf("max_entries %d is negative", req.GetMaxEntries()))
	}
	ids := d.created.ids()
	if token := req.GetStartingToken(); token != "" {
		last, err := parseToken(token)
		if err != nil {
			return nil, err
		}
		ids = ids[sort.Search(len(ids), func(i int) bool { return ids[i] > last }):]
	}
	resp := &csi.ListVolumesResponse{}
	if n := int(req.GetMaxEntries()); n > 0 && n < len(ids) {
		ids = ids[:n]
		resp.NextToken = token(ids[n-1])
	}
	for _, id := range ids {
		if c, ok := d.created.get(id); ok {
			resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: volumeOf(id, c)})
		}
	}
	return resp, nil
}

// tokenPrefix tells tokens of ListVolumes from any other text.
const tokenPrefix = "after:"

// token continues a list behind the id, whether or not that still exists then.
func token(id string) string { return tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(id)) }

// parseToken is the id that a token continues behind. A token that is none is a status of Aborted, as CSI has it.
func parseToken(token string) (string, error) {
	text, ok := strings.CutPrefix(token, tokenPrefix)
	id, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil {
		return "", status.Errorf(codes.Aborted, "starting_token %q is none that was given; list from the beginning",
			token)
	}
	return string(id), nil
}

// GetCapacity tells how many bytes can be cached on this node: what is free in the tier directories, or in the one
// that the parameters name. It bounds no volume, as a cache evicts.
func (d *Driver) GetCapacity(_ context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	dirs := d.cfg.Policy.TierDirs
	if len(req.GetParameters()) > 0 {
		a, err := parseAttributes(req.GetParameters())
		if err != nil {
			return nil, invalid(err)
		}
		if a.TierDir != "" {
			if err := d.cfg.Policy.CheckTier(a.TierDir); err != nil {
				return nil, invalid(err)
			}
			dirs = []string{a.TierDir}
		}
	}
	return &csi.GetCapacityResponse{AvailableCapacity: freeBytes(dirs)}, nil
}

// freeBytes is what is free in the file systems of the directories, each counted once. A directory that is not there
// counts for nothing.
func freeBytes(dirs []string) int64 {
	var seen []unix.Fsid
	free := int64(0)
	for _, dir := range dirs {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) != nil || slices.Contains(seen, st.Fsid) {
			continue
		}
		seen = append(seen, st.Fsid)
		free += int64(st.Bavail) * st.Frsize
	}
	return free
}

// ControllerGetCapabilities tells what this service can do.
func (d *Driver) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return resp, nil
}
