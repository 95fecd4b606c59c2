package fuse

import (
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
)

const (
	erofs  = gofuse.Status(syscall.EROFS)
	enosys = gofuse.Status(syscall.ENOSYS)
	estale = gofuse.Status(syscall.ESTALE)
)

// readOnly refuses what a read-only file system refuses. The mount is read-only as well,
// so that the kernel asks none of the changes: EROFS here is for a mount that was
// remounted. ENOSYS makes the kernel answer by itself from then on.
type readOnly struct {
	gofuse.RawFileSystem
}

func newReadOnly() readOnly {
	return readOnly{gofuse.NewDefaultRawFileSystem()}
}

func (readOnly) SetAttr(<-chan struct{}, *gofuse.SetAttrIn, *gofuse.AttrOut) gofuse.Status {
	return erofs
}

func (readOnly) Mknod(<-chan struct{}, *gofuse.MknodIn, string, *gofuse.EntryOut) gofuse.Status {
	return erofs
}

func (readOnly) Mkdir(<-chan struct{}, *gofuse.MkdirIn, string, *gofuse.EntryOut) gofuse.Status {
	return erofs
}

func (readOnly) Unlink(<-chan struct{}, *gofuse.InHeader, string) gofuse.Status { return erofs }

func (readOnly) Rmdir(<-chan struct{}, *gofuse.InHeader, string) gofuse.Status { return erofs }

func (readOnly) Rename(<-chan struct{}, *gofuse.RenameIn, string, string) gofuse.Status {
	return erofs
}

func (readOnly) Link(<-chan struct{}, *gofuse.LinkIn, string, *gofuse.EntryOut) gofuse.Status {
	return erofs
}

func (readOnly) Symlink(<-chan struct{}, *gofuse.InHeader, string, string, *gofuse.EntryOut) gofuse.Status {
	return erofs
}

func (readOnly) SetXAttr(<-chan struct{}, *gofuse.SetXAttrIn, string, []byte) gofuse.Status {
	return erofs
}

func (readOnly) RemoveXAttr(<-chan struct{}, *gofuse.InHeader, string) gofuse.Status { return erofs }

func (readOnly) Create(<-chan struct{}, *gofuse.CreateIn, string, *gofuse.CreateOut) gofuse.Status {
	return erofs
}

func (readOnly) Tmpfile(<-chan struct{}, *gofuse.CreateIn, *gofuse.CreateOut) gofuse.Status {
	return erofs
}

func (readOnly) Write(<-chan struct{}, *gofuse.WriteIn, []byte) (uint32, gofuse.Status) {
	return 0, erofs
}

func (readOnly) Writev(<-chan struct{}, *gofuse.WriteIn, [][]byte) (uint32, gofuse.Status) {
	return 0, erofs
}

func (readOnly) Fallocate(<-chan struct{}, *gofuse.FallocateIn) gofuse.Status { return erofs }

func (readOnly) CopyFileRange(<-chan struct{}, *gofuse.CopyFileRangeIn) (uint32, gofuse.Status) {
	return 0, erofs
}

// Access is answered once: the mount has default_permissions, the kernel decides.
func (readOnly) Access(<-chan struct{}, *gofuse.AccessIn) gofuse.Status { return enosys }

// GetXAttr is answered once: there are no extended attributes.
func (readOnly) GetXAttr(<-chan struct{}, *gofuse.InHeader, string, []byte) (uint32, gofuse.Status) {
	return 0, enosys
}

// ListXAttr is answered once: there are no extended attributes.
func (readOnly) ListXAttr(<-chan struct{}, *gofuse.InHeader, []byte) (uint32, gofuse.Status) {
	return 0, enosys
}
