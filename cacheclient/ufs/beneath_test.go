package ufs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// escape is a source with links out of it, beside a directory that no client may see.
func escape(t *testing.T) (source, secret string) {
	t.Helper()
	base := t.TempDir()
	source, secret = filepath.Join(base, "source"), filepath.Join(base, "secret")
	for _, dir := range []string{filepath.Join(source, "sub"), filepath.Join(secret, "deep")} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(source, "file"), "content")
	write(t, filepath.Join(secret, "file"), "secrets")
	write(t, filepath.Join(secret, "deep", "file"), "secrets")
	for name, target := range map[string]string{
		"passwd": "/etc/passwd", "absolute": filepath.Join(secret, "file"), "up": "../secret/file",
		"dirup":  "../secret",
		"absdir": secret, "chain": "sub/out", "sub/out": "../../secret/file", "sub/in": "../file",
		"back": "../source/file",
		"root": "/", "magic": "/proc/self/root/etc/passwd", "abs in": filepath.Join(source, "file"),
	} {
		if err := os.Symlink(target, filepath.Join(source, name)); err != nil {
			t.Fatal(err)
		}
	}
	return source, secret
}

// TestLinksOutAreNotShown asks for what links lead to in every way.
func TestLinksOutAreNotShown(t *testing.T) {
	source, secret := escape(t)
	for what, opts := range map[string]Options{"default": {}, "within": {Within: []string{filepath.Dir(source)}}} {
		store := mustOpen(t, source, opts)
		if names, _ := listNames(t, store, ""); strings.Join(names, " ") != "file sub/" {
			t.Errorf("%s: %q", what, names)
		}
		if names, _ := listNames(t, store, "sub"); strings.Join(names, " ") != "in" {
			t.Errorf("%s: sub has %q", what, names)
		}
		for _, path := range []string{
			"passwd", "absolute", "up", "dirup", "dirup/file", "absdir/deep/file", "chain", "sub/out", "back",
			"root/etc/passwd", "magic", "abs in",
			"../secret/file", "sub/../../secret/file",
		} {
			if info, err := store.Stat(testContext(t), path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: stat %s: %+v, %v", what, path, info, err)
			}
			if body, err := store.Open(testContext(t), cacheclient.Info{Path: path, Size: 7}, 0, 7); !errors.Is(err,
				fs.ErrNotExist) {
				t.Errorf("%s: open %s: %v, %v", what, path, body, err)
			}
			if err := store.List(testContext(t), path, func(i cacheclient.Info) error {
				t.Errorf("%s: %s lists %+v",
					what, path, i)
				return nil
			}); err == nil {
				t.Errorf("%s: list %s: no error", what, path)
			}
		}
	}
	store := mustOpen(t, source, Options{FollowLinks: true})
	if got := readBody(t, store, "absdir/deep/file"); got != "secrets" {
		t.Errorf("with links followed: %q", got)
	}
	_ = secret
}

func readBody(t *testing.T, store Store, path string) string {
	t.Helper()
	info, err := store.Stat(testContext(t), path)
	if err != nil {
		t.Fatal(err)
	}
	body, err := store.Open(testContext(t), info, 0, info.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = body.Close() }()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLinksThatAreSwapped has a file and a directory become links out and back again all the time, under readers
// which must get what is in the source, or nothing.
func TestLinksThatAreSwapped(t *testing.T) {
	source, secret := escape(t)
	mod := time.Unix(1, 0)
	for _, dir := range []string{source, secret} {
		if err := os.MkdirAll(filepath.Join(dir, "d"), 0o750); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"f", "d/f"} {
			content := "content"
			if dir == secret {
				content = "secrets"
			}
			write(t, filepath.Join(dir, name), content)
			if err := os.Chtimes(filepath.Join(dir, name), mod, mod); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var swapper sync.WaitGroup
	swapper.Go(func() {
		for ctx.Err() == nil {
			for _, name := range []string{"f", "d"} {
				at, away := filepath.Join(source, name), filepath.Join(source, name+".away")
				if err := errors.Join(os.Rename(at, away), os.Symlink(filepath.Join("../secret", name), at),
					os.Remove(at), os.Rename(away, at)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	store := mustOpen(t, source, Options{Within: []string{source}})
	read := 0
	for ctx.Err() == nil {
		for _, path := range []string{"f", "d/f"} {
			body, err := store.Open(testContext(t), cacheclient.Info{Path: path, Size: 7, ModTime: mod}, 0, 7)
			if err != nil {
				continue
			}
			got, err := io.ReadAll(body)
			if _ = body.Close(); err == nil && string(got) != "content" {
				t.Fatalf("%s reads %q", path, got)
			}
			read++
		}
	}
	swapper.Wait()
	if read == 0 {
		t.Error("nothing was ever read")
	}
}

// TestWithin has sources in and out of the allowed directories, by their own links too.
func TestWithin(t *testing.T) {
	source, secret := escape(t)
	base := filepath.Dir(source)
	for link, to := range map[string]string{"in": source, "out": secret, "allowed": base} {
		if err := os.Symlink(to, filepath.Join(base, "link "+link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		dir    string
		within string
		ok     bool
	}{
		{source, source, true},
		{source, base, true},
		{source, filepath.Join(base, "link allowed"), true},
		{filepath.Join(base, "link in"), source, true},
		{filepath.Join(base, "link out"), source, false},
		{filepath.Join(source, "dirup"), source, false},
		{secret, source, false},
		{source + "x", source, false},
		{source, source + "x", false},
		{source, "/", true},
	} {
		store, err := Open(testContext(t), c.dir, Options{Within: []string{c.within}})
		if (err == nil) != c.ok {
			t.Errorf("%s within %s: %v", c.dir, c.within, err)
		}
		if err == nil {
			_ = store.Close()
		}
	}
	if _, err := Open(testContext(t), source, Options{Within: []string{source}, FollowLinks: true}); err == nil {
		t.Error("FollowLinks with Within: no error")
	}
	// A link that is turned round after the source was opened.
	link := filepath.Join(base, "turned")
	if err := os.Symlink(source, link); err != nil {
		t.Fatal(err)
	}
	store := mustOpen(t, link, Options{Within: []string{source}})
	if got := readBody(t, store, "file"); got != "content" {
		t.Errorf("%q", got)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(secret, link)); err != nil {
		t.Fatal(err)
	}
	if info, err := store.Stat(testContext(t), "file"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("after the link was turned: %+v, %v", info, err)
	}
}

// TestDeferred opens sources that are not there; they fail when they are asked, and then serve when they have come.
func TestDeferred(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	t.Setenv("DEFERRED_KEY", "x")
	s3 := Options{Deferred: true, Values: map[string]string{
		"endpoint": "http://" + address, "access_key_id": "env:DEFERRED_KEY", "secret_access_key": "env:DEFERRED_KEY",
	}}
	for source, opts := range map[string]Options{
		dir: {Deferred: true}, "http://" + address + "/": {Deferred: true},
		"s3://bucket/prefix": s3,
	} {
		began := time.Now()
		store, err := Open(testContext(t), source, opts)
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		t.Cleanup(func() { _ = store.Close() })
		if took := time.Since(began); took > pace.Limit(time.Second) {
			t.Errorf("%s: %v", source, took)
		}
		_, statErr := store.Stat(testContext(t), "file")
		listErr := store.List(testContext(t), "", func(cacheclient.Info) error { return nil })
		_, openErr := store.Open(testContext(t), cacheclient.Info{Path: "file", Size: 7}, 0, 7)
		for what, err := range map[string]error{"stat": statErr, "list": listErr, "open": openErr} {
			if again, _ := Retryable(err); !again || !errors.Is(err, cacheclient.ErrUnavailable) ||
				errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s: %v", source, what, err)
			}
		}
	}
	store, err := Open(testContext(t), dir, Options{Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "file"), "content")
	if got := readBody(t, store, "file"); got != "content" {
		t.Errorf("%q", got)
	}
	if _, err := Open(testContext(t), "ftp://x", Options{Deferred: true}); err == nil {
		t.Error("a source that cannot be understood is opened")
	}
}
