package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

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
func (u *UnderStore) options() *wire.OpenUfsBlockOptions {
	if u == nil {
		return nil
	}
	return &wire.OpenUfsBlockOptions{
		UfsPath: &u.Path, OffsetInFile: &u.Offset, BlockSize: &u.Length, MountId: &u.Mount, NoCache: proto.Bool(false),
		// Servers of 2.9 ignore it, and Alluxio's own client sends this.
		MaxUfsReadConcurrency: proto.Int32(1<<31 - 1), BlockInUfsTier: proto.Bool(false),
	}
}

// BlockReader is a range of a block on its way from a worker. It belongs to one goroutine.
type BlockReader struct {
	stream
	grpc grpc.ClientStream
	// at is the offset in the block of the next byte, acked the last one acknowledged, end where the range ends.
	at, acked, end int64
	// first is the chunk that came with the start.
	first *Chunk
	// done says that the stream has ended.
	done bool
}

// ReadBlock asks for the range [off, off+n) of a block, n at least 1. With under, a worker that does not have the block
// reads it from its under store, and keeps it if the range is the whole block and is read to its end. Without, a block
// that is not cached is fs.ErrNotExist. It returns when the first bytes are here; the context bounds only that. The
// stream lasts until Close or Abort.
func (w *Worker) ReadBlock(ctx context.Context, id, off, n int64, under *UnderStore) (*BlockReader, error) {
	if off < 0 || n < 1 {
		// A worker would leave the stream hanging.
		return nil, fmt.Errorf("read %d bytes at %d of a block: %w", n, off, fs.ErrInvalid)
	}
	var r *BlockReader
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		var err error
		r, err = w.openRead(ctx, conn, &wire.ReadRequest{
			BlockId: &id, Offset: &off, Length: &n, Promote: proto.Bool(false),
			ChunkSize:           proto.Int64(min(chunkSize, n)),
			OpenUfsBlockOptions: under.options(),
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

func (w *Worker) openRead(ctx context.Context, conn *grpc.ClientConn, q *wire.ReadRequest) (*BlockReader, error) {
	start := w.opening(ctx)
	r := &BlockReader{
		stream: start.stream(),
		at:     q.GetOffset(), acked: q.GetOffset(), end: q.GetOffset() + q.GetLength(),
	}
	var err error
	r.grpc, err = conn.NewStream(start.life, readDesc, wire.BlockWorker_ReadBlock_FullMethodName,
		grpc.ForceCodecV2(newRawCodec()))
	if err == nil {
		// Why it cannot be sent, what is received tells.
		_ = r.grpc.SendMsg(q)
		r.first, err = r.receive()
	}
	if err = start.settled(err); err != nil {
		r.first.Free()
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
	r.first = nil
	if c == nil {
		if r.at >= r.end {
			return nil, io.EOF
		}
		var err error
		if c, err = r.receive(); err != nil {
			return nil, r.explain(err)
		}
	}
	if r.at+int64(c.n) > r.end {
		c.Free()
		return nil, fmt.Errorf("%s: %w: more of a block than was asked for", r.endpoint.addr, errClaim)
	}
	r.at += int64(c.n)
	if r.at-r.acked >= ackEvery && r.at < r.end {
		r.acked = r.at
		// A failure shows with the next chunk.
		_ = r.grpc.SendMsg(&wire.ReadRequest{OffsetReceived: proto.Int64(r.at)})
	}
	return c, nil
}

// receive returns the next chunk that has bytes. A worker sends an empty one where it finds that it has none.
func (r *BlockReader) receive() (*Chunk, error) {
	for {
		c := new(Chunk)
		err := r.grpc.RecvMsg(c)
		switch {
		case errors.Is(err, io.EOF):
			r.done = true
			return nil, fmt.Errorf("%s: %w: %d of %d", r.endpoint.addr, ErrShort, r.at, r.end)
		case err != nil:
			r.done = true
			return nil, err
		case c.n > 0:
			return c, nil
		}
		c.Free()
	}
}

// Close ends the stream. One that has not come to its end is ended politely first.
func (r *BlockReader) Close() {
	r.first.Free()
	r.first = nil
	if r.done {
		r.cancel()
		return
	}
	r.done = true
	r.leave(r.grpc.CloseSend, func() error {
		var c Chunk
		err := r.grpc.RecvMsg(&c)
		c.Free()
		return err
	})
}
