package keeper

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/handover"
)

// What a child says, one byte each.
const (
	// sayKept comes with the device and the state, once the mount answers.
	sayKept = 'k'
	// sayServing is what a successor says once it serves.
	sayServing = 's'
	// sayEnded comes before an exit that is meant, whatever its code.
	sayEnded = 'e'
)

// handedOver is the number of descriptors that a successor gets behind its socket.
const handedOver = 2

// hear receives one byte and the descriptors with it. It fails at the child's end.
func hear(c *net.UnixConn) (said byte, files []*os.File, err error) {
	var text [1]byte
	control := make([]byte, unix.CmsgSpace(4*handedOver))
	n, controlled, _, _, err := c.ReadMsgUnix(text[:], control)
	if err != nil {
		return 0, nil, err
	}
	if n == 0 {
		return 0, nil, io.EOF
	}
	files, err = handover.FilesIn(control[:controlled])
	return text[0], files, err
}

// unixConn makes a connection of a descriptor, which it takes.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "keeper")
	defer func() { _ = file.Close() }()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("the keeper's socket: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("the keeper's socket is no unix socket")
	}
	return u, nil
}
