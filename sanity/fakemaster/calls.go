package fakemaster

import (
	"context"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// GetServiceVersion says whether it leads.
func (m *Master) GetServiceVersion(context.Context, *wire.GetServiceVersionPRequest) (
	*wire.GetServiceVersionPResponse, error,
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.follows {
		return nil, status.Error(codes.Unavailable, "this is a standby master")
	}
	return &wire.GetServiceVersionPResponse{Version: proto.Int64(2)}, nil
}

// GetMasterInfo tells a version, and names itself as the leader.
func (m *Master) GetMasterInfo(context.Context, *wire.GetMasterInfoPOptions) (*wire.GetMasterInfoPResponse, error) {
	return &wire.GetMasterInfoPResponse{MasterInfo: &wire.MasterInfo{
		Version: proto.String("2.9.5"), LeaderMasterAddress: &m.address,
	}}, nil
}

// GetWorkerInfoList tells of the workers.
func (m *Master) GetWorkerInfoList(context.Context, *wire.GetWorkerInfoListPOptions) (
	*wire.GetWorkerInfoListPResponse, error,
) {
	m.mu.Lock()
	defer m.mu.Unlock()
	workers := make([]*wire.WorkerInfo, len(m.workers))
	for i, w := range m.workers {
		workers[i] = proto.CloneOf(w)
	}
	return &wire.GetWorkerInfoListPResponse{WorkerInfos: workers}, nil
}

// GetMetrics tells nothing.
func (m *Master) GetMetrics(context.Context, *wire.GetMetricsPOptions) (*wire.GetMetricsPResponse, error) {
	return &wire.GetMetricsPResponse{}, nil
}

// GetMountTable tells of the mounts.
func (m *Master) GetMountTable(context.Context, *wire.GetMountTablePRequest) (*wire.GetMountTablePResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	table := map[string]*wire.MountPointInfo{"/": {UfsUri: proto.String("/underFSStorage"), MountId: proto.Int64(1)}}
	for at, mount := range m.mounts {
		table[at] = proto.CloneOf(mount)
	}
	return &wire.GetMountTablePResponse{MountPoints: table}, nil
}

// Mount makes a mount, where there is nothing and the directory around it is there. It does so with mu held.
func (m *Master) Mount(_ context.Context, q *wire.MountPRequest) (*wire.MountPResponse, error) {
	at := q.GetAlluxioPath()
	return &wire.MountPResponse{}, m.change("mount", at, func() error {
		if m.exists(at) {
			return status.Error(codes.AlreadyExists, at+" is there already")
		}
		if !m.exists(path.Dir(at)) {
			return notThere(path.Dir(at))
		}
		m.mounts[at] = pointOf(q.GetUfsPath(), q.GetOptions())
		return nil
	})
}

func pointOf(source string, o *wire.MountPOptions) *wire.MountPointInfo {
	return &wire.MountPointInfo{
		UfsUri: &source, Properties: o.GetProperties(), ReadOnly: proto.Bool(o.GetReadOnly()),
		Shared: proto.Bool(o.GetShared()), MountId: proto.Int64(2),
	}
}

// UpdateMount gives a mount other properties. It does so with mu held.
func (m *Master) UpdateMount(_ context.Context, q *wire.UpdateMountPRequest) (*wire.UpdateMountPResponse, error) {
	at := q.GetAlluxioPath()
	return &wire.UpdateMountPResponse{}, m.change("update", at, func() error {
		if m.mounts[at] == nil {
			return notThere(at)
		}
		m.mounts[at] = pointOf(m.mounts[at].GetUfsUri(), q.GetOptions())
		return nil
	})
}

// Unmount takes a mount away. It does so with mu held.
func (m *Master) Unmount(_ context.Context, q *wire.UnmountPRequest) (*wire.UnmountPResponse, error) {
	at := q.GetAlluxioPath()
	return &wire.UnmountPResponse{}, m.change("unmount", at, func() error {
		if m.mounts[at] == nil {
			return notThere(at)
		}
		delete(m.mounts, at)
		return nil
	})
}

// CreateDirectory makes a directory of its own root. It does so with mu held.
func (m *Master) CreateDirectory(_ context.Context, q *wire.CreateDirectoryPRequest) (
	*wire.CreateDirectoryPResponse, error,
) {
	return &wire.CreateDirectoryPResponse{}, m.change("mkdir", q.GetPath(), func() error {
		m.dirs[q.GetPath()] = true
		return nil
	})
}

// Remove removes a directory of its own root. It does so with mu held.
func (m *Master) Remove(_ context.Context, q *wire.DeletePRequest) (*wire.DeletePResponse, error) {
	return &wire.DeletePResponse{}, m.change("rmdir", q.GetPath(), func() error {
		if !m.dirs[q.GetPath()] {
			return notThere(q.GetPath())
		}
		delete(m.dirs, q.GetPath())
		return nil
	})
}

// SetAttribute pins a path, or keeps notes with the root. It does so with mu held.
func (m *Master) SetAttribute(_ context.Context, q *wire.SetAttributePRequest) (*wire.SetAttributePResponse, error) {
	o := q.GetOptions()
	if o.Pinned == nil {
		return &wire.SetAttributePResponse{}, m.change("note", q.GetPath(), func() error {
			m.notes = o.GetXattr()
			return nil
		})
	}
	call := "unpin"
	if o.GetPinned() {
		call = "pin"
	}
	return &wire.SetAttributePResponse{}, m.change(call, q.GetPath(), func() error {
		m.pinned[q.GetPath()] = o.GetPinned()
		return nil
	})
}

// Free has the workers hold nothing. It does so with mu held.
func (m *Master) Free(_ context.Context, q *wire.FreePRequest) (*wire.FreePResponse, error) {
	return &wire.FreePResponse{}, m.change("free", q.GetPath(), func() error {
		for _, w := range m.workers {
			w.UsedBytes = proto.Int64(0)
		}
		return nil
	})
}

// GetStatus describes a path.
func (m *Master) GetStatus(_ context.Context, q *wire.GetStatusPRequest) (*wire.GetStatusPResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refuses != nil {
		if err := m.refuses("status", q.GetPath()); err != nil {
			return nil, err
		}
	}
	info := m.info(q.GetPath())
	if info == nil {
		return nil, notThere(q.GetPath())
	}
	return &wire.GetStatusPResponse{FileInfo: info}, nil
}

// info is what there is at a path, nil for nothing; mu is held.
func (m *Master) info(at string) *wire.FileInfo {
	if !m.exists(at) {
		return nil
	}
	if f := m.files[at]; f != nil {
		return proto.CloneOf(f)
	}
	info := &wire.FileInfo{
		Name: proto.String(path.Base(at)), Path: &at, Folder: proto.Bool(true), MountId: proto.Int64(1),
		Length: proto.Int64(int64(len(m.below(at)))), Pinned: proto.Bool(m.pinned[at]),
	}
	if at == "/" {
		info.Xattr = m.notes
	}
	if mount := m.mounts[at]; mount != nil {
		info.MountPoint, info.MountId = proto.Bool(true), proto.Int64(2)
	}
	return info
}

// ListStatus lists a directory.
func (m *Master) ListStatus(q *wire.ListStatusPRequest, s grpc.ServerStreamingServer[wire.ListStatusPResponse]) error {
	m.mu.Lock()
	var infos []*wire.FileInfo
	for _, at := range m.below(q.GetPath()) {
		infos = append(infos, m.info(at))
	}
	m.mu.Unlock()
	return s.Send(&wire.ListStatusPResponse{FileInfos: infos})
}
