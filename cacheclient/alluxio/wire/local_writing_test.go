package wire_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// The tests of this file hold what block_worker.proto says of CreateLocalBlock, against a real worker.

type localStream = grpc.BidiStreamingClient[wire.CreateLocalBlockRequest, wire.CreateLocalBlockResponse]

// local is a block that is being written as a file.
type local struct {
	localStream
	path string
}

func (b *target) createLocal(ctx context.Context, request *wire.CreateLocalBlockRequest) (*local, error) {
	b.t.Helper()
	stream, err := b.worker.CreateLocalBlock(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := stream.Send(request); err != nil {
		b.t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err == nil && answer.GetPath() == "" {
		b.t.Fatal("the worker gave no path")
	}
	return &local{stream, answer.GetPath()}, err
}

// TestLocalBlockIsWrittenInAnyOrder writes the second half first, into a reservation that grows.
func TestLocalBlockIsWrittenInAnyOrder(t *testing.T) {
	b := newTarget(t)
	half := int64(len(b.content) / 2)
	stream, err := b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: &half})
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.CreateLocalBlockRequest{
		BlockId: &b.block, SpaceToReserve: proto.Int64(int64(len(b.content)) - half),
		OnlyReserveSpace: proto.Bool(true),
	}); err != nil {
		t.Fatal(err)
	}
	if answer, err := stream.Recv(); err != nil || answer.Path != nil {
		t.Fatalf("the answer to a reservation is %v, %v", answer, err)
	}
	file, err := os.OpenFile(stream.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, from := range []int64{half, 0} {
		part := b.content[from:]
		if from == 0 {
			part = part[:half]
		}
		if _, err := file.WriteAt(part, from); err != nil {
			t.Fatal(err)
		}
	}
	if _, locations := b.known(); locations != 0 {
		t.Errorf("the master knows of the block on %d workers before it is committed", locations)
	}
	b.commit(stream)
	b.isCached()
	// The file has another name now; who has it open need not open it again.
	written, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	block, err := os.Stat(filepath.Join(b.server.TierDir, "alluxioworker", strconv.FormatInt(b.block, 10)))
	if err != nil || !os.SameFile(written, block) {
		t.Errorf("the block's file is not the one that was written: %v", err)
	}
}

func TestLocalWriteThatCannotBe(t *testing.T) {
	b := newTarget(t)
	request := &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(1 << 40)}
	_, err := b.createLocal(b.ctx, request)
	wantCode(t, err, codes.ResourceExhausted)
	b.isNotCached()
	request.SpaceToReserve = proto.Int64(int64(len(b.content)))
	first, err := b.open(b.ctx, request.GetSpaceToReserve())
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.createLocal(b.ctx, request)
	wantCode(t, err, codes.Internal)
	b.sendChunks(first, b.content)
	b.commit(first)
	_, err = b.createLocal(b.ctx, request)
	wantCode(t, err, codes.Internal)
	b.isCached()
}

func TestCancelledLocalWrite(t *testing.T) {
	b := newTarget(t)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stream, err := b.createLocal(ctx, &wire.CreateLocalBlockRequest{
		BlockId:        &b.block,
		SpaceToReserve: proto.Int64(int64(len(b.content))),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stream.path, b.content, 0); err != nil {
		t.Fatal(err)
	}
	cancel()
	b.isNotCached()
	b.write(b.content)
	b.isCached()
}
