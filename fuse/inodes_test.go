package fuse

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// TestInodeNumbers: identities that fold alike get numbers of their own, which another process gives too, whatever it
// is asked about first.
func TestInodeNumbers(t *testing.T) {
	state := testState(t)
	table := newNodeTable(state)
	numbers := newInodeNumbers(state)
	const high = 1 << 32
	ids := []uint64{
		7, 6 | 1*high, 5 | 2*high, 4 | 3*high, // all fold to 7
		8,                             // the next number, which a moved one has taken
		rootID ^ 5 | 5*high,           // folds to the root's
		0xfffffff0 | 0x0000000f*high,  // folds to FUSE_UNKNOWN_INO
		0xdeadbeef | 0xdeadbeef*high,  // folds to 0
		0xffffffff_00000000 | 0x1,     // wraps past the largest
		0xfffffffe,                    // the largest that a file may have
		0xfffffffe ^ 0x10 | 0x10*high, // and one that wants the same
		cacheclient.RootID,
	}
	told, seen := map[uint64]uint64{}, map[uint64]uint64{}
	for i, id := range ids {
		number := numbers.of(id)
		if number == 0 || number >= unknownNumber || number == rootID && id != rootID {
			t.Errorf("%#x has the number %#x", id, number)
		}
		if other, taken := seen[number]; taken {
			t.Errorf("%#x and %#x have the number %#x", id, other, number)
		}
		told[id], seen[number] = number, id
		if id != rootID {
			name := fmt.Sprint("f", i)
			if _, err := table.add(table.get(rootID), name, cacheclient.Info{Path: name, ID: id}); err != nil {
				t.Fatal(err)
			}
		}
	}
	next := mustSucceed(t, state)
	nodes := newNodeTable(next)
	if err := nodes.load(); err != nil {
		t.Fatal(err)
	}
	again := newInodeNumbers(next)
	if err := again.load(nodes); err != nil {
		t.Fatal(err)
	}
	for i := len(ids) - 1; i >= 0; i-- {
		if got := again.of(ids[i]); got != told[ids[i]] {
			t.Errorf("%#x has the number %#x, and in the next process %#x", ids[i], told[ids[i]], got)
		}
	}
}

// FuzzInodeNumbers: whatever comes, a number is one file's.
func FuzzInodeNumbers(f *testing.F) {
	f.Add([]byte{7, 0, 6, 1, 5, 2, 255, 255, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		numbers := newInodeNumbers(testState(t))
		seen := map[uint64]uint64{}
		for ; len(data) >= 2; data = data[2:] {
			// Few different halves, so that many fold alike.
			id := uint64(int8(data[0]))&0xffffffff | uint64(data[1])<<32
			if id <= rootID {
				continue
			}
			number := numbers.of(id)
			if other, taken := seen[number]; taken && other != id || number <= rootID || number >= unknownNumber {
				t.Fatalf("%#x and %#x have the number %#x", id, other, number)
			}
			seen[number] = id
		}
	})
}

// TestInode32: with Inode32 the numbers of stat(2), and those of listings, are the same and fit 32 bits.
func TestInode32(t *testing.T) {
	source := t.TempDir()
	const files = 500
	for i := range files {
		write(t, source, fmt.Sprintf("d/f%d", i), nil)
	}
	_, dir := mountLocal(t, newLocalClient(source), func(c *Config) { c.Inode32 = true })
	fd, err := unix.Open(filepath.Join(dir, "d"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	seen := map[uint64]string{}
	for _, e := range direntsFrom(t, fd) {
		if e.Name == ".." {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, e.Name, &st, 0); err != nil {
			t.Fatal(err)
		}
		if st.Ino != e.Ino || st.Ino >= unknownNumber || seen[st.Ino] != "" {
			t.Errorf("%s: stat tells %#x, the listing %#x; %q has that number too", e.Name, st.Ino, e.Ino, seen[st.Ino])
		}
		seen[st.Ino] = e.Name
	}
	if len(seen) != files+1 {
		t.Errorf("%d numbers for %d files and their directory", len(seen), files)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Ino != rootID {
		t.Errorf("the root has the number %#x, %v", st.Ino, err)
	}
}
