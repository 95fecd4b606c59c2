package embedded

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// segment is how much of a data file is mapped at a time. A file may be larger than what a process can map.
const segment = 1 << 30

// segments are the parts of a data file that are mapped, read-only, by their numbers. They are never touched by our own
// code but lent, so that a damaged tier cannot fault the process.
type segments map[int64][]byte

// of returns a segment of a file of that size.
func (s *segments) of(data *os.File, number, size int64) ([]byte, error) {
	if m, ok := (*s)[number]; ok {
		return m, nil
	}
	length := int(min(size-number*segment, segment))
	m, err := unix.Mmap(int(data.Fd()), number*segment, length, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	if *s == nil {
		*s = make(segments)
	}
	(*s)[number] = m
	return m, nil
}

// unmap gives all of them back.
func (s *segments) unmap() {
	for _, m := range *s {
		_ = unix.Munmap(m)
	}
	*s = nil
}

// loan gathers the parts of one read; entry.mu is held.
type loan struct {
	e *entry
	// from is where the bytes begin that the tier has and parts do not yet, -1 where there are none.
	from  int64
	parts [][]byte
	used  []*stagedBlock
}

// tier adds bytes of the tier from pos on, up to where another part begins.
func (l *loan) tier(pos int64) {
	if l.from < 0 {
		l.from = pos
	}
}

// memory adds the bytes [pos, end) of a block in memory, of which the caller has begun a use.
func (l *loan) memory(b *stagedBlock, pos, end int64) error {
	l.used = append(l.used, b)
	if err := l.flush(pos); err != nil {
		return err
	}
	l.parts = append(l.parts, b.buf[pos-b.block*BlockSize:end-b.block*BlockSize])
	return nil
}

// flush ends the bytes of the tier before the offset to.
func (l *loan) flush(to int64) error {
	for l.from >= 0 && l.from < to {
		end := min(to, (l.from/segment+1)*segment)
		part, err := l.e.part(l.from, end)
		if err != nil {
			return err
		}
		l.parts = append(l.parts, part)
		l.from = end
	}
	l.from = -1
	return nil
}

// undo ends the uses of blocks in memory.
func (l *loan) undo() {
	for _, b := range l.used {
		l.e.c.staging.done(b)
	}
}

// data is what was gathered. The caller has added a reference for it.
func (l *loan) data() cacheclient.Data {
	d := cacheclient.Data{Parts: l.parts, Origin: cacheclient.OriginCache}
	if len(l.used) > 0 {
		d.Origin = cacheclient.OriginStaging
	}
	d.Free = func() {
		l.undo()
		l.e.c.release(l.e)
	}
	return d
}

// part is the bytes [from, to) of one segment of the data file: of its mapping, or a copy where it cannot be mapped. mu
// is held.
func (e *entry) part(from, to int64) ([]byte, error) {
	m, err := e.maps.of(e.data, from/segment, e.info.Size)
	if err == nil {
		base := from / segment * segment
		return m[from-base : to-base : to-base], nil
	}
	buf := make([]byte, to-from)
	if _, err := e.data.ReadAt(buf, from); err != nil {
		return nil, fmt.Errorf("read the cached file of %q: %w", e.info.Path, err)
	}
	return buf, nil
}

// inspect looks whether another process has changed the data file. If so, all that is there of it is in doubt, what is
// lost comes again, and readers do not notice. mu is held.
// D-134 says why.
func (e *entry) inspect() {
	var st unix.Stat_t
	if e.data == nil || unix.Fstat(int(e.data.Fd()), &st) != nil {
		return
	}
	short := st.Size < e.info.Size && st.Size != e.short
	if !short && (e.sealed == 0 || e.sealed == st.Ctim.Nano()) {
		return
	}
	e.c.log.Warn("a cached file was changed by another; it is checked again", "file", e.info.Path)
	// It only grows: what is mapped of it is lent.
	if short && e.data.Truncate(e.info.Size) != nil {
		e.short = st.Size
	}
	e.suspect()
}

// suspect doubts all blocks, and takes those for gone for which nothing vouches any more; mu is held.
func (e *entry) suspect() {
	slots, err := e.state.slots(e.blocks())
	if err != nil {
		slots = nil
	}
	e.sealed, e.unverified = 0, make(map[int64]uint32)
	var lost int64
	for _, r := range e.have.runs() {
		for b := r.first; b < r.last; b++ {
			sum, vouched := slots[b]
			if vouched {
				e.unverified[b] = sum
				continue
			}
			e.have.clear(b)
			lost += run{b, b + 1}.charge(e.info.Size)
		}
	}
	for _, f := range e.fetches {
		f.spoil()
	}
	if lost > 0 && e.c.begin() {
		e.refs.Add(1)
		// The accounts are taken before mu.
		go func() {
			defer e.c.work.Done()
			defer e.c.release(e)
			e.c.uncharge(e, lost)
		}()
	}
}
