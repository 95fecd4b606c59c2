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

// target is a file of one block in the under store, and connections to those who serve it.
type target struct {
	t       *testing.T
	ctx     context.Context // the worker's
	worker  wire.BlockWorkerClient
	server  *cluster.Server
	master  wire.BlockMasterClientServiceClient
	files   wire.FileSystemMasterClientServiceClient
	path    string
	mctx    context.Context // the master's
	block   int64
	content []byte
}

func newTarget(t *testing.T) *target {
	t.Helper()
	c := alluxio.Get(t)
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &target{t: t, server: c.Workers()[0], content: make([]byte, 1<<20-7)}
	_, _ = rand.Read(b.content)
	name := "target-" + uuid.NewString()
	if err := os.WriteFile(filepath.Join(c.UFS(), name), b.content, 0o600); err != nil {
		t.Fatal(err)
	}
	masterConn, workerConn := dial(t, leader), dial(t, b.server)
	b.mctx, b.ctx = authenticated(t, masterConn), authenticated(t, workerConn)
	b.master, b.worker = wire.NewBlockMasterClientServiceClient(masterConn), wire.NewBlockWorkerClient(workerConn)
	b.files, b.path = wire.NewFileSystemMasterClientServiceClient(masterConn), "/"+name
	info := b.status()
	if info.GetLength() != int64(len(b.content)) || len(info.GetBlockIds()) != 1 {
		t.Fatalf("%s: %d bytes in the blocks %v, wanted %d in one", name, info.GetLength(), info.GetBlockIds(),
			len(b.content))
	}
	b.block = info.GetBlockIds()[0]
	return b
}

// common are the options that go with every request.
func common() *wire.FileSystemMasterCommonPOptions {
	return &wire.FileSystemMasterCommonPOptions{Ttl: proto.Int64(-1), TtlAction: wire.TtlAction_FREE.Enum()}
}

// status is what the master says of the file.
func (b *target) status() *wire.FileInfo {
	b.t.Helper()
	answer, err := b.files.GetStatus(b.mctx, &wire.GetStatusPRequest{
		Path: &b.path,
		Options: &wire.GetStatusPOptions{
			LoadMetadataType: wire.LoadMetadataPType_ONCE.Enum(),
			UpdateTimestamps: proto.Bool(false),
			CommonOptions:    common(),
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.GetFileInfo()
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

// read is what the worker has of the block, without asking the under store.
func (b *target) read() ([]byte, error) {
	b.t.Helper()
	stream, err := b.worker.ReadBlock(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := stream.Send(&wire.ReadRequest{
		BlockId: &b.block, Offset: proto.Int64(0), Length: proto.Int64(int64(len(b.content))),
		ChunkSize: proto.Int64(1 << 20),
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
func (b *target) known() (length int64, locations int) {
	b.t.Helper()
	answer, err := b.master.GetBlockInfo(b.mctx, &wire.GetBlockInfoPRequest{BlockId: &b.block})
	if err != nil {
		b.t.Fatal(err)
	}
	return answer.GetBlockInfo().GetLength(), len(answer.GetBlockInfo().GetLocations())
}

// isCached checks that the block is there, with its right content, and that the master knows.
func (b *target) isCached() {
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
func (b *target) isNotCached() {
	b.t.Helper()
	if _, locations := b.known(); locations != 0 {
		b.t.Errorf("the master knows of the block on %d workers, wanted none", locations)
	}
	if _, err := b.read(); status.Code(err) != codes.NotFound {
		b.t.Errorf("reading the block: %v, wanted NOT_FOUND", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left, err := filepath.Glob(filepath.Join(b.server.TierDir, "alluxioworker", ".tmp_blocks", "*",
			"*-"+strconv.FormatInt(b.block, 10)))
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
