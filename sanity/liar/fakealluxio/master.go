package fakealluxio

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// GetServiceVersion says that this master leads.
func (f *Fake) GetServiceVersion(context.Context, *wire.GetServiceVersionPRequest) (
	*wire.GetServiceVersionPResponse, error,
) {
	return &wire.GetServiceVersionPResponse{Version: proto.Int64(2)}, nil
}

// GetMasterInfo tells a version of the protocol.
func (f *Fake) GetMasterInfo(context.Context, *wire.GetMasterInfoPOptions) (*wire.GetMasterInfoPResponse, error) {
	return &wire.GetMasterInfoPResponse{MasterInfo: &wire.MasterInfo{Version: proto.String("2.9.6")}}, nil
}

// GetStatus describes a path.
func (f *Fake) GetStatus(ctx context.Context, q *wire.GetStatusPRequest) (*wire.GetStatusPResponse, error) {
	rel := relative(q.GetPath())
	if err := f.refuses("GetStatus", rel); err != nil {
		return nil, err
	}
	d := f.dice("GetStatus", rel)
	if err := f.refuse(ctx, d); err != nil {
		return nil, err
	}
	info, err := f.info(rel)
	if err != nil {
		return nil, asStatus(err)
	}
	if rel != "" {
		lieOfFile(d, info)
	}
	return &wire.GetStatusPResponse{FileInfo: info}, nil
}

// batch is how many entries one message of a listing has.
const batch = 100

// ListStatus lists a directory, or tells of a file.
func (f *Fake) ListStatus(q *wire.ListStatusPRequest, s grpc.ServerStreamingServer[wire.ListStatusPResponse]) error {
	rel := relative(q.GetPath())
	if err := f.refuses("ListStatus", rel); err != nil {
		return err
	}
	d := f.dice("ListStatus", rel)
	if err := f.refuse(s.Context(), d); err != nil {
		return err
	}
	info, err := f.info(rel)
	if err != nil {
		return asStatus(err)
	}
	infos := []*wire.FileInfo{info}
	if info.GetFolder() {
		if infos, err = f.entries(rel); err != nil {
			return asStatus(err)
		}
		if f.cfg.Retells != nil {
			f.cfg.Retells(rel, infos)
		}
		infos = lieOfListing(d, infos)
	}
	breaks := d != nil && d.IntN(8) == 0
	for len(infos) > 0 {
		n := min(batch, len(infos))
		if err := s.Send(&wire.ListStatusPResponse{FileInfos: infos[:n]}); err != nil {
			return err
		}
		if infos = infos[n:]; breaks {
			return status.Error(codes.Internal, "the listing broke off")
		}
	}
	return nil
}

// entries are what is true of a directory.
func (f *Fake) entries(rel string) ([]*wire.FileInfo, error) {
	names, err := os.ReadDir(f.local(rel))
	if err != nil {
		return nil, err
	}
	var infos []*wire.FileInfo
	for _, e := range names {
		of := e.Name()
		if rel != "" {
			of = rel + "/" + of
		}
		info, err := f.info(of)
		if err != nil {
			// Gone since.
			continue
		}
		lieOfFile(f.dice("entry", of), info)
		infos = append(infos, info)
	}
	return infos, nil
}

// asStatus is an error as a master tells it.
func asStatus(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return status.Error(codes.NotFound, err.Error())
	}
	return status.Error(codes.Unknown, err.Error())
}

// GetMountTable tells of the one mount.
func (f *Fake) GetMountTable(context.Context, *wire.GetMountTablePRequest) (*wire.GetMountTablePResponse, error) {
	table := map[string]*wire.MountPointInfo{}
	lieOfMounts(f.dice("GetMountTable", ""), table)
	root := &wire.MountPointInfo{
		UfsUri: &f.cfg.Source, UfsType: proto.String("local"), MountId: proto.Int64(1),
		ReadOnly: proto.Bool(true),
	}
	if f.cfg.Source == "-" {
		root.UfsUri = proto.String("s3://nobody/")
	}
	table["/"] = root
	return &wire.GetMountTablePResponse{MountPoints: table}, nil
}

// Free drops the blocks of a path, and of what is below it.
func (f *Fake) Free(_ context.Context, q *wire.FreePRequest) (*wire.FreePResponse, error) {
	rel := relative(q.GetPath())
	names, err := os.ReadDir(f.cfg.Tier)
	for _, name := range names {
		id, numbered := strconv.ParseInt(name.Name(), 10, 64)
		of := f.pathOf(id)
		if numbered == nil && (rel == "" || of == rel || strings.HasPrefix(of, rel+"/")) {
			_ = os.Remove(f.cfg.Tier + "/" + name.Name())
		}
	}
	return &wire.FreePResponse{}, err
}

// SetAttribute does nothing.
func (f *Fake) SetAttribute(context.Context, *wire.SetAttributePRequest) (*wire.SetAttributePResponse, error) {
	return &wire.SetAttributePResponse{}, nil
}

// MetricsHeartbeat takes note of nothing.
func (f *Fake) MetricsHeartbeat(context.Context, *wire.MetricsHeartbeatPRequest) (
	*wire.MetricsHeartbeatPResponse, error,
) {
	return &wire.MetricsHeartbeatPResponse{}, nil
}

// GetBlockInfo tells where a block is.
func (f *Fake) GetBlockInfo(ctx context.Context, q *wire.GetBlockInfoPRequest) (*wire.GetBlockInfoPResponse, error) {
	d := f.dice("GetBlockInfo", f.pathOf(q.GetBlockId()))
	if err := f.refuse(ctx, d); err != nil {
		return nil, err
	}
	info := &wire.BlockInfo{
		BlockId: proto.Int64(q.GetBlockId()), Length: proto.Int64(f.cfg.BlockSize),
		Locations: f.at(q.GetBlockId()),
	}
	lieOfPlaces(d, info)
	return &wire.GetBlockInfoPResponse{BlockInfo: info}, nil
}

const (
	capacity = 1 << 30
)

// GetWorkerInfoList tells of the one worker, and perhaps of some that cannot be.
func (f *Fake) GetWorkerInfoList(context.Context, *wire.GetWorkerInfoListPOptions) (
	*wire.GetWorkerInfoListPResponse, error,
) {
	own := &wire.WorkerInfo{
		Id: proto.Int64(1), Address: f.workerAddress(), CapacityBytes: proto.Int64(capacity),
		UsedBytes: proto.Int64(0), State: proto.String("In Service"),
	}
	all := []*wire.WorkerInfo{own}
	for i, address := range f.cfg.Gone {
		host, port, _ := net.SplitHostPort(address)
		number, _ := strconv.ParseInt(port, 10, 32)
		at := proto.Int32(int32(number))
		all = append(all, &wire.WorkerInfo{
			Id: proto.Int64(int64(i + 2)), Address: &wire.WorkerNetAddress{Host: &host, RpcPort: at, DataPort: at},
			CapacityBytes: proto.Int64(capacity), State: proto.String("In Service"),
		})
	}
	return &wire.GetWorkerInfoListPResponse{WorkerInfos: lieOfWorkers(f.dice("GetWorkerInfoList", ""), all)}, nil
}

// GetBlockMasterInfo tells of the capacity.
func (f *Fake) GetBlockMasterInfo(context.Context, *wire.GetBlockMasterInfoPOptions) (
	*wire.GetBlockMasterInfoPResponse, error,
) {
	info := &wire.BlockMasterInfo{CapacityBytes: proto.Int64(capacity), UsedBytes: proto.Int64(0)}
	if d := f.dice("GetBlockMasterInfo", ""); d != nil {
		info.CapacityBytes, info.UsedBytes = proto.Int64(hostile(d)), proto.Int64(hostile(d))
	}
	return &wire.GetBlockMasterInfoPResponse{BlockMasterInfo: info}, nil
}
