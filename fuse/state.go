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
//	4096   records, each a multiple of 64 bytes long
//
// A record begins with its kind and its size, uint32 each. All numbers are little endian.
const (
	stateMagic   = "MILLRACE"
	stateVersion = 1

	stateInitLen  = 16
	stateBorn     = 24
	stateResumes  = 32
	stateHandle   = 40
	stateEnd      = 48
	stateBacking  = 56
	stateSettled  = 60
	stateDevice   = 64
	stateInit     = 72
	stateRecords  = 4096
	stateInitMost = stateRecords - stateInit

	// stateSize bounds the state, in bytes; memory is used as records need it. A node takes 128 bytes
	// as a rule.
	stateSize = 1 << 30
	// stateSeals keep the file's size, so that nobody who has it can make the mapping fault.
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
)

// record is the offset of a record in the state, 0 for none.
type record uint64

// stateFile is the state, mapped. Its owners lock: the table of nodes for the records of nodes, the table of
// open files for those of handles; the allocator has a lock of its own, in freeRecords.
type stateFile struct {
	file *os.File
	mem  []byte
	free freeRecords
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
	case version != stateVersion:
		err = fmt.Errorf("%w: its format is %d, and this build reads %d", ErrState, version, stateVersion)
	case s.u32(stateInitLen).Load() > stateInitMost:
		err = fmt.Errorf("%w: its INIT is too long", ErrState)
	default:
		err = s.check()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.u64(stateResumes).Add(1)
	return s, nil
}

// mapState maps the file, which it owns from then on.
func mapState(file *os.File) (*stateFile, error) {
	mem, err := unix.Mmap(int(file.Fd()), 0, stateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("mapping the session's state: %w", err)
	}
	return &stateFile{file: file, mem: mem}, nil
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

// settled tells whether the mount was settled.
func (s *stateFile) settled() bool { return s.u32(stateSettled).Load() != 0 }

// settle notes that the mount was settled.
func (s *stateFile) settle() { s.u32(stateSettled).Store(1) }

// device is the mount's device number, 0 where this state's processes do not know it.
func (s *stateFile) device() uint64 { return s.u64(stateDevice).Load() }

// saveDevice keeps the mount's device number.
func (s *stateFile) saveDevice(dev uint64) { s.u64(stateDevice).Store(dev) }

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
		switch s.kind(r) {
		case recordFree:
			s.free.put(r, size)
		case recordNode, recordHandle, recordClosed:
		default:
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
