package embedded

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A seal says that all of a data file was there and right, and which file that was: the boot of the machine, and
// the file's inode and time of change, which no write to the file leaves as it is. A process that finds it
// unbroken trusts the blocks without checking them again, so that a restart costs a large file nothing. After a power
// cut the boot is another one, after a crash before the seal there is none, and the blocks are checked.
//
// It is 36 bytes behind the slots: the boot (16), the inode (8) and the time in nanoseconds (8), little
// endian, and the CRC-32C of these and the header's CRC (4).
// D-018 says why.
const sealSize = 36

// boot is the identity of the running kernel, zeros where it is not told, and then nothing is sealed.
var boot = sync.OnceValue(func() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err == nil && len(raw) == len(id) {
		copy(id[:], raw)
	}
	return id
})

// sealOf is the seal of the data file as it is now, and the time of change in it; false where none can be made.
func (s *stateFile) sealOf(data *os.File) (seal [sealSize]byte, changed int64, ok bool) {
	id := boot()
	var st unix.Stat_t
	if id == [16]byte{} || unix.Fstat(int(data.Fd()), &st) != nil {
		return seal, 0, false
	}
	changed = st.Ctim.Nano()
	copy(seal[:], id[:])
	binary.LittleEndian.PutUint64(seal[16:], st.Ino)
	binary.LittleEndian.PutUint64(seal[24:], uint64(changed))
	sum := crc32.Update(s.sum, castagnoli, seal[:sealSize-4])
	binary.LittleEndian.PutUint32(seal[sealSize-4:], sum)
	return seal, changed, true
}

// seal vouches for all of a data file of so many blocks, and returns its time of change, 0 where it cannot.
func (s *stateFile) seal(data *os.File, blocks int64) (changed int64) {
	seal, changed, ok := s.sealOf(data)
	if !ok {
		return 0
	}
	if _, err := s.f.WriteAt(seal[:], s.slotsAt+blocks*slotSize); err != nil {
		return 0
	}
	return changed
}

// sealed returns the time of change of a data file of so many blocks whose seal is unbroken, else 0.
func (s *stateFile) sealed(data *os.File, blocks int64) (changed int64) {
	want, changed, ok := s.sealOf(data)
	var got [sealSize]byte
	if _, err := s.f.ReadAt(got[:], s.slotsAt+blocks*slotSize); err != nil || !ok || got != want {
		return 0
	}
	return changed
}
