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

const (
	// chunkSize is what we ask for at a time, in bytes; workers send 2 MiB at the most
	// (alluxio.worker.network.reader.max.chunk.size.bytes). Fewer chunks cost the worker less.
	chunkSize = 2 << 20
	// ackEvery is how many bytes may come between two acknowledgements. A worker pauses 4 MiB beyond what was
	// acknowledged (alluxio.worker.network.reader.buffer.size) once the transport is full.
	ackEvery = 1 << 20
	// drainPatience is how long a stream that ended early gets to end by itself.
	drainPatience = 50 * time.Millisecond
)

// UnderStore tells a worker where a block that it does not have is in its under store.
type UnderStore struct {
	// Path is the file's URI, Mount the mount's id.
	Path  string
	Mount int64
	// Offset is that of the block in the file, Length that of the block, in bytes.
	Offset, Length int64
}

// options are nil for nil: then only what is cached is served.
func (u *UnderStore) options(cache bool) *wire.OpenUfsBlockOptions {
	if u == nil {
		return nil
	}
	return &wire.OpenUfsBlockOptions{
		UfsPath: &u.Path, OffsetInFile: &u.Offset, BlockSize: &u.Length, MountId: &u.Mount, NoCache: proto.Bool(!cache),
		// Servers of 2.9 ignore it, and Alluxio's own client sends this.
		MaxUfsReadConcurrency: proto.Int32(1<<31 - 1), BlockInUfsTier: proto.Bool(false),
	}
}

// ErrShort says that a worker ended a block early and called that a success: what it has of the block is damaged.
var ErrShort = errors.New("the worker has fewer bytes of the block than the block has")

// BlockReader is a range of a block on its way from a worker. It belongs to one goroutine.
type BlockReader struct {
	addr   string
	stream grpc.ClientStream
	cancel context.CancelFunc
	// at is the offset in the block of the next byte, acked the last one acknowledged, end where the range ends.
	at, acked, end int64
	// first is the chunk that came with the start.
	first *Chunk
	done  bool
}

// ReadBlock asks for the range [off, off+n) of a block, n at least 1. With under, a worker that does not have the block reads
// it from its under store, and keeps it if the range is the whole block and is read to its end. Without, a block
// that is not cached is fs.ErrNotExist. It returns when the first bytes are here.
func (w *Worker) ReadBlock(ctx context.Context, id, off, n int64, under *UnderStore) (*BlockReader, error) {
	var r *BlockReader
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		var err error
		r, err = w.openStream(ctx, conn, &wire.ReadRequest{
			BlockId: &id, Offset: &off, Length: &n, Promote: proto.Bool(false), ChunkSize: proto.Int64(min(chunkSize, n)),
			OpenUfsBlockOptions: under.options(true),
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// readDesc describes ReadBlock for a stream whose messages have a codec of their own.
var readDesc = &grpc.StreamDesc{StreamName: "ReadBlock", ServerStreams: true, ClientStreams: true}

func (w *Worker) openStream(ctx context.Context, conn *grpc.ClientConn, q *wire.ReadRequest) (*BlockReader, error) {
	// The stream outlives the call that opens it, and ends with Close; until it has answered, the call's end ends it.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	stream, err := conn.NewStream(life, readDesc, wire.BlockWorker_ReadBlock_FullMethodName, grpc.ForceCodecV2(newRawCodec()))
	if err == nil {
		err = stream.SendMsg(q)
		if errors.Is(err, io.EOF) {
			err = stream.RecvMsg(new(Chunk))
		}
	}
	r := &BlockReader{
		addr: w.endpoint.addr, stream: stream, cancel: cancel,
		at: q.GetOffset(), acked: q.GetOffset(), end: q.GetOffset() + q.GetLength(),
	}
	if err == nil {
		r.first, err = r.recv()
	}
	if ours := stop(); !ours && err == nil {
		if r.first != nil {
			r.first.Free()
		}
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return r, nil
}

// At is the offset in the block of the next byte.
func (r *BlockReader) At() int64 { return r.at }

// Next returns the next chunk, which the caller frees, and io.EOF after the last byte of the range. A stream that
// ends before is ErrShort where the worker says that all is well.
func (r *BlockReader) Next() (*Chunk, error) {
	c := r.first
	if r.first = nil; c == nil {
		if r.at >= r.end {
			return nil, io.EOF
		}
		var err error
		if c, err = r.recv(); err != nil {
			return nil, explain(r.addr, err)
		}
	}
	r.at += int64(c.n)
	if r.at > r.end {
		c.Free()
		return nil, fmt.Errorf("%s sends more of a block than was asked for", r.addr)
	}
	if r.at-r.acked >= ackEvery && r.at < r.end {
		r.acked = r.at
		// A failure shows with the next chunk.
		_ = r.stream.SendMsg(&wire.ReadRequest{OffsetReceived: proto.Int64(r.at)})
	}
	return c, nil
}

func (r *BlockReader) recv() (*Chunk, error) {
	c := new(Chunk)
	err := r.stream.RecvMsg(c)
	switch {
	case errors.Is(err, io.EOF):
		r.done = true
		return nil, fmt.Errorf("%s: %w: %d of %d", r.addr, ErrShort, r.at, r.end)
	case err != nil:
		r.done = true
		return nil, err
	}
	return c, nil
}

// Close ends the stream. One that has not come to its end is ended politely first, because a worker logs a
// cancelled stream as a failure.
func (r *BlockReader) Close() {
	if r.first != nil {
		r.first.Free()
		r.first = nil
	}
	if r.done {
		r.cancel()
		return
	}
	_ = r.stream.CloseSend()
	timer := time.AfterFunc(drainPatience, r.cancel)
	go func() {
		defer r.cancel()
		defer timer.Stop()
		for {
			c := new(Chunk)
			if r.stream.RecvMsg(c) != nil {
				return
			}
			c.Free()
		}
	}()
}

// Abort ends the stream at once. It may be called from another goroutine, and ends a Next that waits.
func (r *BlockReader) Abort() { r.cancel() }

// Locate asks a worker for the file that holds a block, which is on the worker's machine. A block that it does not
// have is fs.ErrNotExist. The worker's lock on the block is given back at once: the caller opens the path, finds it
// gone if the block was evicted in between, and what is open stays, because block files never change.
func (w *Worker) Locate(ctx context.Context, id int64) (string, error) {
	var path string
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(ctx)
		stream, err := wire.NewBlockWorkerClient(conn).OpenLocalBlock(ctx)
		if err != nil {
			cancel()
			return err
		}
		sendErr := stream.Send(&wire.OpenLocalBlockRequest{BlockId: &id, Promote: proto.Bool(false)})
		r, err := stream.Recv()
		path = r.GetPath()
		if err == nil && sendErr == nil {
			// The end of our side ends the lease; waiting for theirs costs 0.2 ms and tells nothing.
			err = stream.CloseSend()
			time.AfterFunc(drainPatience, cancel)
			return err
		}
		cancel()
		return errors.Join(err, sendErr)
	})
	return path, err
}

// Cache has a worker read a block from its under store, and returns when it has it; with async at once, and then errors
// are the worker's secret. length is exact: any other leaves a damaged block that looks like a good one.
func (w *Worker) Cache(ctx context.Context, id, length int64, under UnderStore, async bool) error {
	host := w.address.GetHost()
	if c := w.address.GetContainerHost(); c != "" {
		host = c
	}
	return w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewBlockWorkerClient(conn).Cache(ctx, &wire.CacheRequest{
			BlockId: &id, Length: &length, Async: &async, OpenUfsBlockOptions: under.options(true),
			// The worker itself as the source: it reads its under store.
			SourceHost: &host, SourcePort: proto.Int32(w.address.GetDataPort()),
		})
		return err
	})
}

// Copy has a worker copy a block from another worker.
func (w *Worker) Copy(ctx context.Context, id, length int64, from *Worker) error {
	host := from.address.GetHost()
	if c := from.address.GetContainerHost(); c != "" {
		host = c
	}
	return w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewBlockWorkerClient(conn).Cache(ctx, &wire.CacheRequest{
			BlockId: &id, Length: &length, Async: proto.Bool(true), SourceHost: &host, SourcePort: proto.Int32(from.address.GetDataPort()),
		})
		return err
	})
}

// Remove drops a worker's copy of a block; one that it does not have is fs.ErrNotExist.
func (w *Worker) Remove(ctx context.Context, id int64) error {
	return w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewBlockWorkerClient(conn).RemoveBlock(ctx, &wire.RemoveBlockRequest{BlockId: &id})
		return err
	})
}
