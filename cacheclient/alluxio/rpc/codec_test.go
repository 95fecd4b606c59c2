package rpc

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// message is a chunk as workers write it.
func message(tb testing.TB, content []byte) []byte {
	tb.Helper()
	b, err := proto.Marshal(&wire.ReadResponse{Chunk: &wire.Chunk{Data: content}})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// split cuts bytes into buffers at the positions.
func split(b []byte, at ...int) mem.BufferSlice {
	var out mem.BufferSlice
	from := 0
	for _, p := range append(at, len(b)) {
		out = append(out, mem.SliceBuffer(b[from:p]))
		from = p
	}
	return out
}

// decoded is what the codec makes of buffers.
func decoded(data mem.BufferSlice) ([]byte, error) {
	var c Chunk
	if err := newRawCodec().Unmarshal(data, &c); err != nil {
		return nil, err
	}
	defer c.Free()
	got := bytes.Join(c.Parts(), nil)
	if len(got) != c.Len() {
		return nil, bytes.ErrTooLarge
	}
	return got, nil
}

func TestChunkInAnyBuffers(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 127, 128, 129, 16382, 16383, 16384, 16385, 1 << 20} {
		content := bytes.Repeat([]byte("0123456789abcdef-"), size/17+1)[:size]
		b := message(t, content)
		most := min(len(b), 20)
		if size > 1<<16 {
			most = 9
		}
		for p := 0; p <= most; p++ {
			for q := p; q <= most; q++ {
				got, err := decoded(split(b, p, q))
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes, cut at %d and %d: %d bytes come out, %v", size, p, q, len(got), err)
				}
			}
		}
		if skip, ok := chunkPrefix(split(b)); size > 0 && (!ok || skip != len(b)-size) {
			t.Errorf("a chunk of %d bytes is parsed: %d, %v", size, skip, ok)
		}
	}
}

func TestChunkThatNoWorkerWrites(t *testing.T) {
	chunk := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("abc"))
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 1)
	wrap := func(inner []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), inner)
	}
	for name, b := range map[string][]byte{
		"a field before":       append(bytes.Clone(unknown), wrap(chunk)...),
		"a field behind":       append(wrap(chunk), unknown...),
		"a field in the chunk": wrap(append(bytes.Clone(chunk), unknown...)),
		"a field before data":  wrap(append(bytes.Clone(unknown), chunk...)),
		"data twice": wrap(append(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType),
			[]byte("x")), chunk...)),
		"a long varint": append([]byte{0x0a, 0x86, 0x00, 0x0a, 0x83, 0x80, 0x00}, "abc"...)[:10],
	} {
		want := new(wire.ReadResponse)
		wantErr := proto.Unmarshal(b, want)
		for p := range b {
			got, err := decoded(split(b, p))
			if (err != nil) != (wantErr != nil) || !bytes.Equal(got, want.GetChunk().GetData()) {
				t.Errorf("%s: %q and %v, wanted %q and %v", name, got, err, want.GetChunk().GetData(), wantErr)
			}
		}
	}
	for name, b := range map[string][]byte{
		"a length beyond the end": {0x0a, 0x10, 0x0a, 0x02, 'a', 'b'},
		"data beyond the chunk":   {0x0a, 0x03, 0x0a, 0x02, 'a', 'b'},
		"no length":               {0x0a},
		"an endless length":       bytes.Repeat([]byte{0xff}, 30),
		"a huge length":           {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		if got, err := decoded(split(b)); err == nil {
			t.Errorf("%s: %q, wanted an error", name, got)
		}
	}
}

// TestChunksAreReferences checks that a chunk keeps the buffers of the transport, and gives them back once.
func TestChunksAreReferences(t *testing.T) {
	pool := &countingPool{}
	content := bytes.Repeat([]byte("x"), 5000)
	b := message(t, content)
	var data mem.BufferSlice
	for len(b) > 0 {
		n := min(len(b), 1700) // no buffer below 1 KiB is given back to a pool
		buf := pool.Get(n)
		copy(*buf, b[:n])
		data = append(data, mem.NewBuffer(buf, pool))
		b = b[n:]
	}
	var c Chunk
	if err := newRawCodec().Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	data.Free()
	if pool.out != 3 {
		t.Fatalf("%d buffers are kept, wanted 3", pool.out)
	}
	if got := bytes.Join(c.Parts(), nil); !bytes.Equal(got, content) {
		t.Error("the content differs once the transport has let go")
	}
	c.Free()
	c.Free()
	if pool.out != 0 {
		t.Errorf("%d buffers are kept after Free", pool.out)
	}
}

type countingPool struct{ out int }

func (p *countingPool) Get(n int) *[]byte {
	p.out++
	b := make([]byte, n)
	return &b
}

func (p *countingPool) Put(b *[]byte) {
	p.out--
	clear(*b)
}

// FuzzChunkPrefix compares the codec with the usual one, for any bytes in any buffers.
func FuzzChunkPrefix(f *testing.F) {
	f.Add(message(f, []byte("some bytes")), uint16(1), uint16(3))
	f.Add(message(f, make([]byte, 300)), uint16(2), uint16(4))
	f.Add([]byte{0x0a, 0x00}, uint16(1), uint16(1))
	f.Add([]byte{}, uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, p, q uint16) {
		from := int(p) % (len(b) + 1)
		to := from + int(q)%(len(b)-from+1)
		want := new(wire.ReadResponse)
		wantErr := proto.Unmarshal(b, want)
		got, err := decoded(split(b, from, to))
		if (err != nil) != (wantErr != nil) || err == nil && !bytes.Equal(got, want.GetChunk().GetData()) {
			t.Errorf("%x cut at %d and %d: %x and %v, wanted %x and %v", b, from, to, got, err,
				want.GetChunk().GetData(), wantErr)
		}
	})
}
