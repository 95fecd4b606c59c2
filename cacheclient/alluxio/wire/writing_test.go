package wire_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
)

// The tests of this file hold what block_worker.proto says of WriteBlock and CreateLocalBlock, against a real worker.

// bench is a file of one block in the under store, and connections to those who serve it.
type bench struct {
	t       *testing.T
	ctx     context.Context // the worker's
	worker  wire.BlockWorkerClient
	server  *cluster.Server
	master  wire.BlockMasterClientServiceClient
	mctx    context.Context // the master's
	block   int64
	content []byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	c := alluxio.Get(t)
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, server: c.Workers()[0], content: make([]byte, 1<<20-7)}
	_, _ = rand.Read(b.content)
	name := "bench-" + uuid.NewString()
	if err := os.WriteFile(filepath.Join(c.UFS(), name), b.content, 0o600); err != nil {
		t.Fatal(err)
	}
	masterConn, workerConn := dial(t, leader), dial(t, b.server)
	b.mctx, b.ctx = authenticated(t, masterConn), authenticated(t, workerConn)
	b.master, b.worker = wire.NewBlockMasterClientServiceClient(masterConn), wire.NewBlockWorkerClient(workerConn)
	answer, err := wire.NewFileSystemMasterClientServiceClient(masterConn).GetStatus(b.mctx, &wire.GetStatusPRequest{
		Path: proto.String("/" + name),
		Options: &wire.GetStatusPOptions{
			LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(),
			UpdateTimestamps: proto.Bool(false),
			CommonOptions:    &wire.FileSystemMasterCommonPOptions{Ttl: proto.Int64(-1), TtlAction: wire.TtlAction_FREE.Enum()},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	info := answer.GetFileInfo()
	if info.GetLength() != int64(len(b.content)) || len(info.GetBlockIds()) != 1 {
		t.Fatalf("%s: %d bytes in the blocks %v, wanted %d in one", name, info.GetLength(), info.GetBlockIds(), len(b.content))
	}
	b.block = info.GetBlockIds()[0]
	return b
}

// authenticated opens the stream of a SIMPLE handshake, and returns a context for calls to the same server. The test's
// end closes it.
func authenticated(t *testing.T, conn *grpc.ClientConn) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	stream, err := wire.NewSaslAuthenticationServiceClient(conn).Authenticate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id := uuid.NewString()
	if err := stream.Send(&wire.SaslMessage{
		MessageType:          wire.SaslMessageType_CHALLENGE.Enum(),
		Message:              []byte("\x00" + "root\x00nothing"),
		ClientId:             &id,
		AuthenticationScheme: wire.ChannelAuthenticationScheme_SIMPLE.Enum(),
		ChannelRef:           proto.String(t.Name()),
	}); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || answer.GetMessageType() != wire.SaslMessageType_SUCCESS {
		t.Fatalf("authentication: %v, %v", answer, err)
	}
	return metadata.AppendToOutgoingContext(ctx, "channel-id", id)
}

// open opens a write of the block, and asks for an answer.
func (b *bench) open(ctx context.Context, space int64) (grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse], error) {
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

func (b *bench) send(stream grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse], command *wire.WriteRequestCommand) {
	b.t.Helper()
	if err := stream.Send(&wire.WriteRequest{Value: &wire.WriteRequest_Command{Command: command}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) sendChunks(stream grpc.BidiStreamingClient[wire.WriteRequest, wire.WriteResponse], content []byte) {
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
func (b *bench) write(content []byte) {
	b.t.Helper()
	stream, err := b.open(b.ctx, int64(len(b.content)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.sendChunks(stream, content)
	b.commit(stream)
}

// commit closes the sending side of a stream and waits for its end.
func (b *bench) commit(stream interface {
	CloseSend() error
	RecvMsg(any) error
}) {
	b.t.Helper()
	if err := stream.CloseSend(); err != nil {
		b.t.Fatal(err)
	}
	if err := stream.RecvMsg(&wire.WriteResponse{}); !errors.Is(err, io.EOF) {
		b.t.Fatalf("the stream of a finished write ends with %v", err)
	}
}

// read is what the worker has of the block, without asking the under store.
func (b *bench) read() ([]byte, error) {
	b.t.Helper()
	stream, err := b.worker.ReadBlock(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := stream.Send(&wire.ReadRequest{
		BlockId: &b.block, Offset: proto.Int64(0), Length: proto.Int64(int64(len(b.content))), ChunkSize: proto.Int64(1 << 20),
	}); err != nil {
		b.t.Fatal(err)
	}
	var content []byte
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return content, nil
		}
		if err != nil {
			return content, err
		}
		content = append(content, answer.GetChunk().GetData()...)
	}
}

// known is what the master says of the block: its length, and how many workers have it.
func (b *bench) known() (length int64, locations int) {
	b.t.Helper()
	answer, err := b.master.GetBlockInfo(b.mctx, &wire.GetBlockInfoPRequest{BlockId: &b.block})
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.GetBlockInfo().GetLength(), len(answer.GetBlockInfo().GetLocations())
}

// isCached checks that the block is there, with its right content, and that the master knows.
func (b *bench) isCached() {
	b.t.Helper()
	if length, locations := b.known(); length != int64(len(b.content)) || locations != 1 {
		b.t.Errorf("the master knows of %d bytes on %d workers, wanted %d on 1", length, locations, len(b.content))
	}
	content, err := b.read()
	if err != nil || !bytes.Equal(content, b.content) {
		b.t.Errorf("the worker has %d bytes of the block (%v), or others than were written", len(content), err)
	}
}

// isNotCached checks that nobody has the block, and waits for the worker to have dropped what was written.
func (b *bench) isNotCached() {
	b.t.Helper()
	if _, locations := b.known(); locations != 0 {
		b.t.Errorf("the master knows of the block on %d workers, wanted none", locations)
	}
	if _, err := b.read(); status.Code(err) != codes.NotFound {
		b.t.Errorf("reading the block: %v, wanted NOT_FOUND", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(b.server.TierDir, "alluxioworker", ".tmp_blocks", "*", "*-"+strconv.FormatInt(b.block, 10)))
		if err != nil {
			b.t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the worker keeps %q", left)
		}
	}
}

func wantCode(t *testing.T, err error, code codes.Code) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("the error is %v, wanted %v", err, code)
	}
	t.Log(err)
}

func TestWrittenBlockIsKnownAtOnce(t *testing.T) {
	b := newBench(t)
	b.write(b.content)
	b.isCached()
}

func TestWriteAnswersFlush(t *testing.T) {
	b := newBench(t)
	stream, err := b.open(b.ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.sendChunks(stream, b.content)
	b.send(stream, &wire.WriteRequestCommand{Id: &b.block, Offset: proto.Int64(int64(len(b.content))), Flush: proto.Bool(true)})
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
	b := newBench(t)
	b.write(b.content)
	_, err := b.open(b.ctx, 1)
	wantCode(t, err, codes.Internal)
	_, err = b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(1)})
	wantCode(t, err, codes.Internal)
	b.isCached()
}

func TestWriteOfWhatAnotherWrites(t *testing.T) {
	b := newBench(t)
	first, err := b.open(b.ctx, int64(len(b.content)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.open(b.ctx, 1)
	wantCode(t, err, codes.Internal)
	_, err = b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(1)})
	wantCode(t, err, codes.Internal)
	b.sendChunks(first, b.content)
	b.commit(first)
	b.isCached()
}

func TestWriteWithoutSpace(t *testing.T) {
	b := newBench(t)
	_, err := b.open(b.ctx, 1<<40)
	wantCode(t, err, codes.ResourceExhausted)
	_, err = b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(1 << 40)})
	wantCode(t, err, codes.ResourceExhausted)
	b.isNotCached()
}

func TestCancelledWrite(t *testing.T) {
	b := newBench(t)
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
	b := newBench(t)
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

type localStream = grpc.BidiStreamingClient[wire.CreateLocalBlockRequest, wire.CreateLocalBlockResponse]

// local is a block that is being written as a file.
type local struct {
	localStream
	path string
}

func (b *bench) createLocal(ctx context.Context, request *wire.CreateLocalBlockRequest) (*local, error) {
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
	b := newBench(t)
	half := int64(len(b.content) / 2)
	stream, err := b.createLocal(b.ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: &half})
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&wire.CreateLocalBlockRequest{
		BlockId: &b.block, SpaceToReserve: proto.Int64(int64(len(b.content)) - half), OnlyReserveSpace: proto.Bool(true),
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

func TestCancelledLocalWrite(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stream, err := b.createLocal(ctx, &wire.CreateLocalBlockRequest{BlockId: &b.block, SpaceToReserve: proto.Int64(int64(len(b.content)))})
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
