package fuse

import (
	"encoding/binary"
	"syscall"
)

// Opcodes of the FUSE protocol, from the kernel's include/uapi/linux/fuse.h.
const (
	opLookup      = 1
	opForget      = 2
	opGetAttr     = 3
	opOpen        = 14
	opRead        = 15
	opStatFS      = 17
	opRelease     = 18
	opGetXAttr    = 22
	opListXAttr   = 23
	opFlush       = 25
	opInit        = 26
	opOpenDir     = 27
	opReadDir     = 28
	opReleaseDir  = 29
	opAccess      = 34
	opInterrupt   = 36
	opDestroy     = 38
	opIoctl       = 39
	opPoll        = 40
	opNotifyReply = 41
	opBatchForget = 42
	opReadDirPlus = 44
	opLseek       = 46
	opStatx       = 52

	// opLimit bounds the opcodes that are counted one by one.
	opLimit = 64
)

var opNames = map[uint32]string{
	opLookup: "lookup", opForget: "forget", opGetAttr: "getattr", opOpen: "open", opRead: "read",
	opStatFS: "statfs", opRelease: "release", opGetXAttr: "getxattr", opListXAttr: "listxattr",
	opFlush: "flush", opInit: "init", opOpenDir: "opendir", opReadDir: "readdir", opReleaseDir: "releasedir",
	opAccess: "access", opInterrupt: "interrupt", opDestroy: "destroy", opIoctl: "ioctl", opPoll: "poll",
	opNotifyReply: "notify_reply", opBatchForget: "batch_forget", opReadDirPlus: "readdirplus",
	opLseek: "lseek", opStatx: "statx",
}

// opName is the opcode's name in counters and logs.
func opName(op uint32) string {
	if name, ok := opNames[op]; ok {
		return name
	}
	return "other"
}

const (
	// inHeaderSize is sizeof(struct fuse_in_header).
	inHeaderSize = 40
	// outHeaderSize is sizeof(struct fuse_out_header).
	outHeaderSize = 16
	// fixedReplySize has room for the header and any reply of fixed size.
	fixedReplySize = 512
)

// inHeader is the part of struct fuse_in_header that the loop needs.
type inHeader struct {
	op     uint32
	unique uint64
	node   uint64
	// caller is the thread that asked, in the namespace of process ids of the process that mounted; 0 outside of it.
	caller uint32
}

// parseHeader reads the header of a request; it fails where the message is shorter than a
// header or than the header says.
func parseHeader(msg []byte) (inHeader, bool) {
	if len(msg) < inHeaderSize || uint64(binary.LittleEndian.Uint32(msg)) != uint64(len(msg)) {
		return inHeader{}, false
	}
	return inHeader{
		op:     binary.LittleEndian.Uint32(msg[4:]),
		unique: binary.LittleEndian.Uint64(msg[8:]),
		node:   binary.LittleEndian.Uint64(msg[16:]),
		caller: binary.LittleEndian.Uint32(msg[32:]),
	}, true
}

// readRange is what struct fuse_read_in asks for, in bytes.
type readRange struct {
	offset uint64
	size   uint32
}

// parseRead reads struct fuse_read_in (also that of READDIR) behind the header.
func parseRead(msg []byte) (readRange, bool) {
	if len(msg) < inHeaderSize+20 {
		return readRange{}, false
	}
	body := msg[inHeaderSize:]
	return readRange{
		offset: binary.LittleEndian.Uint64(body[8:]),
		size:   binary.LittleEndian.Uint32(body[16:]),
	}, true
}

// parseInterrupt reads the unique of the request that INTERRUPT names.
func parseInterrupt(msg []byte) (uint64, bool) {
	if len(msg) < inHeaderSize+8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(msg[inHeaderSize:]), true
}

// parseName reads the name of a LOOKUP.
func parseName(msg []byte) string {
	name := msg[inHeaderSize:]
	for i, c := range name {
		if c == 0 {
			return string(name[:i])
		}
	}
	return string(name)
}

// replyRoom is the number of bytes that a reply to msg may need, the header included.
func replyRoom(op uint32, msg []byte) int {
	switch op {
	case opReadDir, opReadDirPlus:
		if r, ok := parseRead(msg); ok {
			return fixedReplySize + int(r.size)
		}
	case opGetXAttr, opListXAttr:
		if len(msg) >= inHeaderSize+4 {
			return fixedReplySize + int(binary.LittleEndian.Uint32(msg[inHeaderSize:]))
		}
	case opIoctl:
		// struct fuse_ioctl_in: fh 8, flags 4, cmd 4, arg 8, in_size 4, out_size 4.
		if len(msg) >= inHeaderSize+32 {
			return fixedReplySize + int(binary.LittleEndian.Uint32(msg[inHeaderSize+28:]))
		}
	}
	return fixedReplySize
}

// uniqueResent is set in the unique of a request that the kernel sends once more (FUSE_UNIQUE_RESEND).
const uniqueResent = 1 << 63

// notifyResend asks the kernel to send again what was read and not answered (FUSE_NOTIFY_RESEND, Linux
// 6.9). A notification is a reply with the unique 0 and its code for an error.
const notifyResend = 7

// resendRequest is the notification.
func resendRequest() []byte {
	msg := make([]byte, outHeaderSize)
	binary.LittleEndian.PutUint32(msg, outHeaderSize)
	binary.LittleEndian.PutUint32(msg[4:], notifyResend)
	return msg
}

// notifyInvalInode has the kernel forget what it knows of an inode (FUSE_NOTIFY_INVAL_INODE).
const notifyInvalInode = 2

// invalidateAttributes is the notification after which the kernel asks for a node's attributes; its pages stay.
func invalidateAttributes(node uint64) []byte {
	// struct fuse_notify_inval_inode_out: ino 8, off 8, len 8. A negative offset spares the pages.
	msg := make([]byte, outHeaderSize+24)
	binary.LittleEndian.PutUint32(msg, uint32(len(msg)))
	binary.LittleEndian.PutUint32(msg[4:], notifyInvalInode)
	binary.LittleEndian.PutUint64(msg[outHeaderSize:], node)
	binary.LittleEndian.PutUint64(msg[outHeaderSize+8:], ^uint64(0))
	return msg
}

// openHandle is the handle in the reply to an OPEN.
func openHandle(reply []byte) uint64 {
	if len(reply) < outHeaderSize+8 {
		return 0
	}
	return binary.LittleEndian.Uint64(reply[outHeaderSize:])
}

// putHeader writes struct fuse_out_header for a reply of length bytes in all.
func putHeader(dst []byte, length int, errno syscall.Errno, unique uint64) {
	binary.LittleEndian.PutUint32(dst, uint32(length))
	binary.LittleEndian.PutUint32(dst[4:], uint32(-int32(errno)))
	binary.LittleEndian.PutUint64(dst[8:], unique)
}

// replyErrno is the error in a reply's header.
func replyErrno(reply []byte) syscall.Errno {
	return syscall.Errno(-int32(binary.LittleEndian.Uint32(reply[4:])))
}

// entryNode is the node id in the reply to a LOOKUP.
func entryNode(reply []byte) uint64 {
	if len(reply) < outHeaderSize+8 {
		return 0
	}
	return binary.LittleEndian.Uint64(reply[outHeaderSize:])
}
