package rpc

import (
	"fmt"
	"io"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that rawCodec falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// rawCodec leaves ReadResponse unparsed. A message of block data is two nested length-delimited fields around the
// bytes, ReadResponse.chunk and Chunk.data, both number 1; reading their prefixes by hand leaves the data in the
// buffers that the transport received it in. That costs a third less processor time than parsing, which copies.
type rawCodec struct{ encoding.CodecV2 }

// newRawCodec is the codec of block streams; requests are encoded as usual.
func newRawCodec() rawCodec { return rawCodec{encoding.GetCodecV2("proto")} }

// Unmarshal keeps the buffers of a chunk, and has the usual codec read anything else.
func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	chunk, ok := v.(*Chunk)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	skip, n, err := chunkPrefix(data)
	if err != nil {
		return err
	}
	if skip+n > data.Len() {
		return fmt.Errorf("a chunk says that it has %d bytes and has %d", n, data.Len()-skip)
	}
	data.Ref()
	chunk.buffers, chunk.skip, chunk.n = data, skip, n
	return nil
}

// longestPrefix is two tags of one byte, each with a varint of at most ten.
const longestPrefix = 22

// chunkPrefix reads the lengths in front of the data: how many bytes to skip, and how many the data has.
func chunkPrefix(data mem.BufferSlice) (skip, n int, err error) {
	if data.Len() == 0 {
		return 0, 0, nil
	}
	head := data[0].ReadOnlyData()
	if len(head) < longestPrefix && len(data) > 1 {
		// The prefixes may lie across buffers.
		joined := make([]byte, min(longestPrefix, data.Len()))
		r := data.Reader()
		_, err := io.ReadFull(r, joined)
		_ = r.Close()
		if err != nil {
			return 0, 0, err
		}
		head = joined
	}
	for depth := 0; depth < 2; depth++ {
		if skip == data.Len() {
			return skip, 0, nil
		}
		number, kind, t := protowire.ConsumeTag(head[skip:])
		if t < 0 || number != 1 || kind != protowire.BytesType {
			return 0, 0, fmt.Errorf("block data comes as field %d of type %d; 1 and 2 are what a ReadResponse has", number, kind)
		}
		length, l := protowire.ConsumeVarint(head[skip+t:])
		if l < 0 || length > largestMessage {
			return 0, 0, fmt.Errorf("block data with a length that is no length: %w", protowire.ParseError(l))
		}
		skip += t + l
		n = int(length)
	}
	return skip, n, nil
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

// Free gives the buffers back.
func (c *Chunk) Free() {
	c.buffers.Free()
	c.buffers = nil
}
