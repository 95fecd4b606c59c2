package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxMessage is the longest message in bytes, its head not counted.
const MaxMessage = 1 << 20

const (
	// headSize is the size in bytes of a message's head: the protocol's version in one, the body's length in three.
	headSize = 4
	// lengthMask is the part of the head that is the length.
	lengthMask = 1<<24 - 1
	// MaxFiles is the most descriptors that a message carries.
	MaxFiles = 2
)

// SendMessage writes one message of a protocol's version, with descriptors, which stay the caller's.
func SendMessage(c *net.UnixConn, version byte, message any, files []*os.File) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("a message of %d bytes is longer than %d", len(body), MaxMessage)
	}
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(version)<<24|uint32(len(body))), body...)
	n, _, err := c.WriteMsgUnix(packet, Rights(files), nil)
	if err == nil && n < len(packet) {
		_, err = c.Write(packet[n:])
	}
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}

// ReceiveMessage reads one message of a protocol's version into into, and returns the descriptors that came with it,
// which belong to the caller.
func ReceiveMessage(c *net.UnixConn, version byte, into any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			CloseAll(files)
			files = nil
		}
	}()
	var head [headSize]byte
	control := make([]byte, unix.CmsgSpace(4*MaxFiles))
	n, controlled, flags, _, err := c.ReadMsgUnix(head[:], control)
	if err != nil {
		return nil, fmt.Errorf("receiving: %w", err)
	}
	if files, err = FilesIn(control[:controlled]); err != nil {
		return files, err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return files, errors.New("a message carries more descriptors than it may")
	}
	if n == 0 {
		return files, io.EOF
	}
	if _, err := io.ReadFull(c, head[n:]); err != nil {
		return files, fmt.Errorf("receiving: %w", err)
	}
	if head[0] != version {
		return files, fmt.Errorf("the other side speaks version %d of the protocol; accepted is %d", head[0], version)
	}
	size := binary.BigEndian.Uint32(head[:]) & lengthMask
	if size > MaxMessage {
		return files, fmt.Errorf("a message of %d bytes is longer than %d", size, MaxMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return files, fmt.Errorf("receiving: %w", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return files, fmt.Errorf("a message is not what it should be: %w", err)
	}
	return files, nil
}

// CloseAll closes files, some of which may be nil.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// Rights is the control message that has a copy of each file come with a message; nil without files. [FilesIn] is its
// counterpart.
func Rights(files []*os.File) []byte {
	if len(files) == 0 {
		return nil
	}
	fds := make([]int, len(files))
	for i, f := range files {
		// Fd sets a descriptor to blocking, which these are.
		fds[i] = int(f.Fd())
	}
	return unix.UnixRights(fds...)
}

// FilesIn takes the descriptors out of a control message (SCM_RIGHTS). They belong to the caller, also with an error.
func FilesIn(control []byte) ([]*os.File, error) {
	if len(control) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, fmt.Errorf("descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

// CopyFile copies a descriptor.
func CopyFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copying a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
