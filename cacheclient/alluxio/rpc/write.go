package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

const (
	// writeChunk is how many bytes one message of a BlockWriter carries; the worker takes less than 4 MiB.
	writeChunk = 1 << 20
	// writePatience is how long a worker may take nothing of what is written to it.
	writePatience = 10 * time.Second
)

// LocalBlock is a block that we write into a worker's tier ourselves: the worker makes the file, has room for it, and
// makes it a block when it is complete. Until then nobody else sees it, and the end of our connection drops it.
type LocalBlock struct {
	// Path is the file to write to.
	Path string

	stream
	grpc grpc.BidiStreamingClient[wire.CreateLocalBlockRequest, wire.CreateLocalBlockResponse]
}

// CreateLocal has a worker on this machine make a file for a block of length bytes. A block that the worker has, or
// that another client is writing, is fs.ErrExist, one that does not fit ErrNoRoom. The context bounds only this call;
// the block lasts until Commit or Abort.
func (w *Worker) CreateLocal(ctx context.Context, id, length int64) (*LocalBlock, error) {
	b := new(LocalBlock)
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		start := w.opening(ctx)
		var err error
		b.stream = start.stream()
		if b.grpc, err = wire.NewBlockWorkerClient(conn).CreateLocalBlock(start.life); err == nil {
			_ = b.grpc.Send(&wire.CreateLocalBlockRequest{
				BlockId: &id, SpaceToReserve: &length, OnlyReserveSpace: proto.Bool(false),
				CleanupOnFailure: proto.Bool(true),
			})
			var r *wire.CreateLocalBlockResponse
			r, err = b.grpc.Recv()
			b.Path = r.GetPath()
		}
		return noRoom(w.Addr(), start.settled(err))
	})
	if err != nil {
		return nil, err
	}
	if err := checkPath(b.Path); err != nil {
		b.Abort()
		return nil, err
	}
	return b, nil
}

// noRoom makes the want of space an error of its own: the worker is well.
func noRoom(addr string, err error) error {
	if status.Code(err) == codes.ResourceExhausted {
		return fmt.Errorf("%s: %w: %s", addr, ErrNoRoom, brief(status.Convert(err).Message()))
	}
	return err
}

// Commit makes the file, which must have the block's exact length, a block, which is known to the masters when Commit
// returns nil. While no master answers it waits, and who reads the block waits too; when it fails for that
// reason, the worker may have the block all the same.
func (b *LocalBlock) Commit(ctx context.Context) error {
	return b.finish(ctx, b.grpc.CloseSend, func() error {
		_, err := b.grpc.Recv()
		return err
	})
}

// BlockWriter is a block on its way to a worker. It belongs to one goroutine.
type BlockWriter struct {
	stream
	grpc grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse]
	// left is how many bytes are to come, and patience how long the worker may take none.
	left     int64
	patience time.Duration
}

// WriteBlock begins to give a worker a block of length bytes. A block that the worker has, or that somebody else is
// writing, is fs.ErrExist, one that does not fit ErrNoRoom. The context bounds only this call; the block
// lasts until Commit or Abort.
func (w *Worker) WriteBlock(ctx context.Context, id, length int64) (*BlockWriter, error) {
	b := &BlockWriter{left: length, patience: writePatience}
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		start := w.opening(ctx)
		var err error
		b.stream = start.stream()
		if b.grpc, err = wire.NewBlockWorkerClient(conn).WriteBlock(start.life); err == nil {
			// With flush the worker answers: without, that it cannot take the block would show when it is written.
			_ = b.grpc.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Command{Command: &wire.WriteRequestCommand{
				Type: wire.RequestType_ALLUXIO_BLOCK.Enum(), Id: &id, Offset: proto.Int64(0), Tier: proto.Int32(0),
				SpaceToReserve: &length, Flush: proto.Bool(true),
			}}})
			_, err = b.grpc.Recv()
		}
		return noRoom(w.Addr(), start.settled(err))
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Write sends the next bytes; the transport's flow control has it wait for the worker, for writePatience at the most.
// After an error the block is lost.
func (b *BlockWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		// The worker would take them, and the block would be damaged.
		return 0, fmt.Errorf("write %d bytes to a block that lacks %d: %w", len(p), b.left, fs.ErrInvalid)
	}
	sent := 0
	for sent < len(p) {
		// Never an empty chunk: the worker would take the block for one that somebody is writing for ever.
		part := p[sent:min(sent+writeChunk, len(p))]
		if err := b.send(part); err != nil {
			return sent, err
		}
		sent += len(part)
		b.left -= int64(len(part))
	}
	return sent, nil
}

func (b *BlockWriter) send(part []byte) error {
	patience := time.AfterFunc(b.patience, b.cancel)
	err := b.grpc.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: part}}})
	if inTime := patience.Stop(); !inTime {
		return &Unreachable{Addr: b.endpoint.addr, Why: fmt.Sprintf("took nothing of a block for %v", b.patience)}
	}
	if errors.Is(err, io.EOF) {
		// What ended the stream comes with the receiving side.
		_, err = b.grpc.Recv()
	}
	return b.explain(err)
}

// Commit makes what was written a block, which is known to the masters when Commit returns nil, as that of a
// LocalBlock. A block that is not complete is dropped instead, with an error.
func (b *BlockWriter) Commit(ctx context.Context) error {
	if b.left != 0 {
		b.cancel()
		return fmt.Errorf("%s: commit a block that lacks %d bytes: %w", b.endpoint.addr, b.left, io.ErrShortWrite)
	}
	return b.finish(ctx, b.grpc.CloseSend, func() error {
		_, err := b.grpc.Recv()
		return err
	})
}
