package fuse

// ioMode is how the kernel reads an open inode.
type ioMode uint8

const (
	// ioClosed: no handle is open.
	ioClosed ioMode = iota
	// ioCopy: the kernel sends READ and keeps pages.
	ioCopy
	// ioPassthrough: the kernel reads the registered backing file itself.
	ioPassthrough
)

// ioState is the mode of one inode and the number of its opens until RELEASE, which a
// live mapping delays.
//
// The kernel (fs/fuse/iomode.c) refuses with EIO an open in one mode while the inode is
// open in the other, and with EBUSY one that names another backing id. So the first open
// chooses, the following ones take over its choice, and the mode changes only at zero. A
// file that becomes wholly local while it is open in copy mode stays there until then.
// D-028 says why.
type ioState struct {
	mode  ioMode
	opens uint64
	// backing is the id of the registered backing file; 0 but in passthrough mode.
	backing int32
}

// open counts one more handle. backing is the id of a backing file registered for the
// first handle, 0 where there is none; it must be 0 for the following ones.
func (s ioState) open(backing int32) ioState {
	if s.opens == 0 {
		s = ioState{mode: ioCopy}
		if backing != 0 {
			s = ioState{mode: ioPassthrough, backing: backing}
		}
	}
	s.opens++
	return s
}

// release counts one handle less. At zero, done is the backing id to unregister, if
// any. A release without an open changes nothing.
func (s ioState) release() (next ioState, done int32) {
	if s.opens <= 1 {
		return ioState{}, s.backing
	}
	s.opens--
	return s, 0
}
