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

// MaxMessage is the longest message in bytes, its length not counted.
const MaxMessage = 1 << 20

// lengthSize is the size of a message's length in bytes.
const lengthSize = 4

// maxFiles is the most descriptors that a message carries.
const maxFiles = 2

// Op is a kind of request.
type Op string

// The requests.
const (
	OpAttach Op = "attach"
	OpList   Op = "list"
	OpTake   Op = "take"
	OpDetach Op = "detach"
	OpStats  Op = "stats"
	OpWatch  Op = "watch"
	// OpRenew gives a session the secrets that its volume has now.
	OpRenew Op = "renew"
)

// Request is what the holder asks. Files are the device and, where there is one, the state.
type Request struct {
	Op     Op         `json:"op"`
	ID     string     `json:"id,omitempty"`
	Volume *Volume    `json:"volume,omitempty"`
	Files  []*os.File `json:"-"`
}

// Reply is the agent's answer. Files are the device and the state (take), or the state (attach).
type Reply struct {
	Code   Code       `json:"code,omitempty"`
	Error  string     `json:"error,omitempty"`
	IDs    []string   `json:"ids,omitempty"`
	Volume *Volume    `json:"volume,omitempty"`
	Stats  *Stats     `json:"stats,omitempty"`
	Files  []*os.File `json:"-"`
}

// Receive reads one request. Its files belong to the caller.
func Receive(c *net.UnixConn) (Request, error) {
	var r Request
	files, err := receive(c, &r)
	r.Files = files
	return r, err
}

// Answer sends the answer; its files stay the caller's.
func Answer(c *net.UnixConn, r Reply) error { return send(c, r, r.Files) }

// Refuse sends an error as the answer.
func Refuse(c *net.UnixConn, err error) error {
	return Answer(c, Reply{Code: CodeOf(err), Error: err.Error()})
}

// CloseAll closes files, some of which may be nil.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// send writes one message with descriptors.
func send(c *net.UnixConn, message any, files []*os.File) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("a message of %d bytes is longer than %d", len(body), MaxMessage)
	}
	packet := append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	n, _, err := c.WriteMsgUnix(packet, Rights(files), nil)
	if err == nil && n < len(packet) {
		_, err = c.Write(packet[n:])
	}
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
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

// receive reads one message into into, and returns the descriptors that came with it.
func receive(c *net.UnixConn, into any) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			CloseAll(files)
			files = nil
		}
	}()
	var length [lengthSize]byte
	control := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, controlled, flags, _, err := c.ReadMsgUnix(length[:], control)
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
	if _, err := io.ReadFull(c, length[n:]); err != nil {
		return files, fmt.Errorf("receiving: %w", err)
	}
	size := binary.BigEndian.Uint32(length[:])
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
