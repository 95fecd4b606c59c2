package rpc

import (
	"errors"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/border"
)

// told is a file as a master tells of it.
func told(id, length, block int64) *wire.FileInfo {
	return &wire.FileInfo{Name: proto.String("f"), FileId: &id, Length: &length, BlockSizeBytes: &block}
}

// TestWhatMastersTellOfAFile has hostile numbers be errors of their file, and others be taken.
func TestWhatMastersTellOfAFile(t *testing.T) {
	const id = 7<<sequenceBits | lastSequence
	for name, tc := range map[string]struct {
		info *wire.FileInfo
		is   error
		// block is what the size of blocks becomes.
		block int64
	}{
		"a usual file":                   {info: told(id, 100<<20, 64<<20), block: 64 << 20},
		"an empty one":                   {info: told(id, 0, 0), block: 1},
		"the largest":                    {info: told(id, border.MostBytes, 64<<20), block: 64 << 20},
		"one byte in blocks of one":      {info: told(id, 1, 1), block: 1},
		"one block of any size":          {info: told(id, 5, math.MaxInt64), block: border.MostBytes},
		"as many blocks as there can be": {info: told(id, MostBlocks*512, 512), block: 512},
		"a negative length":              {info: told(id, -1, 64<<20), is: errClaim},
		"the least length":               {info: told(id, math.MinInt64, 64<<20), is: errClaim},
		"too large":                      {info: told(id, border.MostBytes+1, 64<<20), is: cacheclient.ErrTooLarge},
		"2^62":                           {info: told(id, 1<<62, 1<<62), is: cacheclient.ErrTooLarge},
		"the largest number":             {info: told(id, math.MaxInt64, math.MaxInt64), is: cacheclient.ErrTooLarge},
		"no block size":                  {info: told(id, 5, 0), is: errClaim},
		"a negative block size":          {info: told(id, 5, math.MinInt64), is: errClaim},
		"blocks of a byte":               {info: told(id, 1<<30, 1), is: errClaim},
		"one block too many":             {info: told(id, MostBlocks*512+1, 512), is: errClaim},
		"a block's id":                   {info: told(7<<sequenceBits, 5, 64<<20), is: errClaim},
		"a negative id":                  {info: told(-1, 5, 64<<20), is: errClaim},
		"nothing":                        {info: &wire.FileInfo{}, is: errClaim},
	} {
		err := believe(tc.info)
		if !errors.Is(err, tc.is) || (err == nil) != (tc.is == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("%s: %v would be asked for again, and taken for a master that does not answer", name, err)
		}
		if err == nil && tc.info.GetBlockSizeBytes() != tc.block {
			t.Errorf("%s: blocks of %d bytes, want %d", name, tc.info.GetBlockSizeBytes(), tc.block)
		}
	}
	if err := believe(&wire.FileInfo{Folder: proto.Bool(true), Length: proto.Int64(-5)}); err != nil {
		t.Errorf("the length of a directory matters: %v", err)
	}
}

// TestWhatMastersTellOfEntries leaves names out that no directory can have, and shows the names of files whose numbers
// cannot be.
func TestWhatMastersTellOfEntries(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "a\x00b", "/", strings.Repeat("x", border.MostNameBytes+1)} {
		f := told(lastSequence, 1, 1)
		f.Name = &name
		if entry(f) {
			t.Errorf("%.20q is taken for a name", name)
		}
	}
	if entry(nil) {
		t.Error("nothing is taken for an entry")
	}
	for _, name := range []string{"caf\xe9", " ", "...", "a\\b", "\n", strings.Repeat("x", border.MostNameBytes)} {
		f := told(lastSequence, 1, 1)
		f.Name = &name
		if !entry(f) || f.GetLength() != 1 {
			t.Errorf("%.20q is left out", name)
		}
	}
	f := told(lastSequence, 1<<62, 1<<62)
	f.BlockIds = []int64{1, 2, 3}
	if !entry(f) || f.Length != nil || f.BlockIds != nil {
		t.Errorf("a file of 2^62 bytes is told as %v", f)
	}
}

// TestWhatServersTellOfThemselves has sums of numbers not wrap around, and counts be bounded.
func TestWhatServersTellOfThemselves(t *testing.T) {
	infos := make([]*wire.WorkerInfo, mostWorkers+10)
	for i := range infos {
		infos[i] = &wire.WorkerInfo{CapacityBytes: proto.Int64(math.MaxInt64), UsedBytes: proto.Int64(math.MinInt64)}
	}
	var sum int64
	for _, info := range bounded(infos) {
		if sum += info.GetCapacityBytes(); sum < 0 || info.GetUsedBytes() != 0 {
			t.Fatalf("the sum is %d, and in use are %d", sum, info.GetUsedBytes())
		}
	}
	if _, err := blockPlaces(5, &wire.BlockInfo{BlockId: proto.Int64(6)}); !errors.Is(err, errClaim) {
		t.Errorf("another block than the one that was asked for: %v", err)
	}
	info, err := blockPlaces(5, &wire.BlockInfo{BlockId: proto.Int64(5), Locations: make([]*wire.BlockLocation, 1000)})
	if err != nil || len(info.GetLocations()) != MostLocations {
		t.Errorf("%d places are taken, %v", len(info.GetLocations()), err)
	}
	if err := checkPath(strings.Repeat("x", mostPathBytes+1)); !errors.Is(err, errClaim) {
		t.Errorf("a path of %d bytes: %v", mostPathBytes+1, err)
	}
}

// TestHostsAreNames refuses addresses that are none.
func TestHostsAreNames(t *testing.T) {
	for _, host := range []string{"a b", "a\nb", "a/b", "a\x00b", "user@host", "h?x", `h"`, strings.Repeat("x", 256)} {
		if err := checkHostPort(host + ":29999"); err == nil {
			t.Errorf("%.20q is taken for a host", host)
		}
	}
	for _, host := range []string{"h", "10.1.2.3", "[fe80::1%eth0]", "wörker", "a_b.c-d"} {
		if err := checkHostPort(host + ":29999"); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
}
