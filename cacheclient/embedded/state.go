package embedded

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// The state of a cached file, in a file of its own beside the data:
//
//	magic      8 bytes
//	length     4 bytes, little endian, of the header
//	checksum   4 bytes, CRC-32C of the header
//	confirmed  16 bytes: when the source told last that it has this version, in seconds (8) and nanoseconds (4), and
//	           the CRC-32C of these and the header's CRC (4); zeros before
//	header     JSON, then zeros up to slotsAt
//	slots      8 bytes for each block: CRC-32C of its data, CRC-32C of (number, data CRC, header CRC)
//	seal       36 bytes, once the file is whole (seal.go)
//
// A slot is written after its block's data, in one write, and is all zeros before: a process
// that dies between the two leaves the block absent. A slot whose second half does not
// match is absent too, so a torn or foreign state never vouches for data. The data
// itself is checked against the slot before the first use by a new process.
// D-130 says why names are bytes and times are numbers there.
const (
	stateMagic  = "millrac2"
	confirmedAt = 16
	stateFixed  = 32
	maxHeader   = 64 << 10
	slotSize    = 8
	slotsAtOnce = 8 << 10
	statePage   = 4096
	dataSuffix  = ".data"
	stateSuffix = ".state"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// errBadState says that a cached file is proven not to hold. Only then it is removed.
	errBadState = errors.New("the state is damaged")
	// errNotKept says that no tier can keep this file, whatever its room.
	errNotKept = errors.New("it cannot be kept in a tier")
)

// header names the version that a data file holds. Names and versions are bytes: JSON would replace what is not UTF-8.
type header struct {
	Path    []byte `json:"path"`
	Version []byte `json:"version,omitempty"`
	Size    int64  `json:"size"`
	// Sec and Nsec are the modification time since 1970: JSON knows no year after 9999.
	Sec  int64 `json:"sec"`
	Nsec int64 `json:"nsec,omitempty"`
	// Mode is missing where the source does not tell it.
	Mode      *uint32 `json:"mode,omitempty"`
	BlockSize int64   `json:"blockSize"`
}

func (h header) info() cacheclient.Info {
	i := cacheclient.Info{
		Path: string(h.Path), Size: h.Size, ModTime: time.Unix(h.Sec, h.Nsec).UTC(), Version: string(h.Version),
	}
	if h.Mode != nil {
		i.Mode, i.ModeKnown = os.FileMode(*h.Mode), true
	}
	return cacheclient.Identify(i)
}

func headerOf(i cacheclient.Info) header {
	h := header{
		Path: []byte(i.Path), Version: []byte(i.Version), Size: i.Size,
		Sec: i.ModTime.Unix(), Nsec: int64(i.ModTime.Nanosecond()), BlockSize: BlockSize,
	}
	if i.ModeKnown {
		mode := uint32(i.Mode)
		h.Mode = &mode
	}
	return h
}

// stateFile is the open state of one cached file. Its methods are safe for different
// blocks at once.
type stateFile struct {
	f       *os.File
	sum     uint32
	slotsAt int64
}

// slotsOffset is where the slots begin: they never share a page with the header.
func slotsOffset(headerLen int) int64 {
	return (int64(stateFixed+headerLen) + statePage - 1) / statePage * statePage
}

// createState writes a state that vouches for no block. A file of that name must not be there.
func createState(name string, h header) (*stateFile, error) {
	enc, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("%w: its state cannot be written: %w", errNotKept, err)
	}
	if len(enc) > maxHeader {
		return nil, fmt.Errorf("%w: its path has %d bytes", errNotKept, len(h.Path))
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	sum := crc32.Checksum(enc, castagnoli)
	buf := make([]byte, 0, stateFixed+len(enc))
	buf = append(buf, stateMagic...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(enc)))
	buf = binary.LittleEndian.AppendUint32(buf, sum)
	buf = append(buf[:stateFixed], enc...)
	if _, err := f.WriteAt(buf, 0); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &stateFile{f: f, sum: sum, slotsAt: slotsOffset(len(enc))}, nil
}

// readHeader reads the header of a state, and when the source confirmed the version last.
func readHeader(f *os.File) (s *stateFile, h header, confirmed time.Time, err error) {
	page := make([]byte, statePage)
	n, err := f.ReadAt(page, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h, confirmed, err
	}
	if n < stateFixed || string(page[:8]) != stateMagic {
		return nil, h, confirmed, errBadState
	}
	length := int(binary.LittleEndian.Uint32(page[8:]))
	if length > maxHeader {
		return nil, h, confirmed, errBadState
	}
	enc := page[stateFixed:n]
	if length > len(enc) {
		enc = make([]byte, length)
		if err := readAll(f, enc, stateFixed); err != nil {
			return nil, h, confirmed, err
		}
	}
	enc = enc[:length]
	s = &stateFile{f: f, sum: binary.LittleEndian.Uint32(page[12:]), slotsAt: slotsOffset(length)}
	if crc32.Checksum(enc, castagnoli) != s.sum || json.Unmarshal(enc, &h) != nil || !h.holds() {
		return nil, header{}, confirmed, errBadState
	}
	return s, h, s.confirmed(page[confirmedAt:stateFixed]), nil
}

// holds reports whether the header can be one of ours.
func (h header) holds() bool {
	return h.BlockSize == BlockSize && h.Size > 0 && border.Size(h.Size) == nil
}

// openState reads a state back: its header and the slots that hold.
func openState(f *os.File) (*stateFile, header, map[int64]uint32, error) {
	s, h, _, err := readHeader(f)
	if err != nil {
		return nil, h, nil, err
	}
	slots, err := s.slots(blocksIn(h.Size))
	if err != nil {
		return nil, header{}, nil, err
	}
	return s, h, slots, nil
}

// readAll fills the buffer from an offset. A file that ends before is damaged.
func readAll(f *os.File, buf []byte, off int64) error {
	_, err := f.ReadAt(buf, off)
	if errors.Is(err, io.EOF) {
		return errBadState
	}
	return err
}

// slots returns the data checksum of each block that the state vouches for. It reads only what the state file has,
// whatever its header claims, and passes over holes.
func (s *stateFile) slots(blocks int64) (map[int64]uint32, error) {
	st, err := s.f.Stat()
	if err != nil {
		return nil, err
	}
	found := make(map[int64]uint32)
	end := min(blocks, (st.Size()-s.slotsAt)/slotSize)
	buf := make([]byte, min(max(end, 0), slotsAtOnce)*slotSize)
	for b := int64(0); b < end; {
		if b = s.written(b); b >= end {
			break
		}
		n := min(end-b, slotsAtOnce)
		if err := readAll(s.f, buf[:n*slotSize], s.slotsAt+b*slotSize); err != nil {
			return nil, err
		}
		for i := range n {
			slot := buf[i*slotSize:][:slotSize]
			sum := binary.LittleEndian.Uint32(slot)
			if check := binary.LittleEndian.Uint32(slot[4:]); check != 0 && check == s.check(b+i, sum) {
				found[b+i] = sum
			}
		}
		b += n
	}
	return found, nil
}

// written is the first slot from the one given on that is not in a hole of the file, itself where that is not told.
func (s *stateFile) written(slot int64) int64 {
	at, err := unix.Seek(int(s.f.Fd()), s.slotsAt+slot*slotSize, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return 1 << 62
	case err != nil:
		return slot
	}
	return max(slot, (at-s.slotsAt)/slotSize)
}

func (s *stateFile) check(block int64, sum uint32) uint32 {
	var buf [16]byte
	binary.LittleEndian.PutUint64(buf[:], uint64(block))
	binary.LittleEndian.PutUint32(buf[8:], sum)
	binary.LittleEndian.PutUint32(buf[12:], s.sum)
	return crc32.Checksum(buf[:], castagnoli)
}

// set vouches for a block whose data is written.
func (s *stateFile) set(block int64, sum uint32) error {
	var slot [slotSize]byte
	binary.LittleEndian.PutUint32(slot[:], sum)
	binary.LittleEndian.PutUint32(slot[4:], s.check(block, sum))
	_, err := s.f.WriteAt(slot[:], s.slotsAt+block*slotSize)
	return err
}

// clear takes the word for a block back.
func (s *stateFile) clear(block int64) error {
	var slot [slotSize]byte
	_, err := s.f.WriteAt(slot[:], s.slotsAt+block*slotSize)
	return err
}

// confirm notes that the source had this version at that time. The data file is not touched: that would break its seal.
func (s *stateFile) confirm(at time.Time) error {
	var buf [stateFixed - confirmedAt]byte
	binary.LittleEndian.PutUint64(buf[:], uint64(at.Unix()))
	binary.LittleEndian.PutUint32(buf[8:], uint32(at.Nanosecond()))
	binary.LittleEndian.PutUint32(buf[12:], crc32.Update(s.sum, castagnoli, buf[:12]))
	_, err := s.f.WriteAt(buf[:], confirmedAt)
	return err
}

// confirmed is the time that confirm wrote, zero where none holds.
func (s *stateFile) confirmed(buf []byte) time.Time {
	if binary.LittleEndian.Uint32(buf[12:]) != crc32.Update(s.sum, castagnoli, buf[:12]) {
		return time.Time{}
	}
	return time.Unix(int64(binary.LittleEndian.Uint64(buf)), int64(binary.LittleEndian.Uint32(buf[8:])))
}

func (s *stateFile) close() error { return s.f.Close() }
