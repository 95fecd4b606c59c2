package liar

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mostBytes is the largest size of a file that is believed.
const mostBytes = 1 << 50

// Values at the borders of what numbers, file systems, protocols and JSON hold.
var (
	borderSizes = []int64{
		0, 1, 511, 4095, 4096, 4097, 1<<20 - 1, 1 << 20, 1<<20 + 1, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1,
		1 << 40, 1<<43 - 1, 1 << 43,
		mostBytes - 1, mostBytes, mostBytes + 1, 1 << 53, 1<<62 - 1, 1 << 62, 1<<63 - 2, 1<<63 - 1,
	}
	borderYears = []int{
		1, 1583, 1600, 1677, 1678, 1900, 1901, 1902, 1969, 1970, 1971, 2000, 2038, 2039, 2106, 2107,
		2261, 2262, 2263, 2446, 4000, 9999,
	}
	// Directories have these years too; dates of HTTP have four digits.
	borderYearsLocal = []int{-9999, -1, 0, 10000, 10001, 65536}
	borderLengths    = []int{1, 2, 7, 8, 63, 64, 127, 128, 254, 255}
	borderLengthsWeb = []int{256, 257, 511, 512, 1000, 1023, 1024}
	borderTags       = []string{
		"", `""`, `"x"`, `W/"x"`, `W/""`, "unquoted", `"`, `"a`, `W/`, `w/"x"`, `"\"`, `"a"b"`, "\"\xff\xfe\"", `"é"`,
		`"` + strings.Repeat("t", 1022) + `"`,
		`"` + strings.Repeat("t", 1023) + `"`, `W/"` + strings.Repeat("t", 5000) + `"`,
		`"` + strings.Repeat("t", 60_000) + `"`, `*`, `"*"`, `"a","b"`,
	}
)

// borderFile draws a file, and the size that is told for it.
func borderFile(d *rand.Rand, kind Kind, n int) (*File, int64) {
	name := fmt.Sprintf("%03d", n)
	lengths, years := borderLengths, borderYears
	if kind == Local {
		years = append(years, borderYearsLocal...)
	} else {
		lengths = append(lengths, borderLengthsWeb...)
	}
	if kind == S3 {
		// A key has 1,024 bytes at the most, the directory's name among them.
		lengths = lengths[:len(lengths)-2]
	}
	if length := pick(d, lengths...); length > len(name) {
		fill := pick(d, "n", "é", "日", "%", "#", "\\")
		if kind != S3 {
			fill = pick(d, fill, "\xe9", "\xff", "\x01")
		}
		name += strings.Repeat(fill, length)[:length-len(name)]
		if kind == S3 {
			name = strings.ToValidUTF8(name, "")
		}
	}
	f := &File{Path: "d/" + name, Fixed: true, Sign: pick(d, Strong, Clock)}
	f.Time = time.Date(pick(d, years...), 12, 31, 23, 59, 59, 0, time.UTC)
	if kind == Local {
		f.Time = f.Time.Add(time.Duration(pick(d, 0, 1, 999_999_999)))
	}
	if kind == HTTP && chance(d, 0.5) {
		f.Tag = pick(d, borderTags...)
		f.Sign = Clock
	}
	return f, pick(d, borderSizes...)
}

// TestBorders mounts files whose sizes, times, names and ETags are at the borders, in each combination that the seeds
// draw: each is there as the source has it, or fails by the one errno that is right.
func TestBorders(t *testing.T) {
	for _, kind := range []Kind{Local, HTTP, S3} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			told := map[string]int64{}
			b := newBed(t, Plan{Kind: kind, Seed: 11}, func(w *World) {
				w.AddDir(&Dir{Path: "d"})
				for n := range 150 {
					f, size := borderFile(w.Seed.Dice("border", kind, n), kind, n)
					if size > mostBytes || kind == Local && size > 4<<20 {
						// What is larger than that is told, or sparse.
						f.Claims = strconv.FormatInt(size, 10)
					}
					w.AddFile(f, size)
					told[f.Path] = size
				}
			})
			r := b.reader(1)
			b.within("looking at 150 files", 30*time.Second, func() {
				for _, f := range b.world.Files() {
					if b.judge.over() {
						return
					}
					if err := b.border(r, f, told[f.Path]); err != nil {
						t.Errorf("%s, told size %d, time %v, ETag %.20q: %v", quoted(f.Path), told[f.Path], f.Time,
							f.Tag, err)
					}
				}
				d, _ := b.world.Dir("d")
				if err := r.checkDir(d); err != nil {
					t.Error(err)
				}
			})
			b.faults()
			if err := b.mount.unmount(); err != nil {
				t.Error(err)
			}
		})
	}
}

// border compares what the mount says of a file, and its first and last page, with what is told.
func (b *bed) border(r *reader, f *File, size int64) error {
	path := filepath.Join(b.mount.dir, f.Path)
	fd, err := openRaw(path, 0)
	if err == nil {
		defer func() { _ = unix.Close(fd) }()
	}
	if size > mostBytes {
		if !errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("open says %w, and EFBIG is right", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	if st.Size != size {
		return fmt.Errorf("fstat says %d bytes", st.Size)
	}
	if got := time.Unix(st.Mtim.Unix()); !got.Equal(f.Time) {
		return fmt.Errorf("fstat says %v, %d s", got.UTC(), st.Mtim.Sec)
	}
	_, v, _ := b.world.Look(f.Path)
	for _, off := range []int64{0, max(0, size-page-1), size} {
		want := make([]byte, min(page, size-off))
		if f.Claims == "" {
			Fill(v.Content, off, want)
		}
		n, err := unix.Pread(fd, r.buf[:page], off)
		if err != nil {
			return fmt.Errorf("read at %d: %w", off, err)
		}
		if string(r.buf[:n]) != string(want) {
			return fmt.Errorf("read at %d gives %d bytes that are not the %d of the source", off, n, len(want))
		}
	}
	return nil
}
