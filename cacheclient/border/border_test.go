package border_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

func TestSize(t *testing.T) {
	for n, want := range map[int64]error{
		0: nil, 1: nil, border.MostBytes: nil, border.MostBytes + 1: cacheclient.ErrTooLarge,
		1 << 62:       cacheclient.ErrTooLarge,
		math.MaxInt64: cacheclient.ErrTooLarge, -1: cacheclient.ErrTooLarge, math.MinInt64: cacheclient.ErrTooLarge,
	} {
		if err := border.Size(n); !errors.Is(err, want) {
			t.Errorf("%d: %v", n, err)
		}
	}
}

func TestName(t *testing.T) {
	longest := strings.Repeat("x", border.MostNameBytes)
	for _, name := range []string{"a", "-rf", "caf\xe9", "new\nline", "\x01", "back\\slash", "...", " ", longest} {
		if !border.Name(name) {
			t.Errorf("%.20q is refused", name)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "/", "nul\x00", longest + "x"} {
		if border.Name(name) {
			t.Errorf("%.20q is accepted", name)
		}
	}
}

func TestVersion(t *testing.T) {
	long := strings.Repeat("v", 1<<20)
	for _, v := range []string{"", `"a"`, "caf\xe9", long[:border.MostVersionBytes]} {
		if got := border.Version(v); got != v {
			t.Errorf("%.20q becomes %.20q", v, got)
		}
	}
	got := border.Version(long)
	if len(got) > border.MostVersionBytes || got == border.Version(long+"v") || got != border.Version(long) ||
		border.Version(got) != got {
		t.Errorf("a long one becomes %q", got)
	}
}

func TestListing(t *testing.T) {
	if err := border.Listing(border.MostEntries, border.MostListed); err != nil {
		t.Error(err)
	}
	for _, c := range [][2]int64{{border.MostEntries + 1, 1}, {1, border.MostListed + 1}} {
		if err := border.Listing(c[0], c[1]); !errors.Is(err, cacheclient.ErrTooLarge) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
