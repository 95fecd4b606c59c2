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

// Ages of a master's knowledge that mean more than their length.
const (
	// AlwaysSync has the master compare what it knows with the under store before it answers.
	AlwaysSync time.Duration = 0
	// NeverSync has it answer from what it knows, however old; what it does not know it still loads.
	NeverSync time.Duration = -1
)

// safe is the part that every request has that may load metadata from an under store. Unset, ttl and ttlAction are 0
// and DELETE to the server: files loaded by the request are deleted from the under store when they "expire". maxAge
// is how old the master's knowledge may be; it is compared with the under store where it is older.
func safe(maxAge time.Duration) *wire.FileSystemMasterCommonPOptions {
	interval := maxAge.Milliseconds()
	if maxAge < 0 {
		interval = -1
	}
	return &wire.FileSystemMasterCommonPOptions{
		Ttl: proto.Int64(-1), TtlAction: wire.TtlAction_FREE.Enum(), SyncIntervalMs: &interval,
	}
}

// Status describes one path, which is absolute. A path that is not there is fs.ErrNotExist.
func (m *Masters) Status(ctx context.Context, path string, maxAge time.Duration) (*wire.FileInfo, error) {
	var info *wire.FileInfo
	err := m.inquire(ctx, func(ctx context.Context, conn *grpc.ClientConn, most grpc.CallOption) error {
		r, err := wire.NewFileSystemMasterClientServiceClient(conn).GetStatus(ctx, &wire.GetStatusPRequest{
			Path: &path,
			Options: &wire.GetStatusPOptions{
				LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(), CommonOptions: safe(maxAge),
				UpdateTimestamps: proto.Bool(false),
			},
		}, most)
		info = r.GetFileInfo()
		return err
	})
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("%s: the master told nothing of it", path)
	}
	if err := believe(info); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return info, nil
}

// Reach has the leader ask the under store for one path, in one attempt, whatever is known of it. That the path is not
// there is fs.ErrNotExist, and an answer of the under store.
func (m *Masters) Reach(ctx context.Context, path string) error {
	return m.call(ctx, once, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewFileSystemMasterClientServiceClient(conn).GetStatus(ctx, &wire.GetStatusPRequest{
			Path: &path,
			Options: &wire.GetStatusPOptions{
				LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(), CommonOptions: safe(AlwaysSync),
				UpdateTimestamps: proto.Bool(false),
			},
		})
		return err
	})
}

// List calls fn for each entry of the directory, in the master's order, as batches come. The list is good only if
// List returns nil: a stream may end with an error half way. restart is called before entries come anew from another
// leader. An error of fn or of restart ends the listing, and is returned as it is. Without a deadline it ends when
// nothing has come for callPatience. Names that no directory can have are left out and logged; of a file whose
// numbers cannot be, the name alone is told.
func (m *Masters) List(
	ctx context.Context, dir string, maxAge time.Duration, restart func() error, fn func(*wire.FileInfo) error,
) error {
	return m.listWith(ctx, dir, &wire.ListStatusPOptions{
		LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(), CommonOptions: safe(maxAge),
	}, restart, fn)
}

// Names is List without where the entries are in the under store, which is a fifth of the master's work.
func (m *Masters) Names(
	ctx context.Context, dir string, maxAge time.Duration, restart func() error, fn func(*wire.FileInfo) error,
) error {
	return m.listWith(ctx, dir, &wire.ListStatusPOptions{
		LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(), CommonOptions: safe(maxAge),
		ExcludeMountInfo: proto.Bool(true),
	}, restart, fn)
}

func (m *Masters) listWith(ctx context.Context, dir string, options *wire.ListStatusPOptions, restart func() error,
	fn func(*wire.FileInfo) error,
) error {
	// Not the call's error, which would be taken for the leader's.
	var stopped error
	goesOn := func(err error) bool {
		stopped = err
		return err == nil
	}
	ctx, heard, stop := untilQuiet(ctx, callPatience)
	defer stop()
	taken, leftOut := 0, 0
	attempt := func(most int) error {
		return m.lasting(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
			if taken > 0 && !goesOn(restart()) {
				return nil
			}
			taken, leftOut = 0, 0
			question := &wire.ListStatusPRequest{Path: &dir, Options: options}
			return receiveAll(ctx, conn, question, most, func(info *wire.FileInfo) bool {
				heard()
				if taken++; taken > mostListed {
					return goesOn(fmt.Errorf("%s: %w: more than %d entries", dir, errClaim, mostListed))
				}
				if !entry(info) {
					leftOut++
					return true
				}
				return goesOn(fn(info))
			})
		})
	}
	err := m.byTurns(ctx, attempt(usualBatch), func() error { return attempt(largestMessage) })
	if leftOut > 0 {
		m.tellLeftOut(dir, leftOut)
	}
	if err != nil {
		return err
	}
	return stopped
}

// listDesc describes ListStatus for a stream whose messages are taken apart one by one.
var listDesc = &grpc.StreamDesc{StreamName: "ListStatus", ServerStreams: true}

// receiveAll makes a listing, no message of which has more than most bytes, and calls fn for each entry of it, until fn
// returns false.
func receiveAll(
	ctx context.Context, conn *grpc.ClientConn, q *wire.ListStatusPRequest, most int, fn func(*wire.FileInfo) bool,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(
		ctx, listDesc, wire.FileSystemMasterClientService_ListStatus_FullMethodName, grpc.MaxCallRecvMsgSize(most))
	if err != nil {
		return err
	}
	// Why it cannot be sent, what is received tells.
	_ = stream.SendMsg(q)
	_ = stream.CloseSend()
	for {
		var b batch
		if err := stream.RecvMsg(&b); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if goesOn, err := b.each(fn); err != nil || !goesOn {
			return err
		}
	}
}

// Load has the master read the metadata of a whole tree from the under stores, and returns when it has.
func (m *Masters) Load(ctx context.Context, dir string, maxAge time.Duration) error {
	return m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		return receiveAll(ctx, conn, &wire.ListStatusPRequest{
			Path: &dir,
			Options: &wire.ListStatusPOptions{
				LoadMetadataType: wire.LoadMetadataPType_ALWAYS.Enum(), CommonOptions: safe(maxAge),
				Recursive: proto.Bool(true), LoadMetadataOnly: proto.Bool(true),
			},
		}, usualBatch, func(*wire.FileInfo) bool { return true })
	})
}

// Block tells where a block is cached.
func (m *Masters) Block(ctx context.Context, id int64) (*wire.BlockInfo, error) {
	var info *wire.BlockInfo
	err := m.call(ctx, safely, func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := wire.NewBlockMasterClientServiceClient(conn).GetBlockInfo(ctx,
			&wire.GetBlockInfoPRequest{BlockId: &id})
		info = r.GetBlockInfo()
		return err
	})
	if err != nil {
		return nil, err
	}
	return blockPlaces(id, info)
}
