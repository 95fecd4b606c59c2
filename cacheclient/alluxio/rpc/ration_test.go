package rpc

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// verbatim sends a []byte as the message that it is.
type verbatim struct{ encoding.CodecV2 }

func (v verbatim) Marshal(m any) (mem.BufferSlice, error) {
	if b, ok := m.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return v.CodecV2.Marshal(m)
}

func (v verbatim) Unmarshal(data mem.BufferSlice, m any) error {
	if _, ok := m.(*[]byte); ok {
		return nil
	}
	return v.CodecV2.Unmarshal(data, m)
}

// answering is a master that answers calls by the messages of their names.
func answering(tb testing.TB, messages map[string][]byte) *Cluster {
	tb.Helper()
	return connect(tb, grpcServer(tb, versioned{version: "2.9.6"}.register,
		grpc.ForceServerCodecV2(verbatim{encoding.GetCodecV2("proto")}),
		grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(s)
			message, ok := messages[path.Base(method)]
			if !ok {
				return status.Error(codes.Unimplemented, method)
			}
			var question []byte
			if err := s.RecvMsg(&question); err != nil {
				return err
			}
			return s.SendMsg(message)
		})))
}

// inField wraps a message as an element of the field of another.
func inField(n protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), message)
}

// empties are so many elements of the field that have nothing in them.
func empties(n protowire.Number, count int) []byte {
	one := inField(n, nil)
	all := make([]byte, 0, len(one)*count)
	for range count {
		all = append(all, one...)
	}
	return all
}

func marshal(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// allocated is how many bytes f allocates.
func allocated(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// TestTinyElementsTakeWhatIsUsed has a master send messages of a few MiB whose elements are of two bytes each, and take
// hundreds where they are decoded.
func TestTinyElementsTakeWhatIsUsed(t *testing.T) {
	const id, many = 7<<sequenceBits | lastSequence, 400_000
	file := marshal(t, told(id, 100, 64<<20))
	block := inField(21, inField(1, empties(3, many)))
	numbers := inField(13, make([]byte, 2*many))
	for name, tc := range map[string]struct {
		call    string
		message []byte
		ask     func(*Cluster) error
	}{
		"places of a file": {"GetStatus", inField(1, append(block, file...)), func(c *Cluster) error {
			_, err := c.Status(within(t, 20*time.Second), "/f", NeverSync)
			return err
		}},
		"blocks of a file": {"GetStatus", inField(1, append(empties(21, many), file...)), func(c *Cluster) error {
			_, err := c.Status(within(t, 20*time.Second), "/f", NeverSync)
			return err
		}},
		"numbers in one piece": {"GetStatus", inField(1, append(numbers, file...)), func(c *Cluster) error {
			_, err := c.Status(within(t, 20*time.Second), "/f", NeverSync)
			return err
		}},
		"places of a block": {"GetBlockInfo", inField(1, empties(3, many)), func(c *Cluster) error {
			_, err := c.Block(within(t, 20*time.Second), 7<<sequenceBits)
			return err
		}},
		"workers": {"GetWorkerInfoList", empties(1, many), func(c *Cluster) error {
			infos, err := c.WorkerInfos(within(t, 20*time.Second))
			if len(infos) > mostWorkers {
				return fmt.Errorf("%d workers are taken", len(infos))
			}
			return err
		}},
		"numbers of the master": {"GetMetrics", empties(1, many), func(c *Cluster) error {
			_, err := c.Metrics(within(t, 20*time.Second))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := answering(t, map[string][]byte{tc.call: tc.message})
			if err := c.Check(within(t, 20*time.Second)); err != nil {
				t.Fatal(err)
			}
			var err error
			took := allocated(func() { err = tc.ask(c) })
			if err != nil {
				t.Errorf("it fails: %v", err)
			}
			// Frames, the whole message, what is read of it, and a margin for what else goes on.
			if most := 6*int64(len(tc.message)) + 8<<20; took > most {
				t.Errorf("%d MiB are taken for a message of %d KiB, want %d", took>>20, len(tc.message)>>10, most>>20)
			}
		})
	}
}

// TestEntriesAreDecodedOneByOne lists a batch of 200,000 entries of two bytes, and looks at what is in memory in its
// middle.
func TestEntriesAreDecodedOneByOne(t *testing.T) {
	f := told(7<<sequenceBits|lastSequence, 100, 64<<20)
	f.Path = proto.String("/f")
	last := inField(1, marshal(t, f))
	c := answering(t, map[string][]byte{"ListStatus": append(empties(1, 200_000), last...)})
	var before, at runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	names := 0
	err := c.List(within(t, 60*time.Second), "/", NeverSync, func() error { return nil }, func(*wire.FileInfo) error {
		names++
		runtime.GC()
		runtime.ReadMemStats(&at)
		return nil
	})
	if err != nil || names != 1 {
		t.Fatalf("%d names, %v", names, err)
	}
	if took := int64(at.HeapAlloc) - int64(before.HeapAlloc); took > 24<<20 {
		t.Errorf("%d MiB are in memory for one entry", took>>20)
	}
}

// TestLongAnswersTakeTurns has an answer that is longer than usual be taken, by one caller at a time.
func TestLongAnswersTakeTurns(t *testing.T) {
	f := told(7<<sequenceBits|lastSequence, 100, 64<<20)
	f.UfsFingerprint = proto.String(string(make([]byte, usualAnswer)))
	entry := told(7<<sequenceBits|lastSequence, 100, 64<<20)
	entry.UfsFingerprint = proto.String(string(make([]byte, usualBatch)))
	c := answering(t, map[string][]byte{
		"GetStatus":  inField(1, marshal(t, f)),
		"ListStatus": inField(1, marshal(t, entry)),
	})
	entries := 0
	calls := map[string]func(time.Duration) error{
		"Status": func(d time.Duration) error { _, err := c.Status(endingAfter(t, d), "/f", NeverSync); return err },
		"List": func(d time.Duration) error {
			count := func(*wire.FileInfo) error { entries++; return nil }
			return c.List(endingAfter(t, d), "/", NeverSync, func() error { return nil }, count)
		},
	}
	for name, call := range calls {
		if err := call(time.Minute); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := c.turn.Acquire(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		if err := call(500 * time.Millisecond); err == nil || errors.Is(err, cacheclient.ErrTooLarge) {
			t.Errorf("%s: %v beside another", name, err)
		}
		c.turn.Release(1)
	}
	if entries != 1 {
		t.Errorf("%d entries are listed, want 1", entries)
	}
}

// TestRationedFieldsAreLists has each field that has a ration be one of its message that repeats, or holds such fields.
func TestRationedFieldsAreLists(t *testing.T) {
	for _, m := range []proto.Message{
		&wire.GetStatusPResponse{}, &wire.GetBlockInfoPResponse{}, &wire.GetWorkerInfoListPResponse{},
		&wire.GetMountTablePResponse{}, &wire.GetMetricsPResponse{}, &wire.GetMasterInfoPResponse{},
	} {
		checkRations(t, m.ProtoReflect().Descriptor(), rationed[nameOf(m)])
	}
	if fieldBlockIDs != (&wire.FileInfo{}).ProtoReflect().Descriptor().Fields().ByName("blockIds").Number() {
		t.Error("the list of numbers is another field")
	}
}

func checkRations(t *testing.T, m protoreflect.MessageDescriptor, by rations) {
	t.Helper()
	if len(by) == 0 {
		t.Errorf("%s has no rations", m.FullName())
	}
	for n, r := range by {
		f := m.Fields().ByNumber(n)
		switch {
		case f == nil:
			t.Errorf("%s has no field %d", m.FullName(), n)
		case f.IsList() == (r.most == unbounded) && !f.IsMap():
			t.Errorf("%s has a ration of %d", f.FullName(), r.most)
		case r.in != nil:
			checkRations(t, f.Message(), r.in)
		}
	}
	for i := range m.Fields().Len() {
		if f := m.Fields().Get(i); (f.IsList() || f.IsMap()) && by[f.Number()] == nil {
			t.Errorf("%s repeats and has no ration", f.FullName())
		}
	}
}
