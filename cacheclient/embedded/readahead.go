package embedded

// Read-ahead is decided from the reads of one file version, whichever handle made them: the kernel gives no
// handle that survives a restart, and its own read-ahead already mixes the order of requests. A
// stream is a run of reads that follow one another; a file has several at a time.
const (
	maxStreams = 8
	// provenAfter is how many reads must follow one another before any is fetched ahead.
	provenAfter = 2
	// firstWindow is how far ahead a proven stream looks at first, in bytes.
	firstWindow = 4 << 20
	// slack is how far from the end of a stream, in bytes, a read may begin and still be a part of it: the
	// kernel sends read-ahead requests of up to 1 MiB side by side, and they arrive in any order.
	slack = 2 << 20
)

// stream is one sequential reader.
type stream struct {
	// end is the furthest byte asked for; began is where the stream began.
	began, end int64
	// window is how far past end to fetch, in bytes; 0 until the stream has proved itself.
	window int64
	// follows counts the reads that continued the stream: one may be chance.
	follows int
	// used orders streams by their last read.
	used uint64
}

// streams are the readers of one file. The zero value is ready.
type streams struct {
	list [maxStreams]stream
	n    int
	tick uint64
}

// read notes the read of [off, off+n) and returns the offset up to which fetching is worth while:
// off+n for a read that follows no other, more for a stream. The window doubles each time
// that the reader has moved by its half, up to largest bytes.
func (s *streams) read(off, n, largest int64) int64 {
	s.tick++
	end := off + n
	st := s.find(off)
	if st == nil {
		*s.place() = stream{began: off, end: end, used: s.tick}
		return end
	}
	st.used = s.tick
	if end <= st.end {
		return max(end, st.ahead())
	}
	moved := end - st.began
	st.end = end
	st.follows++
	switch {
	case st.follows < provenAfter:
	case st.window == 0:
		st.window = min(firstWindow, largest)
	case moved >= st.window/2:
		st.window = min(2*st.window, largest)
	}
	return st.ahead()
}

func (st *stream) ahead() int64 { return st.end + st.window }

// find returns the stream that a read at off continues.
func (s *streams) find(off int64) *stream {
	for i := range s.list[:s.n] {
		if st := &s.list[i]; off <= st.end+slack && off >= st.end-slack && off >= st.began {
			return st
		}
	}
	return nil
}

// place returns a free stream, or the one that was not read for the longest time.
func (s *streams) place() *stream {
	if s.n < maxStreams {
		s.n++
		return &s.list[s.n-1]
	}
	oldest := &s.list[0]
	for i := range s.list {
		if s.list[i].used < oldest.used {
			oldest = &s.list[i]
		}
	}
	return oldest
}
