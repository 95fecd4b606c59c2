package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// AlwaysSync as an age has the master compare what it knows with the under store before it answers.
const AlwaysSync time.Duration = 0

// safe is the part that every request has that may load metadata from an under store. Unset, ttl and ttlAction are 0
// and DELETE to the server: files loaded by the request are deleted from the under store when they "expire". maxAge
// is how old the master's knowledge may be; it is compared with the under store where it is older.
func safe(maxAge time.Duration) *wire.FileSystemMasterCommonPOptions {
	return &wire.FileSystemMasterCommonPOptions{
		Ttl: proto.Int64(-1), TtlAction: wire.TtlAction_FREE.Enum(), SyncIntervalMs: proto.Int64(max(maxAge, 0).Milliseconds()),
	}
}

// Status describes one path, which is absolute. A path that is not there is fs.ErrNotExist.
func (m *Masters) Status(ctx context.Context, path string, maxAge time.Duration) (*wire.FileInfo, error) {
	var info *wire.FileInfo
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := wire.NewFileSystemMasterClientServiceClient(conn).GetStatus(ctx, &wire.GetStatusPRequest{
			Path: &path,
			Options: &wire.GetStatusPOptions{
				LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(), CommonOptions: safe(maxAge), UpdateTimestamps: proto.Bool(false),
			},
		})
		info = r.GetFileInfo()
		return err
	})
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("%s: the master told nothing of it", path)
	}
	return info, nil
}

// List calls fn for each entry of the directory, in the master's order, as batches come. The list is good only
// if List returns nil: a stream may end with an error half way. restart is called before entries come anew from another
// leader, and ends the listing with its error.
func (m *Masters) List(ctx context.Context, dir string, maxAge time.Duration, restart func() error, fn func(*wire.FileInfo) error) error {
	begun := false
	var stopped error
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		if begun {
			// Not the call's error, which would be taken for the new leader's.
			if stopped = restart(); stopped != nil {
				return nil
			}
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := wire.NewFileSystemMasterClientServiceClient(conn).ListStatus(ctx, &wire.ListStatusPRequest{
			Path: &dir,
			Options: &wire.ListStatusPOptions{
				LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(), CommonOptions: safe(maxAge),
			},
		})
		if err != nil {
			return err
		}
		for {
			batch, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, info := range batch.GetFileInfos() {
				begun = true
				if err := fn(info); err != nil {
					return err
				}
			}
		}
	})
	if err == nil {
		err = stopped
	}
	return err
}

// Load has the master read the metadata of a whole tree from the under stores, and returns when it has.
func (m *Masters) Load(ctx context.Context, dir string, maxAge time.Duration) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := wire.NewFileSystemMasterClientServiceClient(conn).ListStatus(ctx, &wire.ListStatusPRequest{
			Path: &dir,
			Options: &wire.ListStatusPOptions{
				LoadMetadataType: wire.LoadMetadataPType_ALWAYS.Enum(), CommonOptions: safe(maxAge),
				Recursive: proto.Bool(true), LoadMetadataOnly: proto.Bool(true),
			},
		})
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
}

// Block tells where a block is cached.
func (m *Masters) Block(ctx context.Context, id int64) (*wire.BlockInfo, error) {
	var info *wire.BlockInfo
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := wire.NewBlockMasterClientServiceClient(conn).GetBlockInfo(ctx, &wire.GetBlockInfoPRequest{BlockId: &id})
		info = r.GetBlockInfo()
		return err
	})
	return info, err
}
