package rpc

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// MasterInfo is what the leader tells of itself and the other masters.
type MasterInfo struct {
	// Version is Alluxio's, such as 2.9.6.
	Version string
	// Leader and Masters are host:port.
	Leader  string
	Masters []string
	// SafeMode says that the leader waits for workers to register; until then it tells nothing of workers.
	SafeMode bool
}

// MasterInfo asks the leader about itself.
func (m *Masters) MasterInfo(ctx context.Context) (MasterInfo, error) {
	var out MasterInfo
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := wire.NewMetaMasterClientServiceClient(conn).GetMasterInfo(ctx, &wire.GetMasterInfoPOptions{
			// WORKER_ADDRESSES fails in safe mode, so all is asked for but that.
			Filter: []wire.MasterInfoField{
				wire.MasterInfoField_LEADER_MASTER_ADDRESS, wire.MasterInfoField_MASTER_ADDRESSES,
				wire.MasterInfoField_SAFE_MODE, wire.MasterInfoField_VERSION,
			},
		})
		info := r.GetMasterInfo()
		out = MasterInfo{
			Version: info.GetVersion(), Leader: info.GetLeaderMasterAddress(),
			SafeMode: info.GetSafeMode(),
		}
		for _, a := range info.GetMasterAddresses() {
			out.Masters = append(out.Masters, fmt.Sprintf("%s:%d", a.GetHost(), a.GetRpcPort()))
		}
		return err
	})
	return out, err
}

// supported reports whether we speak the protocol of a version. The 2.9 line is one protocol as far as a reader needs
// it; 3.x has another under the same service names.
func supported(addr, version string) error {
	if version == "2.9" || strings.HasPrefix(version, "2.9.") || strings.HasPrefix(version, "2.9-") {
		return nil
	}
	if version == "" {
		version = "of an unknown version"
	}
	return fmt.Errorf("%s runs Alluxio %s; accepted are the versions 2.9.x", addr, version)
}

// Mount shows an under store in Alluxio's name space.
type Mount struct {
	// Path is absolute in Alluxio's name space.
	Path string
	// Source is the under store's URI.
	Source string
	// Properties configure the under store for this mount; they may have secrets.
	Properties map[string]string
	// ReadOnly refuses every change of the source through Alluxio.
	ReadOnly bool
	// Shared lets every user read it.
	Shared bool
}

// Mount makes a mount. The directory that it is in has to be known to Alluxio, and neither Alluxio nor the under store
// around the mount may have anything in its place: one that is there already is an error, also when an earlier attempt
// whose answer was lost made it.
func (m *Masters) Mount(ctx context.Context, mount Mount) error {
	err := m.call(ctx, once, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).Mount(ctx, &wire.MountPRequest{
			AlluxioPath: &mount.Path, UfsPath: &mount.Source,
			Options: &wire.MountPOptions{
				ReadOnly: &mount.ReadOnly, Properties: mount.Properties, Shared: &mount.Shared,
				CommonOptions: safe(AlwaysSync),
			},
		})
		return err
	})
	return withoutProperties(err, mount)
}

// UpdateMount gives a mount other properties; what is cached of it stays.
func (m *Masters) UpdateMount(ctx context.Context, mount Mount) error {
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).UpdateMount(ctx, &wire.UpdateMountPRequest{
			AlluxioPath: &mount.Path,
			Options: &wire.MountPOptions{
				ReadOnly: &mount.ReadOnly, Properties: mount.Properties, Shared: &mount.Shared,
				CommonOptions: safe(AlwaysSync),
			},
		})
		return err
	})
	return withoutProperties(err, mount)
}

// Unmount takes a mount and what is cached of it out of the name space; the source keeps everything.
func (m *Masters) Unmount(ctx context.Context, path string) error {
	return m.call(ctx, once, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).Unmount(ctx, &wire.UnmountPRequest{
			AlluxioPath: &path, Options: &wire.UnmountPOptions{CommonOptions: safe(AlwaysSync)},
		})
		return err
	})
}

// MountTable returns the mounts by their paths. Without asking the under stores for their sizes, so that one that
// hangs does not matter.
func (m *Masters) MountTable(ctx context.Context) (map[string]*wire.MountPointInfo, error) {
	var table map[string]*wire.MountPointInfo
	err := m.inquire(ctx, func(ctx context.Context, conn *grpc.ClientConn, most grpc.CallOption) error {
		r, err := wire.NewFileSystemMasterClientServiceClient(conn).GetMountTable(ctx, &wire.GetMountTablePRequest{
			// Absent, it is taken for true.
			CheckUfs: proto.Bool(false),
		}, most)
		table = r.GetMountPoints()
		return err
	})
	if len(table) > mostMounts {
		return nil, fmt.Errorf("%w: %d mounts; accepted are %d", errClaim, len(table), mostMounts)
	}
	return table, err
}

// Free drops the cached blocks of a path, and of all below it. Blocks leave the workers with their next heartbeats;
// one that is being read stays until its reader ends. Pinned files stay unless force is set.
func (m *Masters) Free(ctx context.Context, path string, force bool) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).Free(ctx, &wire.FreePRequest{
			Path: &path,
			Options: &wire.FreePOptions{
				Recursive: proto.Bool(true), Forced: &force, CommonOptions: safe(NeverSync),
			},
		})
		return err
	})
}

// Pin keeps the cached blocks of a path, and of all below it, from eviction, or lets go of them.
func (m *Masters) Pin(ctx context.Context, path string, pinned bool) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).SetAttribute(ctx, &wire.SetAttributePRequest{
			Path: &path,
			Options: &wire.SetAttributePOptions{
				Pinned: &pinned, Recursive: proto.Bool(true), CommonOptions: safe(NeverSync),
			},
		})
		return err
	})
}

// Capacity is the size and use of all workers together.
func (m *Masters) Capacity(ctx context.Context) (*wire.BlockMasterInfo, error) {
	var info *wire.BlockMasterInfo
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := wire.NewBlockMasterClientServiceClient(conn).GetBlockMasterInfo(ctx,
			&wire.GetBlockMasterInfoPOptions{})
		info = r.GetBlockMasterInfo()
		return err
	})
	if info != nil {
		capacity, used := max(info.GetCapacityBytes(), 0), max(info.GetUsedBytes(), 0)
		info.CapacityBytes, info.UsedBytes = &capacity, &used
	}
	return info, err
}

// WorkerInfos are the workers that the leader knows to be alive. A leader in safe mode is cacheclient.ErrUnavailable.
func (m *Masters) WorkerInfos(ctx context.Context) ([]*wire.WorkerInfo, error) {
	var infos []*wire.WorkerInfo
	err := m.inquire(ctx, func(ctx context.Context, conn *grpc.ClientConn, most grpc.CallOption) error {
		client := wire.NewBlockMasterClientServiceClient(conn)
		r, err := client.GetWorkerInfoList(ctx, &wire.GetWorkerInfoListPOptions{}, most)
		infos = r.GetWorkerInfos()
		return err
	})
	return bounded(infos), err
}

// Metrics are the numbers that the leader has of itself and of the whole cluster, by their names.
func (m *Masters) Metrics(ctx context.Context) (map[string]float64, error) {
	var metrics map[string]float64
	err := m.inquire(ctx, func(ctx context.Context, conn *grpc.ClientConn, most grpc.CallOption) error {
		r, err := wire.NewMetricsMasterClientServiceClient(conn).GetMetrics(ctx, &wire.GetMetricsPOptions{}, most)
		metrics = make(map[string]float64, len(r.GetMetrics()))
		for name, value := range r.GetMetrics() {
			if value.DoubleValue != nil {
				metrics[name] = value.GetDoubleValue()
			}
		}
		return err
	})
	return metrics, err
}

// Report adds to the metrics that the leader keeps of a client: source names the client, deltas are by
// metric name. Bytes read by short circuit are known to the servers from here only.
func (m *Masters) Report(ctx context.Context, source string, deltas map[string]int64) error {
	client := &wire.ClientMetrics{Source: &source}
	for name, delta := range deltas {
		client.Metrics = append(client.Metrics, &wire.Metric{
			// Without the instance the report is refused.
			Instance: proto.String("Client"), Source: &source, Name: proto.String(name),
			Value: proto.Float64(float64(delta)), MetricType: wire.MetricType_COUNTER.Enum(),
		})
	}
	return m.call(ctx, once, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewMetricsMasterClientServiceClient(conn).MetricsHeartbeat(ctx, &wire.MetricsHeartbeatPRequest{
			Options: &wire.MetricsHeartbeatPOptions{ClientMetrics: []*wire.ClientMetrics{client}},
		})
		return err
	})
}
