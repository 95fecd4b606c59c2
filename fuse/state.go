package fuse

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrState says that a saved state cannot be read by this build, or that the kernel does not resend:
// the connection cannot be taken over.
var ErrState = errors.New("the session's saved state cannot be taken over")

// The state of a session is a file in memory without a name, mapped by the process that serves. What is
// written to it is there for the next process as soon as the processor has executed it, however the process
// ends; nothing is ever flushed. One process writes at a time, and the next one starts after it is dead, so
// it is enough that each step leaves the file readable: a record is filled in first and named last.
//
//	0      stateMagic
//	8      version, uint32: another one is refused
//	16     length of INIT, uint32; 0 until INIT was read
//	24     birth of the session, Unix nanoseconds
//	32     how many processes took the session over
//	40     the last handle given out
//	48     the end of the records
//	56     the highest backing id given out, uint32
//	60     1 once the mount was settled, uint32
//	64     the mount's device number, 0 where it is not known
//	72     INIT as the kernel sent it
//	3840   the namespace of process ids in which the mount was made, 0 where it is not known
//	3848   1 once the last process left, and did not die, uint32
//	3856   when processes died over requests, Unix nanoseconds, the last eight
//	4096   records, each a multiple of 64 bytes long
//
// A record begins with its kind and its size, uint32 each. All numbers are little endian.
const (
	stateMagic   = "MILLRACE"
	stateVersion = 2
	// stateOldest is the first format that is still read; it becomes the present one.
	stateOldest = 1

	stateInitLen  = 16
	stateBorn     = 24
	stateResumes  = 32
	stateHandle   = 40
	stateEnd      = 48
	stateBacking  = 56
	stateSettled  = 60
	stateDevice   = 64
	stateInit     = 72
	stateSpace    = 3840
	stateLeft     = 3848
	stateDeaths   = 3856
	stateRecords  = 4096
	stateInitMost = stateSpace - stateInit
	// deathsKept is how many deaths the state has.
	deathsKept = 8

	// stateSize bounds the state, in bytes; memory is used as records need it. A node takes 128 bytes
	// as a rule.
	stateSize = 1 << 30
	// stateSeals keep the file's size, so that no process that has it can make the mapping fault.
	stateSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	// recordUnit is what a record's size is a multiple of.
	recordUnit = 64
	// recordMost is the largest record.
	recordMost = 8192
)

// recordKind is what a record is.
type recordKind uint32

const (
	recordFree   recordKind = 0
	recordNode   recordKind = 1
	recordHandle recordKind = 2
	// recordClosed is a handle that was the last of its file: its backing id is to be unregistered.
	recordClosed recordKind = 3
	// recordDir is a directory that is open.
	recordDir recordKind = 4
	// recordNumber is the inode number of an identity that does not have its own.
	recordNumber recordKind = 5
	// recordServing is a request that a worker serves, recordSuspect one that was in service when its process died, and
	// recordPoison one that was so twice (poison.go).
	recordServing recordKind = 6
	recordSuspect recordKind = 7
	recordPoison  recordKind = 8
	// recordKinds is the number of kinds.
	recordKinds recordKind = 9
)

// record is the offset of a record in the state, 0 for none.
type record uint64

// stateFile is the state, mapped. Its owners lock: the table of nodes for the records of nodes, the table of
// open files for those of handles; the allocator has a lock of its own, in freeRecords.
type stateFile struct {
	file *os.File
	mem  []byte
	free freeRecords
	// onFull is called once, when there is no room for a record, and must not wait for any lock; nil where no owner
	// wants to know.
	onFull func()
	full   atomic.Bool
}

// newStateFile makes an empty state.
func newStateFile() (*stateFile, error) {
	fd, err := unix.MemfdCreate("millrace-session", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("making the session's state: %w", err)
	}
	file := os.NewFile(uintptr(fd), "millrace-session")
	if err := unix.Ftruncate(fd, stateSize); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("making the session's state: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, stateSeals); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("sealing the session's state: %w", err)
	}
	s, err := mapState(file)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(s.mem[8:], stateVersion)
	binary.LittleEndian.PutUint64(s.mem[stateBorn:], uint64(time.Now().UnixNano()))
	binary.LittleEndian.PutUint64(s.mem[stateEnd:], stateRecords)
	copy(s.mem, stateMagic)
	return s, nil
}

// openStateFile takes over the state that another process left. It returns ErrState where that was of
// another build's format.
func openStateFile(file *os.File) (*stateFile, error) {
	st, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&stateSeals != stateSeals {
		_ = file.Close()
		return nil, fmt.Errorf("%w: its size is not sealed", ErrState)
	}
	if st.Size() != stateSize {
		_ = file.Close()
		return nil, fmt.Errorf("%w: it has %d bytes, not %d", ErrState, st.Size(), stateSize)
	}
	s, err := mapState(file)
	if err != nil {
		return nil, err
	}
	version := binary.LittleEndian.Uint32(s.mem[8:])
	switch {
	case string(s.mem[:len(stateMagic)]) != stateMagic:
		err = fmt.Errorf("%w: it is no state of millrace", ErrState)
	case version < stateOldest || version > stateVersion:
		err = fmt.Errorf("%w: its format is %d, and this build reads %d to %d", ErrState, version, stateOldest,
			stateVersion)
	case s.u32(stateInitLen).Load() > stateInitMost:
		err = fmt.Errorf("%w: its INIT is too long", ErrState)
	default:
		err = s.check()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.modernize(version)
	s.u64(stateResumes).Add(1)
	return s, nil
}

// modernize makes records of an earlier format ones of the present format. A process that dies over it leaves the
// earlier format's number, and the next one does it again.
func (s *stateFile) modernize(version uint32) {
	if version == stateVersion {
		return
	}
	// Nothing here fails.
	_ = s.each(recordNode, func(r record) error {
		s.modernizeNode(r)
		return nil
	})
	_ = s.each(recordHandle, func(r record) error {
		// The first format does not tell which handles the kernel knows.
		s.u32(uint64(r) + handleFlags).Store(handleAnswered)
		return nil
	})
	s.u32(8).Store(stateVersion)
}

// mapState maps the file, which it owns from then on.
func mapState(file *os.File) (*stateFile, error) {
	mem, err := unix.Mmap(int(file.Fd()), 0, stateSize, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("mapping the session's state: %w", err)
	}
	return &stateFile{file: file, mem: mem}, nil
}

// sever has what this process still writes reach no other: the mapping becomes a copy of its own. It is for a process
// that gives the session up while a handler of its own does not end, and hence may write when the next one serves.
func (s *stateFile) sever() error {
	_, err := unix.MmapPtr(int(s.file.Fd()), 0, unsafe.Pointer(&s.mem[0]), stateSize,
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("giving up the session's state: %w", err)
	}
	return nil
}

// close gives the state back; others may hold the file.
func (s *stateFile) close() {
	_ = unix.Munmap(s.mem)
	s.mem = nil
	_ = s.file.Close()
}

// u32 and u64 are numbers in the state that are written in one step. Every offset in use is a multiple of
// their size, and a mapping begins at a page.
func (s *stateFile) u32(off uint64) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s.mem[off]))
}

func (s *stateFile) u64(off uint64) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&s.mem[off]))
}

// init is the kernel's INIT, empty before it came.
func (s *stateFile) init() []byte {
	n := s.u32(stateInitLen).Load()
	return s.mem[stateInit : stateInit+uint64(n)]
}

// saveInit keeps INIT, which the kernel sends once.
func (s *stateFile) saveInit(msg []byte) error {
	if len(msg) > stateInitMost {
		return fmt.Errorf("the kernel's INIT has %d bytes", len(msg))
	}
	copy(s.mem[stateInit:], msg)
	s.u32(stateInitLen).Store(uint32(len(msg)))
	return nil
}

// born is when the session began.
func (s *stateFile) born() time.Time {
	return time.Unix(0, int64(s.u64(stateBorn).Load()))
}

// resumes is how many processes took the session over.
func (s *stateFile) resumes() int64 { return int64(s.u64(stateResumes).Load()) }

// settled reports whether the mount was settled.
func (s *stateFile) settled() bool { return s.u32(stateSettled).Load() != 0 }

// settle notes that the mount was settled.
func (s *stateFile) settle() { s.u32(stateSettled).Store(1) }

// device is the mount's device number, 0 where this state's processes do not know it.
func (s *stateFile) device() uint64 { return s.u64(stateDevice).Load() }

// saveDevice keeps the mount's device number.
func (s *stateFile) saveDevice(dev uint64) { s.u64(stateDevice).Store(dev) }

// space is the namespace of process ids in which the mount was made, 0 where it is not known.
func (s *stateFile) space() uint64 { return s.u64(stateSpace).Load() }

// saveSpace keeps the namespace of process ids in which the mount was made.
func (s *stateFile) saveSpace(space uint64) { s.u64(stateSpace).Store(space) }

// leave notes that this process stops to serve, and is not dying over what it serves.
func (s *stateFile) leave() { s.u32(stateLeft).Store(1) }

// tookOver reports whether the last process died, and not left; from now on it is about this one.
func (s *stateFile) tookOver() (died bool) { return s.u32(stateLeft).Swap(0) == 0 }

// deaths are when processes died over requests, the oldest first.
func (s *stateFile) deaths() []time.Time {
	var died []time.Time
	for i := range uint64(deathsKept) {
		if at := s.u64(stateDeaths + 8*i).Load(); at != 0 {
			died = append(died, time.Unix(0, int64(at)))
		}
	}
	return died
}

// saveDeaths keeps the last of the deaths.
func (s *stateFile) saveDeaths(died []time.Time) {
	died = died[max(0, len(died)-deathsKept):]
	for i := range deathsKept {
		at := uint64(0)
		if i < len(died) {
			at = uint64(died[i].UnixNano())
		}
		s.u64(stateDeaths + 8*uint64(i)).Store(at)
	}
}

// nextHandle is a number that no handle of the session had before.
func (s *stateFile) nextHandle() uint64 { return s.u64(stateHandle).Add(1) }

// noteBacking keeps the highest backing id.
func (s *stateFile) noteBacking(id int32) {
	highest := s.u32(stateBacking)
	for now := highest.Load(); uint32(id) > now && !highest.CompareAndSwap(now, uint32(id)); {
		now = highest.Load()
	}
}

func (s *stateFile) highestBacking() int32 { return int32(s.u32(stateBacking).Load()) }

// kind and size of a record.
func (s *stateFile) kind(r record) recordKind { return recordKind(s.u32(uint64(r)).Load()) }
func (s *stateFile) size(r record) uint64     { return uint64(s.u32(uint64(r) + 4).Load()) }

// commit gives a record its kind, after all else in it.
func (s *stateFile) commit(r record, kind recordKind) { s.u32(uint64(r)).Store(uint32(kind)) }

// bytes are a record's, its head included.
func (s *stateFile) bytes(r record) []byte {
	return s.mem[uint64(r) : uint64(r)+s.size(r)]
}

// check walks all records, so that a damaged state is refused as a whole and not met later. Free records
// go to the allocator.
func (s *stateFile) check() error {
	end := s.u64(stateEnd).Load()
	if end < stateRecords || end > stateSize || end%recordUnit != 0 {
		return fmt.Errorf("%w: its records end at %d", ErrState, end)
	}
	for off := uint64(stateRecords); off < end; {
		r := record(off)
		size := s.size(r)
		if size == 0 || size > recordMost || size%recordUnit != 0 || off+size > end {
			return fmt.Errorf("%w: the record at %d has %d bytes", ErrState, off, size)
		}
		switch kind := s.kind(r); {
		case kind == recordFree:
			s.free.put(r, size)
		case kind >= recordKinds:
			return fmt.Errorf("%w: the record at %d is of the kind %d", ErrState, off, s.kind(r))
		}
		off += size
	}
	return nil
}

// each calls f for every record of the kind.
func (s *stateFile) each(kind recordKind, f func(record) error) error {
	end := s.u64(stateEnd).Load()
	for off := uint64(stateRecords); off < end; off += s.size(record(off)) {
		if s.kind(record(off)) == kind {
			if err := f(record(off)); err != nil {
				return err
			}
		}
	}
	return nil
}
