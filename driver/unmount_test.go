package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/mountpoint"
)

// TestBounded: what hangs in the kernel holds a call for as long as its context, and what ends is told as it is.
func TestBounded(t *testing.T) {
	failure := errors.New("no")
	for _, want := range []error{nil, failure} {
		if err := bounded(t.Context(), "looking", func() error { return want }); !errors.Is(err, want) {
			t.Errorf("%v became %v", want, err)
		}
	}
	hangs := make(chan struct{})
	defer close(hangs)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := bounded(ctx, "looking", func() error { <-hangs; return nil })
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "looking: ") {
		t.Errorf("what hangs: %v", err)
	}
}

// TestForeignMounts: a mount that is not ours is left alone, and named. A bare directory has nothing of ours, and what
// was mounted there is dead.
func TestForeignMounts(t *testing.T) {
	const theirs = "/proc"
	if m, err := mountpoint.At(theirs); err != nil || m == nil {
		t.Skip("needs /proc to be a mount:", err)
	}
	if _, err := layers(theirs); !errors.Is(err, errForeign) || !strings.Contains(err.Error(), "proc") {
		t.Errorf("its layers: %v", err)
	}
	if isDead(t.Context(), theirs) {
		t.Error("it is taken for a dead mount of ours")
	}
	rec := newRecord(t, "v")
	rec.Targets = []target{{Path: theirs}}
	if stillPublished(rec) != theirs {
		t.Error("a target that was mounted over counts as unpublished")
	}
	bare := t.TempDir()
	if err := unmountAll(t.Context(), bare, mountpoint.Plainly); err != nil {
		t.Errorf("nothing to unmount: %v", err)
	}
	if minor, err := mountedDevice(bare); minor != 0 || err != nil || !isDead(t.Context(), bare) {
		t.Errorf("a bare directory has the device %d, %v", minor, err)
	}
	rec.Targets = []target{{Path: bare}, {Path: bare + "/none"}}
	if at := stillPublished(rec); at != "" {
		t.Errorf("it is published at %q", at)
	}
}

// TestDirectories: the directory of a mount point is made once, is no file, and is never removed with what is in it.
func TestDirectories(t *testing.T) {
	dir := t.TempDir()
	made, file := filepath.Join(dir, "made"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := makeDir(made); err != nil || !isDir(made) {
			t.Errorf("made: %v", err)
		}
	}
	if err := makeDir(file); !errors.Is(err, fs.ErrExist) {
		t.Errorf("in the place of a file: %v", err)
	}
	if err := os.Symlink(made, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if isDir(filepath.Join(dir, "link")) {
		t.Error("a link is followed")
	}
	if err := os.WriteFile(filepath.Join(made, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := removeDir(made); err == nil {
		t.Error("a directory was removed with its data")
	}
	if err := os.Remove(filepath.Join(made, "data")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := removeDir(made); err != nil {
			t.Errorf("removed: %v", err)
		}
	}
}

// TestPathsAsMountinfoHasThem: links above a mount point are followed, and the mount point itself is not asked.
func TestPathsAsMountinfoHasThem(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Mkdir(dir+"/real", 0o755), os.Symlink(dir+"/real", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/link/a": "/real/a", "/real/a/": "/real/a", "/real/../link/a": "/real/a", "/link": "/link", "/none/a": "/none/a",
	} {
		if got := knownPath(dir + path); got != dir+want {
			t.Errorf("%s is known as %s, want %s", path, got, dir+want)
		}
	}
	if got, err := makeParent(dir + "/link/new/deep/a"); err != nil || got != dir+"/real/new/deep/a" || isDir(got) {
		t.Errorf("it is at %s, %v", got, err)
	}
}

// TestAbortSentence: a log tells what became of a connection that nothing else has ended.
func TestAbortSentence(t *testing.T) {
	for want, err := range map[string]error{
		"aborted": nil, "gone": fmt.Errorf("connection 5: %w", fs.ErrNotExist), "ends with the agent: no": errors.New("no"),
	} {
		if got := abortSentence(err); got != want {
			t.Errorf("%v is told as %q", err, got)
		}
	}
}

// TestPublishWithoutAMount: a target is never bound to a bare staging directory, which is the host's disk. What was
// noted and made for it is taken back, while what was published before stays noted.
func TestPublishWithoutAMount(t *testing.T) {
	d, _ := newDriver(t, nil)
	rec := newRecord(t, "v")
	if err := os.Mkdir(rec.Volume.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	before := target{Path: filepath.Join(t.TempDir(), "before")}
	rec = put(t, d, rec.with(before))
	path := filepath.Join(t.TempDir(), "target")
	for _, at := range []string{path, before.Path} {
		err := d.publish(t.Context(), rec, target{Path: at})
		if err == nil || !strings.Contains(err.Error(), "the volume's mount is not at "+rec.Volume.Dir) {
			t.Errorf("it is %v", err)
		}
	}
	kept, _ := d.records.get("v")
	if _, err := os.Stat(path); err == nil || kept.target(path) != nil || kept.target(before.Path) == nil {
		t.Errorf("the target is there: %v, noted are %v", err == nil, kept.Targets)
	}
	err := d.publish(t.Context(), rec, target{Path: before.Path, ReadOnly: true})
	if status.Code(err) != codes.AlreadyExists {
		t.Errorf("in another way: %v", err)
	}
}

// TestUnpublish: a target is taken out of the record, and is no error where it is not. An ephemeral volume ends with
// its last target, and one that was cut short before its first. What lies in a target is not removed.
func TestUnpublish(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	for name, tc := range map[string]struct {
		ephemeral bool
		targets   []target
		path      string
		known     bool
		left      int
	}{
		"one of two":               {false, []target{{Path: at("a")}, {Path: at("b")}}, at("a"), true, 1},
		"the last":                 {false, []target{{Path: at("a")}}, at("a"), true, 0},
		"none":                     {false, []target{{Path: at("a")}}, at("c"), true, 1},
		"the last, ephemeral":      {true, []target{{Path: at("a")}}, at("a"), false, 0},
		"one of two, ephemeral":    {true, []target{{Path: at("a")}, {Path: at("b")}}, at("a"), true, 1},
		"cut short, ephemeral":     {true, nil, at("a"), false, 0},
		"not published, ephemeral": {true, []target{{Path: at("a")}}, at("c"), true, 1},
	} {
		d, _ := newDriver(t, nil)
		rec := newRecord(t, "v")
		rec.Ephemeral, rec.Targets = tc.ephemeral, tc.targets
		put(t, d, rec)
		_, err := d.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: "v", TargetPath: tc.path})
		kept, known := d.records.get("v")
		if err != nil || known != tc.known || known && len(kept.Targets) != tc.left {
			t.Errorf("%s: known %v with %v, %v", name, known, kept.Targets, err)
		}
	}
	d, _ := newDriver(t, nil)
	put(t, d, newRecord(t, "v").with(target{Path: at("full")}))
	if err := os.MkdirAll(at("full/data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.unpublish(t.Context(), "v", at("full")); err == nil {
		t.Error("a target was removed with what is in it")
	}
	if kept, _ := d.records.get("v"); kept.target(at("full")) == nil {
		t.Error("its record is gone")
	}
}

// TestPublishOfWhatIsNotStaged: a publish says that a stage has to come first.
func TestPublishOfWhatIsNotStaged(t *testing.T) {
	d, agent := newDriver(t, nil)
	partial := newRecord(t, "partial")
	partial.Phase = phasePartial
	put(t, d, partial)
	elsewhere := put(t, d, newRecord(t, "elsewhere"))
	for id, staging := range map[string]string{
		"none": elsewhere.Volume.Dir, "partial": partial.Volume.Dir, "elsewhere": partial.Volume.Dir,
	} {
		target := filepath.Join(t.TempDir(), "target")
		_, err := d.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
			VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: mountable(nil),
		})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "is not staged at "+staging) {
			t.Errorf("%s: %v", id, err)
		}
		if isDir(target) || agent.did() != "" {
			t.Errorf("%s: something was made, or asked for", id)
		}
	}
}
