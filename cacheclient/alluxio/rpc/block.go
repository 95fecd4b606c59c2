package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// Locate asks a worker for the file that holds a block, which is on the worker's machine. A block that it does not
// have is fs.ErrNotExist. The worker's lock on the block is given back at once: the caller opens the path, finds it
// gone if the block was evicted in between, and what is open stays, because block files never change.
func (w *Worker) Locate(ctx context.Context, id int64) (string, error) {
	var path string
	err := w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		start := w.opening(ctx)
		stream, err := wire.NewBlockWorkerClient(conn).OpenLocalBlock(start.life)
		if err == nil {
			_ = stream.Send(&wire.OpenLocalBlockRequest{BlockId: &id, Promote: proto.Bool(false)})
			var r *wire.OpenLocalBlockResponse
			r, err = stream.Recv()
			path = r.GetPath()
		}
		if err = start.settled(err); err != nil {
			return err
		}
		// The end of our side ends the lease. Waiting for theirs would cost 0.2 ms and tell nothing.
		lease := start.stream()
		lease.leave(stream.CloseSend, func() error {
			_, err := stream.Recv()
			return err
		})
		return nil
	})
	if err == nil {
		err = checkPath(path)
	}
	return path, err
}

// Cache has a worker read a block from its under store, and returns when it has it; with async at once, and then errors
// are the worker's secret. length is exact: any other leaves a damaged block that looks like a good one.
func (w *Worker) Cache(ctx context.Context, id, length int64, under UnderStore, async bool) error {
	// With itself as the source it reads its under store.
	return w.copyFrom(ctx, w, &wire.CacheRequest{
		BlockId: &id, Length: &length, Async: &async,
		OpenUfsBlockOptions: under.options(),
	})
}

// Copy has a worker copy a block from another worker. It returns before that is done, and errors are the worker's
// secret. length is exact.
func (w *Worker) Copy(ctx context.Context, id, length int64, from *Worker) error {
	return w.copyFrom(ctx, from, &wire.CacheRequest{BlockId: &id, Length: &length, Async: proto.Bool(true)})
}

// Fetch has a worker copy a block from another worker, and returns when it has it, or the error. length is exact.
func (w *Worker) Fetch(ctx context.Context, id, length int64, from *Worker) error {
	return w.copyFrom(ctx, from, &wire.CacheRequest{BlockId: &id, Length: &length, Async: proto.Bool(false)})
}

func (w *Worker) copyFrom(ctx context.Context, from *Worker, q *wire.CacheRequest) error {
	at := from.named()
	q.SourceHost, q.SourcePort = proto.String(reachableHost(at)), proto.Int32(at.GetDataPort())
	return w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewBlockWorkerClient(conn).Cache(ctx, q)
		return err
	})
}

// Remove drops a worker's copy of a block; one that it does not have is fs.ErrNotExist. A connection that breaks leaves
// open whether it was done, so the worker is asked once more.
func (w *Worker) Remove(ctx context.Context, id int64) error {
	err := w.removeOnce(ctx, id)
	if unavailable(err) && ctx.Err() == nil {
		err = w.removeOnce(ctx, id)
	}
	return err
}

func (w *Worker) removeOnce(ctx context.Context, id int64) error {
	return w.do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := wire.NewBlockWorkerClient(conn).RemoveBlock(ctx, &wire.RemoveBlockRequest{BlockId: &id})
		return err
	})
}
