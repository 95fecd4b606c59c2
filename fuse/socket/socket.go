// Package socket makes and dials the unix sockets of millrace: private to the user that made them from
// the first moment on, of any length of path, taking the place of those that a dead process left, and
// with a peer whose credentials the kernel vouches for.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxSocketPath is the longest path in bytes that fits sockaddr_un (unix(7)).
	maxSocketPath = 107
	// probeTimeout is how long a socket may take to accept when we ask whether anybody is there.
	probeTimeout = time.Second
)

// ErrInUse says that another process answers on a socket.
var ErrInUse = errors.New("another process answers on it")

// Listen makes a unix socket at path that only its owner and root can connect to. It is bound
// in a fresh directory that no other user can enter, made 0600 there, and then renamed, so it is
// never reachable with wider permissions. A socket that is left there by a process
// that has gone is replaced; one that answers is ErrInUse; anything else at path is
// fs.ErrExist. Paths may be longer than sockaddr_un allows. Closing the listener removes the
// socket, unless another one has taken its place.
func Listen(path string) (net.Listener, error) {
	l, err := bind(path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

func bind(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	// Two processes that find the same dead socket must not replace each other's new one.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	if err := clearSocket(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(filepath.Dir(path), ".millrace-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(private) }()
	l, err := bindIn(private)
	if err != nil {
		return nil, err
	}
	bound := filepath.Join(private, "s")
	st, err := os.Lstat(bound)
	if err == nil {
		err = os.Rename(bound, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return &listener{UnixListener: l, path: path, made: st}, nil
}

// bindIn makes the socket "s" in the directory private, with mode 0600. It goes through
// /proc/self/fd so that the address is short whatever the directory's path is.
func bindIn(private string) (*net.UnixListener, error) {
	dir, err := os.OpenFile(private, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	name := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/s"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(name, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// clearSocket makes sure that path is free, removing a socket on which no process answers.
func clearSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w and is no socket", fs.ErrExist)
	}
	if Answers(path) {
		return ErrInUse
	}
	return os.Remove(path)
}

// Answers reports whether a process listens on the socket at path. It is false only when the
// kernel says that none does: a process that is too slow to accept is there.
func Answers(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	c, err := Dial(ctx, path)
	if err == nil {
		_ = c.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
}

// Dial connects to the socket at path, which may be longer than sockaddr_un allows.
func Dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= maxSocketPath {
		return d.DialContext(ctx, "unix", path)
	}
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(int(f.Fd())))
}

// listener is a unix listener that knows the name its socket was given.
type listener struct {
	*net.UnixListener
	path string
	made os.FileInfo
	once sync.Once
}

// Close stops listening and removes the socket if it is still the one that Listen made.
func (l *listener) Close() error {
	l.once.Do(func() {
		if st, err := os.Lstat(l.path); err == nil && os.SameFile(st, l.made) {
			_ = os.Remove(l.path)
		}
	})
	return l.UnixListener.Close()
}

// Addr is the socket's name.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Peer is the user and the process at the other end of a unix connection, as the kernel knows it (SO_PEERCRED,
// unix(7)): the credentials at the time of connect, which the peer cannot forge. It is nil where that
// cannot be told.
func Peer(c net.Conn) *unix.Ucred {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cred == nil {
		return nil
	}
	return cred
}

// MayAsk reports whether a peer is the user of this process, or root.
func MayAsk(peer *unix.Ucred) bool { return ownerOrRoot(peer, os.Geteuid()) }

func ownerOrRoot(peer *unix.Ucred, self int) bool {
	return peer != nil && (peer.Uid == 0 || int(peer.Uid) == self)
}
