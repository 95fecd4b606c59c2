package socket

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pace"
)

func listenOn(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestListenMakesAPrivateSocket(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "s.sock")
	l := listenOn(t, path)
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket of 0600", st.Mode())
	}
	if !Answers(path) {
		t.Error("nobody answers on the socket")
	}
	if l.Addr().String() != path {
		t.Errorf("address %s", l.Addr())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	if Answers(path) {
		t.Fatal("a closed socket answers")
	}
	l := listenOn(t, path)
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Fatalf("a second listener: %v, want ErrInUse", err)
	}
	if !Answers(path) {
		t.Error("the refused listener took the socket away")
	}
	_ = l.Close()

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: %v, want fs.ErrExist", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("the file was replaced")
	}
}

func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	first := listenOn(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listenOn(t, path)
	_ = first.Close()
	if !Answers(path) {
		t.Error("closing the first listener removed the second one's socket")
	}
}

func TestSocketPathsLongerThanSockaddr(t *testing.T) {
	for _, parts := range []int{1, 4} {
		dir := t.TempDir()
		for range parts {
			dir = filepath.Join(dir, strings.Repeat("d", 60))
		}
		path := filepath.Join(dir, strings.Repeat("n", 120)+".sock")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		l := listenOn(t, path)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.Close()
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
		c, err := Dial(ctx, path)
		cancel()
		if err != nil {
			t.Fatalf("path of %d bytes: %v", len(path), err)
		}
		_ = c.Close()
	}
}

func TestMayAsk(t *testing.T) {
	cases := []struct {
		peer *unix.Ucred
		self int
		want bool
	}{
		{&unix.Ucred{Uid: 1000}, 1000, true},
		{&unix.Ucred{Uid: 0}, 1000, true},
		{&unix.Ucred{Uid: 1001}, 1000, false},
		{&unix.Ucred{Uid: 1000}, 0, false},
		{nil, 0, false},
	}
	for _, c := range cases {
		if got := ownerOrRoot(c.peer, c.self); got != c.want {
			t.Errorf("peer %+v of a process of %d: %v", c.peer, c.self, got)
		}
	}
}

// TestAlone: a second process is refused while the first answers, and waits while that only ends.
func TestAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	first, err := Alone(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l := listenOn(t, path)
	if _, err := Alone(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("beside one that answers: %v, want ErrInUse", err)
	}
	_ = l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*alonePause)
	defer cancel()
	if _, err := Alone(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside one that ends: %v, want a wait", err)
	}
	_ = first.Close()
	second, err := Alone(t.Context(), path)
	if err != nil {
		t.Fatal("after the first:", err)
	}
	_ = second.Close()
}
