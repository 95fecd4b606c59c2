package embedded

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sort"
	"time"

	"millrace.io/millrace/cacheclient"
)

// indexEvery is how many entries lie between two whose places are remembered.
const indexEvery = 256

// listing is a directory as the source told it: its entries in the order of their names, each name once, encoded one
// after the other. It is immutable once made.
type listing struct {
	at      time.Time
	version uint64
	count   uint64
	// firstDir is where the first directory stands among the entries, count if there is none.
	firstDir uint64
	// index has the place of every indexEvery-th entry.
	index []int64
	size  int64
	mem   []byte
	// file holds a long listing. What reads it when it is closed meets os.ErrClosed.
	file *spill
}

// weight is what the listing takes of memory, in bytes, about.
func (l *listing) weight() int64 {
	n := int64(len(l.mem)) + int64(8*len(l.index)) + 256
	if l.file != nil {
		// A descriptor is dearer than memory.
		n += spillAt / 4
	}
	return n
}

// close gives the file of a listing back that no cursor leads to any more.
func (l *listing) close() {
	if l.file != nil {
		l.file.close()
	}
}

// from reads the encoded entries from an offset on.
func (l *listing) from(offset int64) *bufio.Reader {
	var src io.ReaderAt = bytes.NewReader(l.mem)
	if l.file != nil {
		src = l.file
	}
	return bufio.NewReader(io.NewSectionReader(src, offset, l.size-offset))
}

// page decodes at most limit entries from the from-th on.
func (l *listing) page(dir string, from uint64, limit int) ([]cacheclient.Info, error) {
	if from >= l.count || limit <= 0 {
		return nil, nil
	}
	r := l.from(l.index[from/indexEvery])
	for range from % indexEvery {
		if _, err := decodeEntry(r, dir, l.size); err != nil {
			return nil, err
		}
	}
	n := min(uint64(limit), l.count-from)
	entries := make([]cacheclient.Info, 0, n)
	for range n {
		e, err := decodeEntry(r, dir, l.size)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// after is how many entries have a name up to this one, be it there or not.
func (l *listing) after(name string) (uint64, error) {
	var failed error
	behind := sort.Search(len(l.index), func(i int) bool {
		e, err := decodeEntry(l.from(l.index[i]), "", l.size)
		if err != nil {
			failed = err
		}
		return failed != nil || e.Path > name
	})
	if failed != nil || behind == 0 {
		return 0, failed
	}
	at := uint64(behind-1) * indexEvery
	r := l.from(l.index[behind-1])
	for ; at < l.count; at++ {
		e, err := decodeEntry(r, "", l.size)
		if err != nil {
			return 0, err
		}
		if e.Path > name {
			break
		}
	}
	return at, nil
}

const (
	entryDir = 1 << iota
	entryTime
	entryMode
)

// encodeEntry appends an entry. A time is told in seconds and nanoseconds, which every year has.
func encodeEntry(buf []byte, i cacheclient.Info) []byte {
	var flags byte
	if i.Dir {
		flags |= entryDir
	}
	if !i.ModTime.IsZero() {
		flags |= entryTime
	}
	if i.ModeKnown {
		flags |= entryMode
	}
	buf = append(buf, flags)
	buf = appendString(buf, i.Name())
	buf = binary.AppendVarint(buf, i.Size)
	if flags&entryTime != 0 {
		buf = binary.AppendVarint(buf, i.ModTime.Unix())
		buf = binary.AppendUvarint(buf, uint64(i.ModTime.Nanosecond()))
	}
	buf = binary.AppendUvarint(buf, uint64(i.Mode))
	return appendString(buf, i.Version)
}

func appendString(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

// decodeEntry reads an entry of the directory dir, no string of which is longer than most.
func decodeEntry(r *bufio.Reader, dir string, most int64) (cacheclient.Info, error) {
	flags, err := r.ReadByte()
	if err != nil {
		return cacheclient.Info{}, err
	}
	i := cacheclient.Info{Dir: flags&entryDir != 0, ModeKnown: flags&entryMode != 0}
	if i.Path, err = readString(r, most); err != nil {
		return i, err
	}
	if dir != "" {
		i.Path = dir + "/" + i.Path
	}
	if i.Size, err = binary.ReadVarint(r); err != nil {
		return i, err
	}
	if flags&entryTime != 0 {
		sec, err := binary.ReadVarint(r)
		if err != nil {
			return i, err
		}
		nsec, err := binary.ReadUvarint(r)
		if err != nil {
			return i, err
		}
		i.ModTime = time.Unix(sec, int64(nsec))
	}
	mode, err := binary.ReadUvarint(r)
	if err != nil {
		return i, err
	}
	i.Mode = os.FileMode(mode)
	i.Version, err = readString(r, most)
	return i, err
}

func readString(r *bufio.Reader, most int64) (string, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return "", err
	}
	if n > uint64(most) {
		return "", fmt.Errorf("a string of %d bytes in a listing of %d: %w", n, most, errBadState)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}
