package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// What a message becomes in memory is bounded by what is used of it: two bytes of a message are an empty element of a
// list, which takes hundreds. D-260 says more.

// rations are how much of a message's fields is read, by their numbers. Other fields are read as they are.
type rations map[protowire.Number]*ration

// ration is how many elements of a list are read, of all lists of its kind in one message. What is beyond is left out.
type ration struct {
	most int
	// in has the rations of the elements, nil where they have none.
	in rations
}

const (
	// mostBlocksTold and mostPlacesTold are how many blocks of one file, and places of its blocks, are read of what a
	// master tells beside the file. A caller that needs others asks for each block.
	mostBlocksTold, mostPlacesTold = 1024, 4096
	// mostPairs is how many properties, numbers by name and the like are read of one message.
	mostPairs = 64 << 10
	// unbounded is for what is merged into one.
	unbounded = math.MaxInt
)

var (
	blockRations = rations{3: {most: mostPlacesTold}}
	fileRations  = rations{
		13: {most: mostBlocksTold},
		21: {most: mostBlocksTold, in: rations{1: {most: unbounded, in: blockRations}}},
		32: {most: mostPlacesTold},
	}
	// rationed has the rations of the messages that may be as large as a master likes.
	rationed = map[protoreflect.FullName]rations{
		nameOf(&wire.GetStatusPResponse{}):    {1: {most: unbounded, in: fileRations}},
		nameOf(&wire.GetBlockInfoPResponse{}): {1: {most: unbounded, in: blockRations}},
		nameOf(&wire.GetWorkerInfoListPResponse{}): {
			1: {most: mostWorkers, in: rations{8: {most: mostPairs}, 9: {most: mostPairs}}},
		},
		// One more than is accepted is refused.
		nameOf(&wire.GetMountTablePResponse{}): {
			1: {most: mostMounts + 1, in: rations{2: {most: unbounded, in: rations{6: {most: mostPairs}}}}},
		},
		nameOf(&wire.GetMetricsPResponse{}): {1: {most: mostPairs}},
		nameOf(&wire.GetMasterInfoPResponse{}): {1: {most: unbounded, in: rations{
			2: {most: mostWorkers}, 9: {most: mostWorkers}, 13: {most: mostWorkers},
		}}},
	}
)

func nameOf(m proto.Message) protoreflect.FullName { return m.ProtoReflect().Descriptor().FullName() }

// rationing cuts a message to its rations. taken counts the elements that were read.
type rationing struct{ taken map[*ration]int }

// cut appends what is read of a message to out.
func (r *rationing) cut(out, message []byte, by rations) ([]byte, error) {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeField(message)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		field := message[:n]
		message = message[n:]
		ration := by[number]
		if ration != nil && !r.takes(ration, kind, field) {
			continue
		}
		if ration == nil || ration.in == nil || kind != protowire.BytesType {
			out = append(out, field...)
			continue
		}
		_, _, tag := protowire.ConsumeTag(field)
		element, _ := protowire.ConsumeBytes(field[tag:])
		within, err := r.cut(make([]byte, 0, len(element)), element, ration.in)
		if err != nil {
			return nil, err
		}
		out = protowire.AppendBytes(append(out, field[:tag]...), within)
	}
	return out, nil
}

// takes counts an element, and reports whether it is read. A list of numbers in one piece has a number in a byte.
func (r *rationing) takes(ration *ration, kind protowire.Type, field []byte) bool {
	n := 1
	if number, _, _ := protowire.ConsumeTag(field); number == fieldBlockIDs && kind == protowire.BytesType {
		n = len(field)
	}
	if n > ration.most-r.taken[ration] {
		return false
	}
	r.taken[ration] += n
	return true
}

// fieldBlockIDs is the number of the only list of numbers that has a ration.
const fieldBlockIDs = 13

// decode reads a message within its rations.
func decode(message []byte, by rations, into proto.Message) error {
	r := rationing{taken: map[*ration]int{}}
	within, err := r.cut(make([]byte, 0, len(message)), message, by)
	if err != nil {
		return err
	}
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(within, into)
}

// rationingCodec reads what servers tell within the rations. Requests are encoded as usual.
type rationingCodec struct{ encoding.CodecV2 }

func newRationingCodec() rationingCodec { return rationingCodec{encoding.GetCodecV2("proto")} }

// Unmarshal reads a message, or keeps the buffers of a batch of entries.
func (c rationingCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*batch); ok {
		data.Ref()
		b.data = data
		return nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	by, ok := rationed[nameOf(m)]
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(&received)
	defer buffer.Free()
	return decode(buffer.ReadOnlyData(), by, m)
}

// batch is a ListStatusPResponse in the buffers that the transport received. Its entries are decoded one by one, for
// there may be more than would fit.
type batch struct{ data mem.BufferSlice }

// each calls fn for each entry until it returns false, and gives the buffers back.
func (b *batch) each(fn func(*wire.FileInfo) bool) (goesOn bool, err error) {
	r := b.data.Reader()
	defer func() { b.data.Free(); _ = r.Close() }()
	for r.Remaining() > 0 {
		entry, err := nextEntry(r)
		if err != nil {
			return false, noBatch(err)
		}
		if entry == nil {
			continue
		}
		info := new(wire.FileInfo)
		if err := decode(entry, fileRations, info); err != nil {
			return false, noBatch(err)
		}
		if !fn(info) {
			return false, nil
		}
	}
	return true, nil
}

// nextEntry reads a field of a batch: an entry, or nil for what is none.
func nextEntry(r *mem.Reader) ([]byte, error) {
	tag, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	number, kind := protowire.DecodeTag(tag)
	if kind == protowire.VarintType {
		_, err := binary.ReadUvarint(r)
		return nil, err
	}
	n := uint64(8)
	switch kind {
	case protowire.Fixed64Type:
	case protowire.Fixed32Type:
		n = 4
	case protowire.BytesType:
		n, err = binary.ReadUvarint(r)
	default:
		err = fmt.Errorf("a field of the type %d", kind)
	}
	if err != nil || n > uint64(r.Remaining()) {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	if number != 1 || kind != protowire.BytesType {
		_, err := r.Discard(int(n))
		return nil, err
	}
	entry := make([]byte, n)
	_, err = io.ReadFull(r, entry)
	return entry, err
}

func noBatch(err error) error { return fmt.Errorf("%w: a listing that is none: %w", errClaim, err) }
