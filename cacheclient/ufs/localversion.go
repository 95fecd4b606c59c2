package ufs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// The values of the option validate of directories.
const (
	// validateAll tells versions apart by all that stat(2) tells: size, times and inode.
	validateAll = "all"
	// validateTime tells them apart by size and modification time: several servers that have copies of one tree, such as
	// a farm behind one NFS name, differ in the rest.
	validateTime = "time"
)

// timeOnly reads the option validate.
func timeOnly(value string) (bool, error) {
	switch value {
	case validateAll:
		return false, nil
	case validateTime:
		return true, nil
	}
	return false, fmt.Errorf("option validate is %q; accepted are %s and %s", value, validateAll, validateTime)
}

// marks tells the versions of files apart that have one size and one modification time, as a file that was replaced by
// a build whose times are normalised: by the inode, and by the time at which the inode changed last, which no
// program can set. A chmod or a hard link changes it, too; reading does not. D-160 says more.
type marks struct {
	// timeOnly is the option validate=time.
	timeOnly bool
	// volatile remembers by device whether the file system gives a file another inode number after a while.
	volatile sync.Map
}

// of is the version of a file, "" with validate=time. open opens the file, or its path, for statfs(2).
func (m *marks) of(st *unix.Stat_t, open func() (int, error)) string {
	if m.timeOnly {
		return ""
	}
	b := make([]byte, 0, 40)
	if !m.isVolatile(st.Dev, open) {
		b = strconv.AppendUint(b, st.Ino, 36)
	}
	sec, nsec := st.Ctim.Unix()
	b = strconv.AppendInt(append(b, inodeEnd), sec, 36)
	return string(strconv.AppendInt(append(b, '.'), nsec, 36))
}

// inodeEnd ends the inode number in a version.
const inodeEnd = '@'

// isVolatile reports whether inode numbers of a device come and go: those of FUSE servers and FAT are given anew once
// the kernel has forgotten the file.
func (m *marks) isVolatile(device uint64, open func() (int, error)) bool {
	if known, ok := m.volatile.Load(device); ok {
		return known == true
	}
	fd, err := open()
	if err != nil {
		// The file has gone, so that its version does not matter.
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	var system unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || unix.Fstatfs(fd, &system) != nil {
		return false
	}
	volatile := volatileType(system.Type)
	m.volatile.Store(st.Dev, volatile)
	return volatile && st.Dev == device
}

// volatileType reports whether a type of file system, as statfs(2) tells it, makes inode numbers up.
func volatileType(magic int64) bool {
	switch magic {
	case unix.FUSE_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC:
		return true
	}
	return false
}

// isVersion reports whether an open file is the version that was asked for. With no_check_updated a file that grew is
// as good, but not another one of that name.
func (s *localStore) isVersion(f *os.File, st *unix.Stat_t, want cacheclient.Info) bool {
	version := s.marks.of(st, func() (int, error) { return unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) })
	if s.opt.NoCheckUpdated {
		return st.Size >= want.Size && sameInode(version, want.Version)
	}
	if st.Size != want.Size || !time.Unix(st.Mtim.Unix()).Equal(want.ModTime) {
		return false
	}
	// A version without a mark is of a session that an earlier release began, or of an Alluxio that has none.
	return want.Version == "" || version == "" || version == want.Version
}

// sameInode reports whether two versions may be of one inode.
func sameInode(a, b string) bool {
	x, _, knownX := strings.Cut(a, string(inodeEnd))
	y, _, knownY := strings.Cut(b, string(inodeEnd))
	return !knownX || !knownY || x == y
}

const (
	// tick is longer than the kernel's clock of files stands still: a file that is written twice within that time has
	// one time for both.
	tick = 20 * time.Millisecond
	// coarseTick is the same of a file system that keeps whole seconds.
	coarseTick = time.Second
)

// unsettled is how long to wait until a write would show in the times of a file: bytes that are read before could be
// those of an earlier write with the same times.
func unsettled(st *unix.Stat_t, now time.Time) time.Duration {
	granule := tick
	changed := time.Unix(st.Ctim.Unix())
	if changed.Nanosecond() == 0 && st.Mtim.Nsec == 0 {
		granule = coarseTick
	}
	age := now.Sub(changed)
	if age >= granule || age < -granule {
		// A change in the future is of a clock that is not ours.
		return 0
	}
	return min(granule-age, granule)
}
