package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// writeChunk is how many bytes one message of a BlockWriter carries; the worker takes 4 MiB at the most.
const writeChunk = 1 << 20

// LocalBlock is a block that we write into a worker's tier ourselves: the worker makes the file, has room for it, and
// makes it a block when it is complete. Until then nobody else sees it, and the end of our connection drops it.
type LocalBlock struct {
	// Path is the file to write to.
	Path string

	addr   string
	stream grpc.BidiStreamingClient[wire.CreateLocalBlockRequest, wire.CreateLocalBlockResponse]
	cancel context.CancelFunc
}

// CreateLocal has a worker on this machine make a file for a block of length bytes. A block that the worker has, or that
// somebody else is writing, is fs.ErrExist.
func (w *Worker) CreateLocal(ctx context.Context, id, length int64) (*LocalBlock, error) {
	var b *LocalBlock
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		// The stream is the life of the temporary block, and ends with Commit or Abort.
		life, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(ctx, cancel)
		stream, err := wire.NewBlockWorkerClient(conn).CreateLocalBlock(life)
		var r *wire.CreateLocalBlockResponse
		if err == nil {
			_ = stream.Send(&wire.CreateLocalBlockRequest{
				BlockId: &id, SpaceToReserve: &length, OnlyReserveSpace: proto.Bool(false), CleanupOnFailure: proto.Bool(true),
			})
			r, err = stream.Recv()
		}
		if ours := stop(); !ours && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			cancel()
			return err
		}
		b = &LocalBlock{Path: r.GetPath(), addr: w.endpoint.addr, stream: stream, cancel: cancel}
		return nil
	})
	return b, err
}

// Commit makes the file a block of its present length, which is known to the masters when Commit returns nil.
func (b *LocalBlock) Commit(ctx context.Context) error {
	stop := context.AfterFunc(ctx, b.cancel)
	defer b.cancel()
	defer stop()
	if err := b.stream.CloseSend(); err != nil {
		return explain(b.addr, err)
	}
	for {
		_, err := b.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("%s: commit a block: %w", b.addr, ctx.Err())
		case err != nil:
			return explain(b.addr, err)
		}
	}
}

// Abort drops the file.
func (b *LocalBlock) Abort() { b.cancel() }

// BlockWriter is a block on its way to a worker. It belongs to one goroutine.
type BlockWriter struct {
	addr   string
	stream grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse]
	cancel context.CancelFunc
	// left is how many bytes are to come.
	left int64
}

// WriteBlock begins to give a worker a block of length bytes. A block that the worker has, or that somebody else is
// writing, is fs.ErrExist, from here or from Write or Commit.
func (w *Worker) WriteBlock(ctx context.Context, id, length int64) (*BlockWriter, error) {
	var b *BlockWriter
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		life, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stop := context.AfterFunc(ctx, cancel)
		stream, err := wire.NewBlockWorkerClient(conn).WriteBlock(life)
		if err == nil {
			err = stream.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Command{Command: &wire.WriteRequestCommand{
				Type: wire.RequestType_ALLUXIO_BLOCK.Enum(), Id: &id, Offset: proto.Int64(0), Tier: proto.Int32(0), SpaceToReserve: &length,
			}}})
		}
		if ours := stop(); !ours && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			cancel()
			return err
		}
		b = &BlockWriter{addr: w.endpoint.addr, stream: stream, cancel: cancel, left: length}
		return nil
	})
	return b, err
}

// Write sends the next bytes; the transport's flow control has it wait for the worker.
func (b *BlockWriter) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		part := p[sent:min(sent+writeChunk, len(p))]
		err := b.stream.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: part}}})
		if errors.Is(err, io.EOF) {
			// What ended the stream comes with the receiving side.
			_, err = b.stream.Recv()
		}
		if err != nil {
			return sent, explain(b.addr, err)
		}
		sent += len(part)
		b.left -= int64(len(part))
	}
	return sent, nil
}

// Commit makes what was written a block, which is known to the masters when Commit returns nil. One that is not
// complete is dropped instead, with an error.
func (b *BlockWriter) Commit(ctx context.Context) error {
	defer b.cancel()
	if b.left != 0 {
		return fmt.Errorf("%s: a block that lacks %d bytes is not committed", b.addr, b.left)
	}
	stop := context.AfterFunc(ctx, b.cancel)
	defer stop()
	if err := b.stream.CloseSend(); err != nil {
		return explain(b.addr, err)
	}
	for {
		_, err := b.stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return explain(b.addr, err)
		}
	}
}

// Abort drops what was written.
func (b *BlockWriter) Abort() { b.cancel() }
