package wire_test

import (
	"os"
	"context"
		"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

func TestZOdd(t *testing.T) {
	b := newBench(t)
	ctx, c := context.WithTimeout(b.ctx, 3*time.Second)
	defer c()
	s, _ := b.worker.WriteBlock(ctx)
	s.CloseSend()
	_, err := s.Recv()
	t.Log("CloseSend before any:", err)
	ctx, c2 := context.WithTimeout(b.ctx, 3*time.Second)
	defer c2()
	s, _ = b.worker.WriteBlock(ctx)
	s.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: []byte("x")}}})
	_, err = s.Recv()
	t.Log("chunk first:", err)
	ctx, c3 := context.WithTimeout(b.ctx, 3*time.Second)
	defer c3()
	s, err = b.open(ctx, 1<<20)
	t.Log(err)
	s.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: []byte{}}}})
	_, err = s.Recv()
	t.Log("empty chunk:", err)
	s, err = b.open(b.ctx, 1<<20)
	t.Log("after empty chunk:", err)
	b = newBench(t)
	ctx, c4 := context.WithTimeout(b.ctx, 3*time.Second)
	defer c4()
	s, err = b.open(ctx, 1<<20)
	t.Log(err)
	s.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: make([]byte, 4<<20)}}})
	_, err = s.Recv()
	t.Log("4 MiB chunk:", err)
	time.Sleep(500*time.Millisecond)
	s, err = b.open(b.ctx, 1<<20)
	t.Log("after 4MiB chunk:", err)
	s.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Chunk{Chunk: &wire.Chunk{Data: make([]byte, 4<<20-100)}}})
	s.CloseSend()
	_, err = s.Recv()
	t.Log("4 MiB-100 chunk:", err)
	b = newBench(t)
	s, err = b.open(b.ctx, 1<<20)
	s.CloseSend()
	_, err = s.Recv()
	t.Log("commit of nothing:", err)
	_, n := b.known()
	r, err := b.read()
	t.Log(n, len(r), err)
	ctx, c5 := context.WithTimeout(b.ctx, 3*time.Second)
	defer c5()
	b = newBench(t)
	l, err := b.createLocal(ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, Tier: proto.Int32(3), SpaceToReserve: proto.Int64(1 << 20)})
	t.Log("tier 3:", l, err)
	b = newBench(t)
	l, err = b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, MediumType: proto.String("SSD"), SpaceToReserve: proto.Int64(1 << 20)})
	t.Log("medium SSD:", l, err)
	b = newBench(t)
	b.block += 5
	l, err = b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(1 << 20)})
	t.Log("unknown block id:", l, err)
	l.CloseSend()
	_, err = l.Recv()
	t.Log("commit:", err)
	ln, n := b.known()
	t.Log(ln, n)
	l, err = b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: proto.Int64(-1), SpaceToReserve: proto.Int64(-5)})
	t.Log("negative", l, err)
	ctx, c6 := context.WithTimeout(b.ctx, 3*time.Second)
	defer c6()
	q, _ := b.worker.CreateLocalBlock(ctx)
	q.CloseSend()
	_, err = q.Recv()
	t.Log("local CloseSend before any:", err)
}
func TestZNoMaster(t *testing.T) {
	b := newBench(t)
	x := newBench(t)
	s, err := b.open(b.ctx, 1<<20)
	b.sendChunks(s, b.content)
	c := alluxio.Get(t)
	c.Masters()[0].Kill()
	begin := time.Now()
	go func() {
		time.Sleep(time.Second)
		r, err := b.read()
		t.Log("read while committing", time.Since(begin), len(r), err)
	}()
	go func() {
		time.Sleep(10 * time.Second)
		t.Log("start", c.Masters()[0].Start())
	}()
	s.CloseSend()
	_, err = s.Recv()
	t.Log("commit without master", time.Since(begin), err)
	alluxio.Get(t)
	l, _ := c.Leader(t.Context())
	mc := dial(t, l)
	b.mctx = authenticated(t, mc)
	b.master = wire.NewBlockMasterClientServiceClient(mc)
	for range 5 { 
	l, n := b.known()
	t.Log(time.Since(begin), l, n)
	time.Sleep(500*time.Millisecond) }
	time.Sleep(3 * time.Second)
	_ = x
}

func TestZCut(t *testing.T) {
	b := newBench(t)
	conn := dial(t, b.server)
	ctx := authenticated(t, conn)
	w := wire.NewBlockWorkerClient(conn)
	s, _ := w.CreateLocalBlock(ctx)
	s.Send(&wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(1<<20)})
	r, err := s.Recv()
	t.Log(r, err)
	conn.Close()
	b.isNotCached()
}
func TestZSpeed(t *testing.T) {
	b := newBench(t)
	big := make([]byte, 12<<20)
	for range 3 {
		b.block += 1
		begin := time.Now()
		s, err := b.open(b.ctx, int64(len(big)))
		if err != nil { t.Fatal(err) }
		b.sendChunks(s, big)
		b.commit(s)
		t.Log("write 12 MiB", time.Since(begin))
		b.worker.RemoveBlock(b.ctx, &wire.RemoveBlockRequest{BlockId: &b.block})
		b.block += 1
		begin = time.Now()
		l, err := b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(int64(len(big)))})
		if err != nil { t.Fatal(err) }
		created := time.Since(begin)
		os.WriteFile(l.path, big, 0)
		written := time.Since(begin)
		b.commit(l)
		t.Log("local 12 MiB", created, written, time.Since(begin))
		b.worker.RemoveBlock(b.ctx, &wire.RemoveBlockRequest{BlockId: &b.block})
	}
}
