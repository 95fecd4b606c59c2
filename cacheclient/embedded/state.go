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

	"millrace.io/millrace/cacheclient"
)

// The state of a cached file, in a file of its own beside the data:
//
//	magic      8 bytes
//	length     4 bytes, little endian, of the header
//	checksum   4 bytes, CRC-32C of the header
//	header     JSON, then zeros up to slotsAt
//	slots      8 bytes for each block: CRC-32C of its data, CRC-32C of (number, data CRC, header CRC)
//	seal       36 bytes, once the file is whole (seal.go)
//
// A slot is written after its block's data, in one write, and is all zeros before: a process
// that dies between the two leaves the block absent. A slot whose second half does not
// match is absent too, so a torn or foreign state never vouches for data. The data
// itself is checked against the slot before the first use by a new process.
const (
	stateMagic  = "millrac1"
	stateFixed  = 16
	maxHeader   = 64 << 10
	slotSize    = 8
	statePage   = 4096
	dataSuffix  = ".data"
	stateSuffix = ".state"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errBadState = errors.New("the state is damaged")

// header names the version that a data file holds.
type header struct {
	Path      string    `json:"path"`
	Size      int64     `json:"size"`
	ModTime   time.Time `json:"modTime"`
	Mode      uint32    `json:"mode,omitempty"`
	Version   string    `json:"version,omitempty"`
	BlockSize int64     `json:"blockSize"`
}

func (h header) info() cacheclient.Info {
	return cacheclient.Identify(cacheclient.Info{
		Path: h.Path, Size: h.Size, ModTime: h.ModTime, Mode: os.FileMode(h.Mode), Version: h.Version,
	})
}

func headerOf(i cacheclient.Info) header {
	return header{
		Path: i.Path, Size: i.Size, ModTime: i.ModTime, Mode: uint32(i.Mode), Version: i.Version,
		BlockSize: BlockSize,
	}
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

// createState writes a state that vouches for no block.
func createState(name string, h header) (*stateFile, error) {
	enc, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the state of %q: %w", h.Path, err)
	}
	if len(enc) > maxHeader {
		return nil, fmt.Errorf("the path of %q is too long for a cache state", h.Path)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	sum := crc32.Checksum(enc, castagnoli)
	buf := make([]byte, 0, stateFixed+len(enc))
	buf = append(buf, stateMagic...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(enc)))
	buf = binary.LittleEndian.AppendUint32(buf, sum)
	buf = append(buf, enc...)
	if _, err := f.WriteAt(buf, 0); err != nil {
		_ = f.Close()
		return nil, err
	}
	return &stateFile{f: f, sum: sum, slotsAt: slotsOffset(len(enc))}, nil
}

// openState reads a state back: its header and the slots that hold.
func openState(f *os.File) (*stateFile, header, map[int64]uint32, error) {
	var fixed [stateFixed]byte
	if _, err := f.ReadAt(fixed[:], 0); err != nil || string(fixed[:8]) != stateMagic {
		return nil, header{}, nil, errBadState
	}
	n := int(binary.LittleEndian.Uint32(fixed[8:]))
	if n > maxHeader {
		return nil, header{}, nil, errBadState
	}
	enc := make([]byte, n)
	if _, err := f.ReadAt(enc, stateFixed); err != nil {
		return nil, header{}, nil, errBadState
	}
	s := &stateFile{f: f, sum: binary.LittleEndian.Uint32(fixed[12:]), slotsAt: slotsOffset(n)}
	var h header
	if crc32.Checksum(enc, castagnoli) != s.sum || json.Unmarshal(enc, &h) != nil ||
		h.BlockSize != BlockSize || h.Size <= 0 {
		return nil, header{}, nil, errBadState
	}
	slots, err := s.slots(blocksIn(h.Size))
	if err != nil {
		return nil, header{}, nil, errBadState
	}
	return s, h, slots, nil
}

// slots returns the data checksum of each block that the state vouches for. It never
// reads more than the state file has, whatever its header claims.
func (s *stateFile) slots(blocks int64) (map[int64]uint32, error) {
	st, err := s.f.Stat()
	if err != nil {
		return nil, err
	}
	have := min(blocks, max(0, (st.Size()-s.slotsAt+slotSize-1)/slotSize))
	buf := make([]byte, have*slotSize)
	if _, err := s.f.ReadAt(buf, s.slotsAt); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	found := make(map[int64]uint32)
	for b := range have {
		slot := buf[b*slotSize:][:slotSize]
		sum := binary.LittleEndian.Uint32(slot)
		if check := binary.LittleEndian.Uint32(slot[4:]); check != 0 && check == s.check(b, sum) {
			found[b] = sum
		}
	}
	return found, nil
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

func (s *stateFile) close() error { return s.f.Close() }
