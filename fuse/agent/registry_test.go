package agent

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/fuse/socket"
	"millrace.io/millrace/sanity/pace"
)

func TestRuntimeDirFromEnvironment(t *testing.T) {
	cases := []struct {
		env  map[string]string
		uid  int
		want string
	}{
		{map[string]string{"MILLRACE_RUNTIME_DIR": "/x/y/", "XDG_RUNTIME_DIR": "/run/user/5"}, 0, "/x/y"},
		{map[string]string{"XDG_RUNTIME_DIR": "/run/user/0"}, 0, "/run/millrace"},
		{map[string]string{"XDG_RUNTIME_DIR": "/run/user/5"}, 5, "/run/user/5/millrace"},
		{nil, 5, "/tmp/millrace-5"},
	}
	for _, c := range cases {
		if got := runtimeDir(func(k string) string { return c.env[k] }, c.uid); got != c.want {
			t.Errorf("%v, uid %d: %s, want %s", c.env, c.uid, got, c.want)
		}
	}
}

func TestPrivateDir(t *testing.T) {
	base := t.TempDir()
	fresh := filepath.Join(base, "a", "b")
	if err := PrivateDir(fresh); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(fresh); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if err := os.Chmod(fresh, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := PrivateDir(fresh); err == nil {
		t.Error("a directory that everybody may write to was accepted")
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink(base, link); err != nil {
		t.Fatal(err)
	}
	if err := PrivateDir(link); err == nil {
		t.Error("a symbolic link was accepted")
	}
	t.Run("of another user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root")
		}
		other := filepath.Join(base, "other")
		if err := os.Mkdir(other, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(other, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := PrivateDir(other); err == nil {
			t.Error("another user's directory was accepted")
		}
	})
}

func TestMountNamesAreSafeAndDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, dir := range []string{
		"/", "/a", "/b/a", "/a b/ü", "/-x", "/" + strings.Repeat("long", 60), "/a\nb",
		"/...",
	} {
		name := MountName(dir)
		if strings.ContainsAny(name, "/ \n.") || len(name) > 60 {
			t.Errorf("%q gives %q", dir, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("%q and %q both give %q", dir, other, name)
		}
		seen[name] = dir
	}
}

// listenOn answers on a socket at path until the test ends.
func listenOn(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// gone is the id of a process that has ended.
func gone(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// TestRegistryWaitsForASuccessor has a process die whose keeper starts another one, and one that has no keeper any
// more.
func TestRegistryWaitsForASuccessor(t *testing.T) {
	dir := t.TempDir()
	r := OpenRegistry(dir)
	died := Entry{Dir: "/m/kept", Socket: filepath.Join(dir, "kept.sock"), PID: gone(t), Keeper: os.Getpid()}
	alone := Entry{Dir: "/m/alone", Socket: filepath.Join(dir, "alone.sock"), PID: gone(t), Keeper: gone(t)}
	for _, e := range []Entry{died, alone} {
		if err := r.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	mounted := map[string]bool{died.Dir: true, alone.Dir: true}
	begin := time.Now()
	if e, keep := r.check(r.File(alone.Dir, ".json"), mounted); !keep || !e.Dead {
		t.Errorf("got %+v, %v, want a dead entry", e, keep)
	}
	pace.Within(t, "an entry that nobody replaces", time.Since(begin), time.Second)
	listener := make(chan net.Listener, 1)
	t.Cleanup(func() { _ = (<-listener).Close() })
	time.AfterFunc(50*time.Millisecond, func() {
		l, err := socket.Listen(died.Socket)
		next := died
		next.PID = os.Getpid()
		if err = errors.Join(err, r.Put(next)); err != nil {
			t.Error(err)
		}
		listener <- l
	})
	if e, keep := r.check(r.File(died.Dir, ".json"), mounted); !keep || e.Dead || e.PID != os.Getpid() {
		t.Errorf("got %+v, %v, want that of the successor", e, keep)
	}
}

func TestRegistryKeepsTheLivingAndDropsTheRest(t *testing.T) {
	dir := t.TempDir()
	r := OpenRegistry(dir)
	live := Entry{
		Dir: "/m/live", Socket: filepath.Join(dir, "live.sock"), PID: os.Getpid(), Source: "/src",
		Started: time.Now().UTC().Round(0),
	}
	listenOn(t, live.Socket)
	deaf := Entry{Dir: "/m/deaf", Socket: filepath.Join(dir, "deaf.sock"), PID: os.Getpid()}
	listenOn(t, deaf.Socket).Close()
	dead := Entry{Dir: "/m/dead", Socket: live.Socket + "2", PID: gone(t)}
	for _, e := range []Entry{live, deaf, dead} {
		if err := r.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "junk.json"), []byte("{not json"), 0o600); err != nil {
		t.Fatal(err)
	}
	entries, err := r.List()
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0] != live {
		t.Fatalf("got %+v, want only %+v", entries, live)
	}
	for _, file := range []string{
		r.File(deaf.Dir, ".json"), r.File(dead.Dir, ".json"),
		filepath.Join(dir, "junk.json"),
	} {
		if _, err := os.Lstat(file); !os.IsNotExist(err) {
			t.Errorf("%s is still there", file)
		}
	}
	if e, ok, err := r.Find("/m/live"); err != nil || !ok || e != live {
		t.Errorf("%v %v %v", e, ok, err)
	}
	if err := r.Remove("/m/live", live.PID+1); err != nil {
		t.Error(err)
	}
	if _, ok, _ := r.Find("/m/live"); !ok {
		t.Error("another process's entry was removed")
	}
	if err := r.Remove("/m/live", live.PID); err != nil {
		t.Error(err)
	}
	if _, ok, _ := r.Find("/m/live"); ok {
		t.Error("the entry is still there")
	}
}

// Readers see whole entries while writers change them.
func TestRegistryIsReadWhileItIsWritten(t *testing.T) {
	dir := t.TempDir()
	r := OpenRegistry(dir)
	e := Entry{Dir: "/m/x", Socket: filepath.Join(dir, "x.sock"), PID: os.Getpid(), Source: strings.Repeat("s", 2000)}
	listenOn(t, e.Socket)
	if err := r.Put(e); err != nil {
		t.Fatal(err)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		for range 200 {
			if err := r.Put(e); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 50 {
		if got, err := r.List(); err != nil || len(got) != 1 || got[0] != e {
			t.Fatalf("%d entries, %v", len(got), err)
		}
	}
	writing.Wait()
}

func FuzzRegistryEntry(f *testing.F) {
	f.Add([]byte(`{"dir":"/m","socket":"/s","pid":1}`))
	f.Add([]byte(`{"dir":"/m","pid":-1}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		r := OpenRegistry(dir)
		if err := os.WriteFile(r.File("/m", ".json"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		entries, err := r.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Dir != "/m" {
				t.Errorf("an entry of %q in the file of /m was believed", e.Dir)
			}
		}
	})
}
