package alluxio

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// table is a mount table as the masters tell it.
func table(mounts map[string]string) map[string]*wire.MountPointInfo {
	t := make(map[string]*wire.MountPointInfo)
	for at, uri := range mounts {
		t[at] = &wire.MountPointInfo{UfsUri: &uri}
	}
	return t
}

// sourceDir is a directory with files, each of which has its own path and the directory's name as its content.
func sourceDir(t *testing.T, name string, files ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	for _, f := range append(files, ".") {
		path := filepath.Join(dir, f)
		if f == "." {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name+":"+f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// newSources is what a client that shows path has of a mount table.
func newSources(t *testing.T, path string, mounts map[string]string) *sources {
	t.Helper()
	s := &sources{
		addr: rpc.Address{Masters: []string{"m:1"}, Path: path}, log: slog.New(slog.DiscardHandler),
		refused: make(map[string]time.Time),
	}
	s.follow(t.Context(), table(mounts))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// names are the entries of a directory, directories with a slash.
func (s *sources) names(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	if err := s.List(t.Context(), dir, func(i cacheclient.Info) error {
		name := i.Path
		if i.Dir {
			name += "/"
		}
		names = append(names, name)
		return nil
	}); err != nil {
		t.Fatalf("list %q: %v", dir, err)
	}
	slices.Sort(names)
	return names
}

// content is what a path has at its source.
func (s *sources) content(t *testing.T, path string) string {
	t.Helper()
	info, err := s.Stat(t.Context(), path)
	if err != nil || info.Path != path || info.Dir {
		t.Fatalf("stat %q: %+v, %v", path, info, err)
	}
	body, err := s.Open(t.Context(), info, 0, info.Size)
	if err != nil {
		t.Fatalf("open %q: %v", path, err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read %q: %v", path, err)
	}
	return string(text)
}

func TestNestedMountsAreOneTree(t *testing.T) {
	root := sourceDir(t, "root", "a", "data/shadowed", "data/deep/shadowed", "plain/f")
	data := sourceDir(t, "data", "b", "deep/c")
	deep := sourceDir(t, "x", "d")
	mounts := map[string]string{"/": root, "/data": "file://" + data, "/data/deep/x": deep, "/far/away/y": deep}

	s := newSources(t, "/", mounts)
	for dir, want := range map[string][]string{
		"":            {"a", "data/", "far/", "plain/"},
		"data":        {"data/b", "data/deep/"},
		"data/deep":   {"data/deep/c", "data/deep/x/"},
		"data/deep/x": {"data/deep/x/d"},
		"far":         {"far/away/"},
		"plain":       {"plain/f"},
	} {
		if got := s.names(t, dir); !slices.Equal(got, want) {
			t.Errorf("%q lists %q, want %q", dir, got, want)
		}
	}
	for path, want := range map[string]string{
		"a": "root:a", "data/b": "data:b", "data/deep/c": "data:deep/c", "data/deep/x/d": "x:d", "far/away/y/d": "x:d",
		"plain/f": "root:plain/f",
	} {
		if got := s.content(t, path); got != want {
			t.Errorf("%q has %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"data/shadowed", "data/deep/shadowed", "far/no"} {
		if _, err := s.Stat(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", path, err)
		}
	}
	if info, err := s.Stat(t.Context(), "far"); err != nil || !info.Dir {
		t.Errorf("a directory on the way to a mount: %+v, %v", info, err)
	}
}

func TestAMountAboveWhatIsShown(t *testing.T) {
	root := sourceDir(t, "root", "data/sub/wrong")
	data := sourceDir(t, "data", "sub/f", "sub/dir/g", "other")
	inner := sourceDir(t, "inner", "h")
	s := newSources(t, "/data/sub", map[string]string{
		"/": root, "/data": data, "/data/sub/in": inner,
		"/data/subway": root, "/elsewhere": root,
	})
	if got, want := s.names(t, ""), []string{"dir/", "f", "in/"}; !slices.Equal(got, want) {
		t.Errorf("the root lists %q, want %q", got, want)
	}
	if got := s.content(t, "dir/g"); got != "data:sub/dir/g" {
		t.Errorf("dir/g has %q", got)
	}
	if got := s.content(t, "in/h"); got != "inner:h" {
		t.Errorf("in/h has %q", got)
	}
}

// TestAMountThatIsNotReadHere hides what is at the same path in the source of the mount around it.
func TestAMountThatIsNotReadHere(t *testing.T) {
	root := sourceDir(t, "root", "a", "s3/f", "gone/f")
	for at, path := range map[string]string{"/s3": "s3/f", "/gone": "gone/f"} {
		s := newSources(t, "/", map[string]string{"/": root, at: "s3://bucket/x"})
		if _, err := s.Stat(t.Context(), path); !errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("%q below a mount that is not read here: %v", path, err)
		}
		if err := s.List(t.Context(), strings.Trim(at, "/"),
			func(cacheclient.Info) error { return nil }); !errors.Is(err, cacheclient.ErrUnavailable) {
			t.Errorf("list %q: %v", at, err)
		}
		if got := s.names(t, ""); !slices.Contains(got, strings.Trim(at, "/")+"/") || !slices.Contains(got, "a") {
			t.Errorf("the root lists %q", got)
		}
		if got := s.content(t, "a"); got != "root:a" {
			t.Errorf("a has %q", got)
		}
	}
	// The nearest mount counts, also where it is not read here.
	s := newSources(t, "/data/sub", map[string]string{"/": root, "/data": "s3://bucket/x"})
	if _, _, err := s.find("s3/f"); !errors.Is(err, errNoSource) {
		t.Errorf("found below a mount that is not read here: %v", err)
	}
}

func TestTheMountTableIsFollowed(t *testing.T) {
	one, two := sourceDir(t, "one", "f"), sourceDir(t, "two", "f")
	s := newSources(t, "/", map[string]string{"/m": one})
	first, _, err := s.find("m/f")
	if err != nil {
		t.Fatal(err)
	}
	s.follow(t.Context(), table(map[string]string{"/m": one, "/n": two}))
	if again, _, _ := s.find("m/f"); again != first {
		t.Error("a mount that stays is opened anew")
	}
	if got := s.content(t, "n/f"); got != "two:f" {
		t.Errorf("n/f has %q", got)
	}
	s.follow(t.Context(), table(map[string]string{"/m": two}))
	if got := s.content(t, "m/f"); got != "two:f" {
		t.Errorf("m/f has %q after the mount became another", got)
	}
	if _, _, err := s.find("n/f"); !errors.Is(err, errNoSource) {
		t.Errorf("found at a mount that is gone: %v", err)
	}
}

// TestAMountThatHangs has the directory of one mount hang while it is opened: the others are read meanwhile, and what
// comes after the end is closed.
func TestAMountThatHangs(t *testing.T) {
	one := sourceDir(t, "one", "f")
	s := newSources(t, "/", map[string]string{"/m": one})
	entered, release, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.openURL = func(ctx context.Context, url string, opts ufs.Options) (ufs.Store, error) {
		close(entered)
		<-release
		store, err := ufs.Open(context.WithoutCancel(ctx), url, opts)
		return noticing{store, closed}, err
	}
	both := table(map[string]string{"/m": one, "/n": sourceDir(t, "two", "f")})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.follow(t.Context(), both)
	}()
	<-entered
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.follow(t.Context(), both)
		if _, _, err := s.find("m/f"); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-read:
	case <-time.After(pace.Limit(30 * time.Second)):
		t.Error("a mount that hangs holds up the others, or the end")
	}
	close(release)
	<-ended
	<-closed
	<-read
	if len(s.mounts) > 0 {
		t.Errorf("%d mounts came after the end", len(s.mounts))
	}
}

// noticing is a store that tells of its end.
type noticing struct {
	ufs.Store
	closed chan struct{}
}

func (n noticing) Close() error {
	close(n.closed)
	return n.Store.Close()
}

func TestTheSourceThatAMountNames(t *testing.T) {
	dir := t.TempDir()
	for uri, want := range map[string]string{
		"file://" + dir: dir, dir: dir, dir + "/no such": "", "s3://bucket/x": "", "https://host/x": "https://host/x",
		"http://host/x": "http://host/x", "hdfs://h/x": "",
	} {
		if got := readable(&wire.MountPointInfo{UfsUri: &uri}); got != want {
			t.Errorf("%s is read as %q, want %q", uri, got, want)
		}
	}
	gateway := "s3://bucket/x"
	info := &wire.MountPointInfo{UfsUri: &gateway, Properties: map[string]string{SourceProperty: "https://true/source"}}
	if got := readable(info); got != "https://true/source" {
		t.Errorf("the source behind a gateway is %q", got)
	}
}

func TestADirectoryOfTheMachineThatIsNotAllowed(t *testing.T) {
	dir := sourceDir(t, "one", "f")
	s := &sources{
		addr: rpc.Address{Path: "/"}, noLocal: true, log: slog.New(slog.DiscardHandler),
		refused: make(map[string]time.Time),
	}
	s.follow(t.Context(), table(map[string]string{"/m": dir, "/n": "FILE://" + dir}))
	for _, path := range []string{"m/f", "n/f"} {
		if _, _, err := s.find(path); !errors.Is(err, errNoSource) {
			t.Errorf("%q is read: %v", path, err)
		}
	}
	s.given = []Source{{URL: dir}}
	if err := s.openGiven(t.Context()); err == nil || !strings.Contains(err.Error(), "its operator allows none") {
		t.Errorf("given by the user: %v", err)
	}
}
