package controller_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient"
	cachealluxio "millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/cluster"
)

// deep is a real master that is brought to what a Dataset's mounts say, and the file system that pods see of it.
type deep struct {
	t        *testing.T
	servers  *cluster.Cluster
	clusters *masters.Clusters
	conn     *rpc.Cluster
	sources  string
}

var deepKey = types.NamespacedName{Namespace: "default", Name: "deep"}

func newDeep(t *testing.T) *deep {
	t.Helper()
	d := &deep{t: t, servers: cluster.ForTest(t, cluster.Config{Masters: 1, NoWorkers: true}), sources: t.TempDir()}
	d.clusters = &masters.Clusters{
		Notify: func(types.NamespacedName) {}, Log: slog.New(slog.DiscardHandler),
		Fast: 200 * time.Millisecond, Slow: time.Second,
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.clusters.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	address := d.servers.Masters()[0].Address()
	var err error
	d.conn, err = rpc.Connect(rpc.Config{Masters: []string{address}, Security: rpc.Security{User: "root"}})
	must(t, err)
	t.Cleanup(d.conn.Release)
	return d
}

// open opens what pods see, each name asked for anew.
func (d *deep) open() cacheclient.Client {
	d.t.Helper()
	pod, err := cachealluxio.New(d.t.Context(), cachealluxio.Config{
		Address:  rpc.Address{Masters: []string{d.servers.Masters()[0].Address()}, Path: "/"},
		Security: rpc.Security{User: "pod"}, TTL: -1,
	})
	must(d.t, err)
	return pod
}

// want has the Dataset have mounts: "/path=source", the source a directory with a file of its own name.
func (d *deep) want(words ...string) {
	d.t.Helper()
	want := masters.Want{Masters: []string{d.servers.Masters()[0].Address()}, User: "root"}
	for _, word := range words {
		at, source, _ := strings.Cut(word, "=")
		dir := filepath.Join(d.sources, source)
		must(d.t, os.MkdirAll(dir, 0o755))
		must(d.t, os.WriteFile(filepath.Join(dir, source), []byte(source), 0o600))
		around := false
		for _, other := range words {
			around = around || strings.HasPrefix(other, at+"/")
		}
		want.Mounts = append(want.Mounts, rpc.Mount{
			Path: at, Source: dir, ReadOnly: !around, Properties: map[string]string{objects.HashOption: word},
		})
	}
	d.clusters.Want(deepKey, want)
}

// mounted waits until the mounts are there.
func (d *deep) mounted() {
	d.t.Helper()
	eventually(d.t, "the mounts are there", func() string {
		if s := d.clusters.State(deepKey); !s.Mounted {
			return fmt.Sprintf("%s %s", s.Err, s.MountErr)
		}
		return ""
	})
}

// shows waits until pods see just these names, each with its directory. Nothing is read before and after that: a mount
// that is taken away while it is read is another matter.
func (d *deep) shows(want string) {
	d.t.Helper()
	pod := d.open()
	defer func() { _ = pod.Close() }()
	eventually(d.t, "pods see "+want, func() string {
		var seen []string
		if err := d.walk(pod, "", &seen); err != nil {
			return err.Error()
		}
		if got := strings.Join(seen, " "); got != want {
			s := d.clusters.State(deepKey)
			return fmt.Sprintf("%s; %s%s", got, s.Err, s.MountErr)
		}
		return ""
	})
}

// walk adds what is in a directory and below it to seen, in order.
func (d *deep) walk(pod cacheclient.Client, dir string, seen *[]string) error {
	page, err := pod.List(d.t.Context(), dir, cacheclient.Cursor{}, 100, true)
	if err != nil {
		return err
	}
	slices.SortFunc(page.Entries, func(a, b cacheclient.Info) int { return strings.Compare(a.Path, b.Path) })
	for _, entry := range page.Entries {
		*seen = append(*seen, entry.Path)
		info, err := pod.Stat(d.t.Context(), entry.Path)
		if err != nil {
			return err
		}
		if info.Dir && info.Mode.Perm()&0o555 != 0o555 {
			return fmt.Errorf("%s has the mode %v", info.Path, info.Mode)
		}
		if info.Dir {
			err = d.walk(pod, info.Path, seen)
		} else {
			err = d.reads(pod, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reads reads a file, which has its own name in it.
func (d *deep) reads(pod cacheclient.Client, info cacheclient.Info) error {
	file, err := pod.Open(d.t.Context(), info)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	data, err := file.Read(d.t.Context(), 0, int(info.Size))
	if err != nil {
		return err
	}
	defer data.Release()
	if got := string(bytes.Join(data.Parts, nil)); got != info.Name() {
		return fmt.Errorf("%s has %q in it", info.Path, got)
	}
	return nil
}

// rooted are the directories in the leading master's own root.
func (d *deep) rooted() string {
	d.t.Helper()
	entries, err := os.ReadDir(d.servers.UFS())
	must(d.t, err)
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return strings.Join(names, " ")
}

// TestDeepMountsOfARealAlluxio has mounts whose parents are nowhere: alone, beside each other, in each other, and gone.
func TestDeepMountsOfARealAlluxio(t *testing.T) {
	t.Parallel()
	d := newDeep(t)
	d.want("/deep/x=one", "/deep/y=two", "/a/b/c=three")
	d.mounted()
	d.shows("a a/b a/b/c a/b/c/three deep deep/x deep/x/one deep/y deep/y/two")

	// Another master leads, whose own root has none of them.
	for _, name := range []string{"deep", "a"} {
		must(t, os.RemoveAll(filepath.Join(d.servers.UFS(), name)))
	}
	must(t, d.conn.Load(t.Context(), "/", rpc.AlwaysSync))
	d.shows("a a/b a/b/c a/b/c/three deep deep/x deep/x/one deep/y deep/y/two")

	d.want("/deep/y=two")
	d.mounted()
	d.shows("deep deep/y deep/y/two")
	d.want()
	d.mounted()
	d.shows("")

	// The master that led before leads again, with what it made in its root.
	must(t, os.MkdirAll(filepath.Join(d.servers.UFS(), "a/b"), 0o755))
	must(t, d.conn.Load(t.Context(), "/", rpc.AlwaysSync))
	eventually(t, "what an earlier leader made is gone", func() string {
		must(t, d.conn.Load(t.Context(), "/", rpc.AlwaysSync))
		return d.rooted()
	})
	d.shows("")

	// Directories in the place of a mount, as Alluxio makes them where a name is asked for in a mount that goes.
	must(t, os.MkdirAll(filepath.Join(d.servers.UFS(), "way/in/it"), 0o755))
	must(t, d.conn.Load(t.Context(), "/", rpc.AlwaysSync))
	d.want("/way=one")
	d.mounted()
	d.shows("way way/one")
	d.want()
	d.mounted()
	d.shows("")

	// What was made by hand stays, and a mount made by hand keeps its parents.
	must(t, d.conn.MakeDir(t.Context(), "/mine"))
	d.want("/deep/x=one", "/mine/x=two")
	d.mounted()
	must(t, os.MkdirAll(filepath.Join(d.sources, "hand"), 0o755))
	must(t, d.conn.Mount(t.Context(), rpc.Mount{
		Path: "/deep/hand", Source: filepath.Join(d.sources, "hand"), ReadOnly: true,
	}))
	d.want()
	d.mounted()
	d.shows("deep deep/hand mine")
}

// TestMountsInMountsOfARealAlluxio has outer mounts come, change and go around an inner one, and one whose source lacks
// the directory that an inner mount is in.
func TestMountsInMountsOfARealAlluxio(t *testing.T) {
	t.Parallel()
	d := newDeep(t)
	d.want("/deep/in/x=inner")
	d.mounted()
	d.shows("deep deep/in deep/in/x deep/in/x/inner")

	must(t, os.MkdirAll(filepath.Join(d.sources, "outer/in"), 0o755))
	d.want("/deep/in/x=inner", "/deep=outer")
	d.mounted()
	d.shows("deep deep/in deep/in/x deep/in/x/inner deep/outer")

	must(t, os.MkdirAll(filepath.Join(d.sources, "other/in"), 0o755))
	d.want("/deep/in/x=inner", "/deep=other")
	d.mounted()
	d.shows("deep deep/in deep/in/x deep/in/x/inner deep/other")

	d.want("/deep/in/x=inner")
	d.mounted()
	d.shows("deep deep/in deep/in/x deep/in/x/inner")

	d.want("/deep/in/x=inner", "/deep=lacking")
	eventually(t, "the directory that the source lacks is named", func() string {
		s := d.clusters.State(deepKey)
		const says = "the mount /deep/in/x: the source of the mount /deep has no directory /in, and nothing is " +
			"written " +
			"to sources; make it there, or give this mount a path that is not in /deep"
		if s.MountErr != says {
			return s.Err + s.MountErr
		}
		return ""
	})
	d.shows("deep deep/lacking")
	if _, err := os.Stat(filepath.Join(d.sources, "lacking", "in")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a directory is made in a source:", err)
	}
	must(t, os.Mkdir(filepath.Join(d.sources, "lacking/in"), 0o755))
	d.mounted()
	d.shows("deep deep/in deep/in/x deep/in/x/inner deep/lacking")

	d.want("/deep=lacking")
	d.mounted()
	d.shows("deep deep/in deep/lacking")
	if _, err := os.Stat(filepath.Join(d.sources, "lacking", "in")); err != nil {
		t.Error("an empty directory of a source was removed:", err)
	}
}

// TestMountsThatMoveWhileTheyAreRead has readers ask for names in mounts that are taken away and made anew. Alluxio
// makes directories of such names in its own root, which must neither stay nor keep the mount from being made.
func TestMountsThatMoveWhileTheyAreRead(t *testing.T) {
	t.Parallel()
	d := newDeep(t)
	ctx, cancel := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	for range 8 {
		reading.Go(func() {
			pod := d.open()
			defer func() { _ = pod.Close() }()
			for ctx.Err() == nil {
				var seen []string
				_ = d.walk(pod, "", &seen)
			}
		})
	}
	for _, source := range []string{"one", "two", "three", "four", "five", "six", "seven", "eight"} {
		must(t, os.MkdirAll(filepath.Join(d.sources, source, "a/b/c"), 0o755))
		d.want("/x=" + source)
		d.mounted()
		d.shows("x x/a x/a/b x/a/b/c x/" + source)
	}
	d.want()
	d.mounted()
	d.shows("")
	if left := d.rooted(); left != "" {
		t.Errorf("in the root are %s", left)
	}
}
