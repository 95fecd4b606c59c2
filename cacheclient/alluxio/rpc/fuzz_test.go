package rpc

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/border"
)

// FuzzFileInfo reads bytes as what a master tells of a file. What is believed has blocks that can be counted, that are
// the file's own and lie within it.
func FuzzFileInfo(f *testing.F) {
	add := func(info *wire.FileInfo) {
		data, err := proto.Marshal(info)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	const id = 7<<sequenceBits | lastSequence
	numbers := []int64{
		0, 1, -1, 511, 512, id, border.MostBytes, border.MostBytes + 1, 1 << 62, math.MaxInt64,
		math.MinInt64,
	}
	for _, length := range numbers {
		for _, block := range numbers {
			add(told(id, length, block))
		}
		add(told(length, 1, 1))
		add(&wire.FileInfo{
			Name: proto.String("f"), Folder: proto.Bool(true), Length: &length, LastModificationTimeMs: &length,
			BlockIds: []int64{length},
		})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var info wire.FileInfo
		if proto.Unmarshal(data, &info) != nil {
			return // It is no message.
		}
		shown := entry(proto.CloneOf(&info))
		if shown && !border.Name(info.GetName()) {
			t.Errorf("the name %q shows", info.GetName())
		}
		blocks, err := BlocksOf(&info)
		if err != nil || info.GetFolder() {
			return
		}
		n := blocks.Count()
		if !blocks.Possible() || n < 0 || n > MostBlocks || (n == 0) != (blocks.Length == 0) {
			t.Fatalf("%+v has %d blocks", blocks, n)
		}
		for _, k := range []int{0, n / 2, n - 1} {
			if k < 0 || k >= n {
				continue
			}
			got, ok := blocks.Number(blocks.ID(k))
			at := blocks.UnderStore(k, &info)
			if !ok || got != k || at.Offset < 0 || at.Length < 1 || at.Offset > blocks.Length-at.Length {
				t.Errorf("block %d of %+v is %d, %v, at %+v", k, blocks, got, ok, at)
			}
		}
	})
}
