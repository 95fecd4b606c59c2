package embedded

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient/border"
)

// A snapshot is the index of a level, which a process that ends leaves to the next, so that it need not read the state
// of each file. It holds for as long as the level's directory is as it was then, and is removed before anything there
// is changed: after a crash there is none. It says nothing of what the files hold, only what to look for.
//
//	magic     8 bytes
//	changed   12 bytes: the directory's time of change when the snapshot was written, seconds and nanoseconds
//	count     8 bytes: of the directories that files are in
//	names     of these, each with its length before it (uvarint)
//	count     8 bytes: of the files
//	files     40 bytes each, the one used last first: id, path, confirmed, charged, the number of the directory
//	checksum  4 bytes: CRC-32C of all before
//
// All numbers are little endian.
// D-133 says why.
const (
	snapshotName  = "index"
	snapshotMagic = "millidx1"
	snapshotFile  = 40
)

var errNoSnapshot = errors.New("there is no snapshot that holds")

// writeSnapshots leaves the index to the next process, where it tells all that is on a level.
func (c *Cache) writeSnapshots() {
	for _, l := range c.levels {
		if text := c.snapshot(l); text != nil {
			if err := writeSnapshot(l, text); err != nil {
				c.log.Debug("the index of a tier is not kept", "tier", l.dir, "error", err)
			}
		}
	}
}

// snapshot is the text of a level's snapshot but its time and checksum; nil where the index does not tell all.
func (c *Cache) snapshot(l *level) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.lock == nil || l.problem != nil || l.strays || !c.left.over || len(c.claims) > 0 {
		return nil
	}
	b := snapshotBuilder{numbers: make(map[string]uint32)}
	for _, e := range c.entries {
		if e.level == l {
			b.add(stub{id: e.info.ID, path: e.path, confirmed: e.confirmed, charged: e.charged}, parentOf(e.info.Path))
		}
	}
	for place := c.shelf.ends[l.index].newest; place != 0; place = c.shelf.at(place).older {
		t := c.shelf.at(place)
		b.add(*t, c.shelf.dirs.list[t.dir].path)
	}
	return b.text()
}

// snapshotBuilder collects cached files.
type snapshotBuilder struct {
	numbers map[string]uint32
	dirs    []byte
	files   []byte
}

func (b *snapshotBuilder) add(t stub, dir string) {
	number, ok := b.numbers[dir]
	if !ok {
		number = uint32(len(b.numbers))
		b.numbers[dir] = number
		b.dirs = appendString(b.dirs, dir)
	}
	for _, v := range []uint64{t.id, t.path, uint64(t.confirmed), uint64(t.charged), uint64(number)} {
		b.files = binary.LittleEndian.AppendUint64(b.files, v)
	}
}

func (b *snapshotBuilder) text() []byte {
	text := binary.LittleEndian.AppendUint64(nil, uint64(len(b.numbers)))
	text = append(text, b.dirs...)
	text = binary.LittleEndian.AppendUint64(text, uint64(len(b.files)/snapshotFile))
	return append(text, b.files...)
}

// changedAt is when the entries of a directory changed last.
func changedAt(dir string) (at [12]byte, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return at, err
	}
	binary.LittleEndian.PutUint64(at[:], uint64(st.Mtim.Sec))
	binary.LittleEndian.PutUint32(at[8:], uint32(st.Mtim.Nsec))
	return at, nil
}

// writeSnapshot writes a snapshot: its file first, so that the time of the directory is that with it.
func writeSnapshot(l *level, text []byte) error {
	name := filepath.Join(l.dir, snapshotName)
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	at, err := changedAt(l.dir)
	if err == nil {
		head := append([]byte(snapshotMagic), at[:]...)
		sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, text)
		for _, part := range [][]byte{head, text, binary.LittleEndian.AppendUint32(nil, sum)} {
			if err == nil {
				_, err = f.Write(part)
			}
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// readSnapshot reads the snapshot of a level and removes it, whether it holds or not.
func readSnapshot(l *level) ([]found, error) {
	name := filepath.Join(l.dir, snapshotName)
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errNoSnapshot
	}
	defer func() { _ = f.Close() }()
	at, err := changedAt(l.dir)
	if err = errors.Join(err, os.Remove(name)); err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || !summed(f, fi.Size()) {
		return nil, errNoSnapshot
	}
	all, err := decodeSnapshot(f, fi.Size()-4, at, l.index)
	if err != nil {
		return nil, errNoSnapshot
	}
	return all, nil
}

// summed reports whether the last four bytes of a file are the checksum of all others.
func summed(f *os.File, size int64) bool {
	h := crc32.New(castagnoli)
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size-4)); err != nil || size < 4 {
		return false
	}
	var last [4]byte
	_, err := f.ReadAt(last[:], size-4)
	return err == nil && binary.LittleEndian.Uint32(last[:]) == h.Sum32()
}

// decodeSnapshot reads a snapshot of so many bytes that was made when the directory had changed at that time.
func decodeSnapshot(src io.ReaderAt, size int64, at [12]byte, level uint8) ([]found, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(src, 0, size), 64<<10)
	var head [len(snapshotMagic) + len(at)]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic || !slices.Equal(head[len(snapshotMagic):], at[:]) {
		return nil, errNoSnapshot
	}
	n, err := readCount(r, size)
	if err != nil {
		return nil, err
	}
	dirs := make([]string, 0, n)
	for range n {
		dir, err := readName(r, size)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	if n, err = readCount(r, size/snapshotFile); err != nil {
		return nil, err
	}
	all := make([]found, 0, n)
	for i := range n {
		f, err := decodeFile(r, dirs)
		if err != nil {
			return nil, err
		}
		f.level = level
		// Only their order is known; files of other levels were used before or after all of them.
		f.used = math.MaxInt64 - i
		all = append(all, f)
	}
	return all, nil
}

// readCount reads a number of things, of which there can be only so many.
func readCount(r io.Reader, most int64) (int64, error) {
	var buf [8]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return 0, err
	}
	if n := binary.LittleEndian.Uint64(buf[:]); n <= uint64(most) {
		return int64(n), nil
	}
	return 0, errNoSnapshot
}

// readName reads a name of at most so many bytes.
func readName(r *bufio.Reader, most int64) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > uint64(most) {
		return "", errNoSnapshot
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}

// decodeFile reads one cached file.
func decodeFile(r io.Reader, dirs []string) (found, error) {
	var buf [snapshotFile]byte
	if _, err := io.ReadFull(r, buf[:]); err != nil {
		return found{}, err
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(buf[8*i:]) }
	f := found{stub: stub{id: field(0), path: field(1), confirmed: int64(field(2)), charged: int64(field(3))}}
	if f.id == 0 || border.Size(f.charged) != nil || field(4) >= uint64(len(dirs)) {
		return found{}, errNoSnapshot
	}
	f.dir = dirs[field(4)]
	return f, nil
}
