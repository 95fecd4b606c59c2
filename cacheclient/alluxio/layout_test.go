package alluxio

import (
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

func TestALayoutComesBackFromItsInfo(t *testing.T) {
	for _, l := range []layout{
		{fileID: 5<<sequenceBits | 1<<sequenceBits - 1, blockSize: 64 << 20, size: 0},
		{fileID: 1<<38<<sequenceBits | 1<<sequenceBits - 1, blockSize: 1, size: 7},
		{fileID: 1<<sequenceBits - 1, blockSize: 1 << 40, size: 1<<40 + 1},
	} {
		info := infoOf(&wire.FileInfo{
			FileId: &l.fileID, BlockSizeBytes: &l.blockSize, Length: &l.size, Mode: proto.Int32(0o100644),
			LastModificationTimeMs: proto.Int64(1234),
		}, "a/b")
		if got, ok := layoutOf(info); !ok || got != l {
			t.Errorf("%+v came back as %+v (%v)", l, got, ok)
		}
		if info.Path != "a/b" || info.Mode != 0o644 || !info.ModeKnown || !info.ModTime.Equal(time.UnixMilli(1234)) ||
			info.Dir {
			t.Errorf("the info is %+v", info)
		}
	}
	dir := infoOf(&wire.FileInfo{Folder: proto.Bool(true), Length: proto.Int64(12), Mode: proto.Int32(0o755)}, "d")
	if silent := infoOf(&wire.FileInfo{}, "f"); silent.ModeKnown {
		t.Error("a mode that was not told is known")
	}
	if _, ok := layoutOf(dir); ok || !dir.Dir || dir.Size != 0 {
		t.Errorf("a directory is %+v", dir)
	}
}

func TestOtherVersionsAreNoLayout(t *testing.T) {
	for _, v := range []string{
		"", `"etag"`, "alluxio:", "alluxio:ff", "alluxio:ff:", "alluxio:xyz:1", "alluxio:ff:0",
		"alluxio:ff:-1", "alluxio:ff:1:1", "Alluxio:ff:1",
	} {
		if l, ok := layoutOf(cacheclient.Info{Version: v, Size: 5}); ok {
			t.Errorf("the version %q is taken for %+v", v, l)
		}
	}
}

// sequenceBits are those of a block's id that tell the blocks of one file apart.
const sequenceBits = 24

// TestABlockIsCountedAsAlluxioDoes has the ids of a file and its blocks as masters give them: the container 3000.
func TestABlockIsCountedAsAlluxioDoes(t *testing.T) {
	l := layout{fileID: 50348425215, blockSize: 1 << 20, size: 2<<20 + 1}
	for k, want := range []int64{50331648000, 50331648001, 50331648002} {
		if got := l.block(k); got != want {
			t.Errorf("block %d is %d, and Alluxio's is %d", k, got, want)
		}
	}
	if l.blocks() != 3 || l.length(1) != 1<<20 || l.length(2) != 1 {
		t.Errorf("%d blocks, of which the second has %d and the last %d bytes", l.blocks(), l.length(1), l.length(2))
	}
}

func TestSpansCoverTheRangeOnce(t *testing.T) {
	for range 2000 {
		l := layout{blockSize: 1 + rand.Int64N(100), size: 1 + rand.Int64N(1000)}
		off := rand.Int64N(l.size)
		n := 1 + rand.Int64N(l.size-off)
		at := off
		for _, s := range l.spans(off, n) {
			if s.n < 1 || s.off < 0 || s.off+s.n > l.length(s.k) || int64(s.k)*l.blockSize+s.off != at {
				t.Fatalf("[%d,%d) of %+v has the span %+v at %d", off, off+n, l, s, at)
			}
			at += s.n
		}
		if at != off+n {
			t.Fatalf("[%d,%d) of %+v ends at %d", off, off+n, l, at)
		}
	}
}

func TestVersionsAreToldApart(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	second := at.Truncate(time.Second)
	for name, tc := range map[string]struct {
		known, source cacheclient.Info
		same, sure    bool
	}{
		"the same": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5, ModTime: at},
			true, true,
		},
		"nanoseconds at the source": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5, ModTime: at.Add(999)},
			true, true,
		},
		"whole seconds at the source": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5, ModTime: second},
			true, false,
		},
		"whole seconds at the masters": {
			cacheclient.Info{Size: 5, ModTime: second},
			cacheclient.Info{Size: 5, ModTime: at},
			true, false,
		},
		"no time at the source": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5},
			false, true,
		},
		"another size": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 6, ModTime: at},
			false, true,
		},
		"another millisecond": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5, ModTime: at.Add(time.Millisecond)},
			false, true,
		},
		"another second": {
			cacheclient.Info{Size: 5, ModTime: second},
			cacheclient.Info{Size: 5, ModTime: second.Add(time.Second)},
			false, true,
		},
		"whole seconds at the source, another there": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5, ModTime: second.Add(time.Second)},
			false, true,
		},
		"a directory now": {
			cacheclient.Info{Size: 5, ModTime: at},
			cacheclient.Info{Size: 5, ModTime: at, Dir: true},
			false, true,
		},
	} {
		if same, sure := sameVersion(tc.known, tc.source); same != tc.same || sure != tc.sure {
			t.Errorf("%s: same version %v, sure %v", name, same, sure)
		}
	}
}
