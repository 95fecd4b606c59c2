package embedded

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

const (
	// spillAt is the size in bytes at which a listing moves from memory to an unnamed file.
	spillAt = 256 << 10
	// mostListing is the longest listing that is believed, in bytes: some ten million names.
	mostListing = 1 << 30
)

// listingBuilder takes the entries of a directory in whatever order and however often the source tells them, and makes
// a listing of them. It sorts them in runs of spillAt bytes, which it then merges: a directory of any length costs
// little memory. Where all fit into one run nothing is written anywhere.
// D-145 says why.
type listingBuilder struct {
	spills func() *spill
	// buf has the entries of the present run, encoded, and starts where each begins.
	buf    []byte
	starts []int
	// runs are those before, and file has them one after the other.
	runs []listingRun
	file *spill
	size int64
	// left counts the entries that were left out.
	left int
}

// listingRun is a part of the builder's file that is in order.
type listingRun struct{ offset, size int64 }

func newListingBuilder(spills func() *spill) *listingBuilder {
	return &listingBuilder{spills: spills}
}

// add takes an entry. What no file system can have is left out and counted.
func (b *listingBuilder) add(i cacheclient.Info) error {
	if !border.Name(i.Name()) {
		b.left++
		return nil
	}
	if b.size += int64(len(i.Path)); b.size > mostListing {
		return fmt.Errorf("its listing is longer than %d bytes: %w", mostListing, cacheclient.ErrTooLarge)
	}
	b.starts = append(b.starts, len(b.buf))
	b.buf = encodeEntry(b.buf, i)
	if len(b.buf) >= spillAt {
		return b.endRun()
	}
	return nil
}

// endRun sorts the present run and writes it to the file.
func (b *listingBuilder) endRun() error {
	if b.file == nil {
		b.file = b.spills()
	}
	run := b.sorted()
	b.runs = append(b.runs, listingRun{b.file.size, int64(len(run))})
	b.buf, b.starts = b.buf[:0], b.starts[:0]
	_, err := b.file.Write(run)
	return err
}

// sorted is the present run in the order of the names; what comes twice stays in the order in which it came.
func (b *listingBuilder) sorted() []byte {
	name := func(start int) []byte {
		n, w := binary.Uvarint(b.buf[start+1:])
		return b.buf[start+1+w:][:n]
	}
	byName := func(x, y int) int { return bytes.Compare(name(x), name(y)) }
	if slices.IsSortedFunc(b.starts, byName) {
		return slices.Clone(b.buf)
	}
	ends := make(map[int]int, len(b.starts))
	for k, start := range b.starts {
		ends[start] = len(b.buf)
		if k+1 < len(b.starts) {
			ends[start] = b.starts[k+1]
		}
	}
	slices.SortStableFunc(b.starts, byName)
	run := make([]byte, 0, len(b.buf))
	for _, start := range b.starts {
		run = append(run, b.buf[start:ends[start]]...)
	}
	return run
}

// finish makes the listing.
func (b *listingBuilder) finish() (*listing, error) {
	w := &listingWriter{l: &listing{}}
	merge := &listingMerge{}
	if b.file == nil {
		merge.open(bytes.NewReader(b.sorted()), int64(len(b.buf)))
	} else {
		if err := b.endRun(); err != nil {
			return nil, err
		}
		w.l.file = b.spills()
		for _, r := range b.runs {
			merge.open(io.NewSectionReader(b.file, r.offset, r.size), r.size)
		}
	}
	err := merge.each(w.add)
	if err == nil {
		err = w.finish()
	}
	if err != nil {
		w.l.close()
		return nil, err
	}
	return w.l, nil
}

// discard gives back what the builder has written; the listing that it made stays.
func (b *listingBuilder) discard() {
	if b.file != nil {
		b.file.close()
		b.file = nil
	}
}

// listingMerge brings runs together; it is a heap of them by their next entries.
type listingMerge struct {
	heads []listingHead
	err   error
}

// listingHead is a run and its next entry.
type listingHead struct {
	run  int
	r    *bufio.Reader
	most int64
	next cacheclient.Info
}

func (m *listingMerge) Len() int { return len(m.heads) }
func (m *listingMerge) Less(i, j int) bool {
	a, b := m.heads[i], m.heads[j]
	return cmp.Or(cmp.Compare(a.next.Path, b.next.Path), cmp.Compare(a.run, b.run)) < 0
}
func (m *listingMerge) Swap(i, j int) { m.heads[i], m.heads[j] = m.heads[j], m.heads[i] }

// Push implements heap.Interface.
func (m *listingMerge) Push(x any) {
	if h, ok := x.(listingHead); ok {
		m.heads = append(m.heads, h)
	}
}

// Pop implements heap.Interface.
func (m *listingMerge) Pop() any {
	last := m.heads[len(m.heads)-1]
	m.heads = m.heads[:len(m.heads)-1]
	return last
}

// open adds a run of so many bytes, behind those before.
func (m *listingMerge) open(r io.Reader, size int64) {
	h := listingHead{run: len(m.heads), r: bufio.NewReader(r), most: size}
	if m.advance(&h) {
		m.heads = append(m.heads, h)
	}
}

// advance reads the next entry of a run; false at its end, and where it cannot be read.
func (m *listingMerge) advance(h *listingHead) bool {
	var err error
	h.next, err = decodeEntry(h.r, "", h.most)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return err == nil
}

// each calls f for each entry in the order of the names.
func (m *listingMerge) each(f func(cacheclient.Info) error) error {
	heap.Init(m)
	for len(m.heads) > 0 && m.err == nil {
		h := &m.heads[0]
		if err := f(h.next); err != nil {
			return err
		}
		if m.advance(h) {
			heap.Fix(m, 0)
		} else {
			heap.Pop(m)
		}
	}
	return m.err
}

// listingWriter writes entries that come in order, each name once.
type listingWriter struct {
	l   *listing
	buf []byte
	// last is the entry that is not written yet, since another of its name may follow.
	last *cacheclient.Info
}

func (w *listingWriter) add(i cacheclient.Info) error {
	if w.last != nil && w.last.Path == i.Path {
		*w.last = preferred(*w.last, i)
		return nil
	}
	if err := w.write(); err != nil {
		return err
	}
	w.last = &i
	return nil
}

// preferred is the one of two entries of a name that is shown: a directory, since what is below it would be lost; else
// the one that tells more; else the one that came first.
func preferred(a, b cacheclient.Info) cacheclient.Info {
	switch {
	case a.Dir != b.Dir && b.Dir:
		return b
	case a.Dir == b.Dir && a.Size == cacheclient.UnknownSize && b.Size != cacheclient.UnknownSize:
		return b
	}
	return a
}

// write writes the last entry.
func (w *listingWriter) write() error {
	if w.last == nil {
		return nil
	}
	l := w.l
	if l.count%indexEvery == 0 {
		l.index = append(l.index, l.size)
	}
	before := len(w.buf)
	w.buf = encodeEntry(w.buf, *w.last)
	if !w.last.Dir && l.firstDir == l.count {
		l.firstDir++
	}
	l.count++
	l.size += int64(len(w.buf) - before)
	h := fnv.New64a()
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, l.version))
	_, _ = h.Write(w.buf[before:])
	l.version = h.Sum64()
	if l.file != nil && len(w.buf) >= spillAt {
		return w.flush()
	}
	return nil
}

func (w *listingWriter) flush() error {
	_, err := w.l.file.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *listingWriter) finish() error {
	if err := w.write(); err != nil {
		return err
	}
	if w.l.file == nil {
		w.l.mem = bytes.Clone(w.buf)
	} else if err := w.flush(); err != nil {
		return err
	}
	w.l.at = time.Now()
	if w.l.version == 0 {
		w.l.version = 1
	}
	return nil
}
