package wire_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// The tests of this file hold what block_worker.proto says of WriteBlock, against a real worker.

func TestWrittenBlockIsKnownAtOnce(t *testing.T) {
	b := newTarget(t)
	b.write(b.content)
	b.isCached()
}

func TestWriteAnswersFlush(t *testing.T) {
	b := newTarget(t)
	stream, err := b.open(b.ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.sendChunks(stream, b.content)
	b.send(stream, &wire.WriteRequestCommand{
		Id: &b.block, Offset: proto.Int64(int64(len(b.content))),
		Flush: proto.Bool(true),
	})
	answer, err := stream.Recv()
	if err != nil || answer.GetOffset() != int64(len(b.content)) {
		t.Fatalf("the answer to flush is %v, %v, wanted offset %d", answer, err, len(b.content))
	}
	b.send(stream, &wire.WriteRequestCommand{Id: &b.block, Offset: proto.Int64(1), Flush: proto.Bool(true)})
	_, err = stream.Recv()
	wantCode(t, err, codes.InvalidArgument)
	b.isNotCached()
}

func TestWriteOfWhatIsThere(t *testing.T) {
	b := newTarget(t)
	b.write(b.content)
	_, err := b.open(b.ctx, 1)
	wantCode(t, err, codes.Internal)
	b.isCached()
}

func TestWriteOfWhatAnotherWrites(t *testing.T) {
	b := newTarget(t)
	first, err := b.open(b.ctx, int64(len(b.content)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.open(b.ctx, 1)
	wantCode(t, err, codes.Internal)
	b.sendChunks(first, b.content)
	b.commit(first)
	b.isCached()
}

// TestImpossibleReservationEvicts shows why nothing may be reserved that is larger than the tier: the worker evicts all
// that it can before it says no.
func TestImpossibleReservationEvicts(t *testing.T) {
	victim, b := newTarget(t), newTarget(t)
	victim.write(victim.content)
	victim.isCached()
	_, err := b.open(b.ctx, 1<<40)
	wantCode(t, err, codes.ResourceExhausted)
	b.isNotCached()
	if _, err := victim.read(); status.Code(err) != codes.NotFound {
		t.Errorf("reading a block that was there before: %v, wanted NOT_FOUND", err)
	}
}

// TestEmptyChunkSpoilsTheBlock shows why no chunk may be empty: the worker forgets the temporary block, and takes the
// block for one that somebody is writing until it is started again.
func TestEmptyChunkSpoilsTheBlock(t *testing.T) {
	b := newTarget(t)
	stream, err := b.open(b.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: []byte{}}}}); err != nil {
		t.Fatal(err)
	}
	_, err = stream.Recv()
	wantCode(t, err, codes.Unknown)
	_, err = b.open(b.ctx, 1)
	wantCode(t, err, codes.Internal)
}

func TestCancelledWrite(t *testing.T) {
	b := newTarget(t)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stream, err := b.open(ctx, int64(len(b.content)))
	if err != nil {
		t.Fatal(err)
	}
	b.sendChunks(stream, b.content)
	cancel()
	b.isNotCached()
	b.write(b.content)
	b.isCached()
}

// TestShortWriteIsCommitted shows why a writer must count: nobody else does.
func TestShortWriteIsCommitted(t *testing.T) {
	b := newTarget(t)
	short := b.content[:len(b.content)-1]
	b.write(short)
	if length, locations := b.known(); length != int64(len(b.content)) || locations != 1 {
		t.Errorf("the master knows of %d bytes on %d workers, wanted %d on 1", length, locations, len(b.content))
	}
	content, err := b.read()
	if err != nil || !bytes.Equal(content, short) {
		t.Errorf("the worker gives %d bytes and %v, wanted the %d that were written", len(content), err, len(short))
	}
	if _, err := b.worker.RemoveBlock(b.ctx, &wire.RemoveBlockRequest{BlockId: &b.block}); err != nil {
		t.Fatal(err)
	}
}

// open opens a write of the block, and asks for an answer.
func (b *target) open(ctx context.Context, space int64) (grpc.BidiStreamingClient[wire.WriteRequest,
	wire.WriteResponse], error,
) {
	b.t.Helper()
	stream, err := b.worker.WriteBlock(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	b.send(stream, &wire.WriteRequestCommand{Id: &b.block, SpaceToReserve: &space, Flush: proto.Bool(true)})
	answer, err := stream.Recv()
	if err == nil && (answer.Offset == nil || answer.GetOffset() != 0) {
		b.t.Errorf("the answer to the first command is %v, wanted offset 0", answer)
	}
	return stream, err
}

func (b *target) send(
	stream grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse], command *wire.WriteRequestCommand,
) {
	b.t.Helper()
	if err := stream.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Command{Command: command}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *target) sendChunks(stream grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse], content []byte) {
	b.t.Helper()
	const size = 256 << 10
	for len(content) > 0 {
		n := min(size, len(content))
		chunk := &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: content[:n]}}
		if err := stream.Send(&wire.WriteRequest{Value: chunk}); err != nil {
			b.t.Fatal(err)
		}
		content = content[n:]
	}
}

// write writes the block and commits it.
func (b *target) write(content []byte) {
	b.t.Helper()
	stream, err := b.open(b.ctx, int64(len(b.content)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.sendChunks(stream, content)
	b.commit(stream)
}

// commit closes the sending side of a stream and waits for its end.
func (b *target) commit(stream interface {
	CloseSend() error
	RecvMsg(any) error
},
) {
	b.t.Helper()
	if err := stream.CloseSend(); err != nil {
		b.t.Fatal(err)
	}
	if err := stream.RecvMsg(&wire.WriteResponse{}); !errors.Is(err, io.EOF) {
		b.t.Fatalf("the stream of a finished write ends with %v", err)
	}
}
