package onemachine_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/session"
)

// commandLimit bounds each command that reads from a mount, generously.
const commandLimit = 5 * time.Minute

// rig is a served and mounted tree.
type rig struct {
	t        *testing.T
	session  *session.Session
	millrace session.Millrace
	server   *serve.Server
	addr     string
	dir      string // the mount
	flags    []string
}

// newRig serves the source and mounts it; more flags are given to the program.
func newRig(t *testing.T, source string, flags ...string) *rig {
	t.Helper()
	needsMount(t)
	r := &rig{t: t, session: session.New(t.Context()), dir: filepath.Join(t.TempDir(), "mnt")}
	t.Cleanup(r.session.Close)
	var err error
	if r.server, err = serve.New(source, serve.Options{}); err != nil {
		t.Fatal(err)
	}
	r.session.Defer(func() { _ = r.server.Close() })
	if r.addr, err = r.server.Start("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if r.millrace, err = session.NewMillrace(r.session, bin); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.flags = append([]string{"--tier-dir", filepath.Join(t.TempDir(), "tier"), "--quota", "1Gi"}, flags...)
	r.mount()
	return r
}

// mount mounts the source with the rig's flags.
func (r *rig) mount() {
	r.t.Helper()
	from := (&url.URL{Scheme: "http", Host: r.addr, Path: "/"}).String()
	if _, err := r.millrace.Mount(from, r.dir, r.flags...); err != nil {
		r.t.Fatal(err)
	}
}

// unmount ends the mount as a user does.
func (r *rig) unmount() {
	r.t.Helper()
	if err := r.millrace.Unmount(r.dir); err != nil {
		r.t.Error(err)
	}
}

// run runs a command in a directory and returns its standard output.
func (r *rig) run(dir, name string, args ...string) string {
	r.t.Helper()
	out, err := r.try(dir, commandLimit, name, args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// try is run for a command that may fail, under a limit of its own.
func (r *rig) try(dir string, limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(r.session.Context(), limit)
	defer cancel()
	// env goes to the directory and starts the command. A child of this process must do neither before its exec: its
	// source is served here, and this process stands still where its garbage collector waits for the thread that waits for
	// the child.
	cmd := session.Command(ctx, "env", append([]string{"-C", cmp.Or(dir, "/"), name}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := session.RunCmd(ctx, cmd)
	return out.Stdout, err
}

// needsMount skips the test where the program is not built or cannot mount.
func needsMount(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program and mounts with it: make test")
	}
	if why := session.CanMount(); why != "" {
		t.Skip(why)
	}
}

// needs skips the test where the program is not installed.
func needs(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is not installed", program)
	}
}

// within fails the test if fn, which touches a mount, does not end in time. The goroutine is freed when
// the mount goes.
func within(t *testing.T, limit time.Duration, fn func() error) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- fn() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		t.Fatalf("no end after %v", limit)
		return nil
	}
}

// readFile reads a file of a mount under the command limit.
func readFile(t *testing.T, name string) ([]byte, error) {
	t.Helper()
	var content []byte
	err := within(t, commandLimit, func() (err error) {
		content, err = os.ReadFile(name)
		return err
	})
	return content, err
}

// write makes a file with its parents.
func write(t *testing.T, root, name string, content []byte) {
	t.Helper()
	p := filepath.Join(root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// snapshot is the checksum of every file below a directory, "" for a directory itself.
func snapshot(root string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		if d.IsDir() {
			found[rel] = ""
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		found[rel] = string(h.Sum(nil))
		return nil
	})
	return found, err
}

// sameTree compares two directories, names and contents.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	var wantFiles, gotFiles map[string]string
	err := within(t, commandLimit, func() (err error) {
		if wantFiles, err = snapshot(want); err != nil {
			return err
		}
		gotFiles, err = snapshot(got)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, sum := range wantFiles {
		if other, ok := gotFiles[name]; !ok {
			t.Errorf("%q is missing", name)
		} else if other != sum {
			t.Errorf("%q differs", name)
		}
	}
	for name := range gotFiles {
		if _, ok := wantFiles[name]; !ok {
			t.Errorf("%q should not be there", name)
		}
	}
}

// random is n bytes that are the same for the same seed.
func random(seed byte, n int) []byte {
	var out bytes.Buffer
	block := sha256.Sum256([]byte{seed})
	for out.Len() < n {
		out.Write(block[:])
		block = sha256.Sum256(block[:])
	}
	return out.Bytes()[:n]
}
