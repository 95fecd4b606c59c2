package rpc

import (
	"errors"
	"io"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that rawCodec falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// rawCodec leaves ReadResponse unparsed. A message of block data is two nested length-delimited fields around the
// bytes, ReadResponse.chunk and Chunk.data, both number 1; reading their prefixes by hand leaves the data in the
// buffers that the transport received it in. That costs a third less processor time than parsing, which copies.
// D-055 says why.
type rawCodec struct{ encoding.CodecV2 }

// newRawCodec is the codec of block streams; requests are encoded as usual.
func newRawCodec() rawCodec { return rawCodec{encoding.GetCodecV2("proto")} }

// Unmarshal keeps the buffers of a chunk, and has the usual codec read anything else.
func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	chunk, ok := v.(*Chunk)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if skip, ok := chunkPrefix(data); ok {
		data.Ref()
		chunk.buffers, chunk.skip, chunk.n = data, skip, data.Len()-skip
		return nil
	}
	// Not as workers write it, and perhaps right all the same: empty, or with fields that we do not know.
	var r wire.ReadResponse
	if err := c.CodecV2.Unmarshal(data, &r); err != nil {
		return err
	}
	content := r.GetChunk().GetData()
	chunk.buffers, chunk.skip, chunk.n = mem.BufferSlice{mem.SliceBuffer(content)}, 0, len(content)
	return nil
}

// longestPrefix is two tags of one byte, each with a varint of at most ten.
const longestPrefix = 22

// chunkPrefix is how many bytes come before the block's bytes, if the message is nothing but a chunk whose bytes go on
// to the message's end.
func chunkPrefix(data mem.BufferSlice) (skip int, ok bool) {
	total := data.Len()
	head, err := firstBytes(data, min(longestPrefix, total))
	if err != nil {
		return 0, false
	}
	for range 2 {
		number, kind, t := protowire.ConsumeTag(head[skip:])
		if t != 1 || number != 1 || kind != protowire.BytesType {
			return 0, false
		}
		length, l := protowire.ConsumeVarint(head[skip+t:])
		skip += t + l
		if l < 0 || length != uint64(total-skip) {
			return 0, false
		}
	}
	return skip, true
}

// firstBytes are the first n bytes, which may lie across buffers.
func firstBytes(data mem.BufferSlice, n int) ([]byte, error) {
	if len(data) > 0 && data[0].Len() >= n {
		return data[0].ReadOnlyData()[:n], nil
	}
	joined := make([]byte, n)
	r := data.Reader()
	_, err := io.ReadFull(r, joined)
	return joined, errors.Join(err, r.Close())
}

// Chunk is a piece of a block, in the buffers that the transport received. The zero value is empty.
type Chunk struct {
	buffers mem.BufferSlice
	skip, n int
}

// Len is the number of bytes.
func (c *Chunk) Len() int { return c.n }

// Parts are the bytes in order, to be read only, and valid until Free.
func (c *Chunk) Parts() [][]byte {
	parts := make([][]byte, 0, len(c.buffers))
	skip, left := c.skip, c.n
	for _, b := range c.buffers {
		p := b.ReadOnlyData()
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		p = p[skip:]
		skip = 0
		if len(p) > left {
			p = p[:left]
		}
		if len(p) > 0 {
			parts = append(parts, p)
		}
		left -= len(p)
	}
	return parts
}

// Free gives the buffers back. nil has none.
func (c *Chunk) Free() {
	if c == nil {
		return
	}
	c.buffers.Free()
	c.buffers = nil
}
