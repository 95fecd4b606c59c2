package driver

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
)

// mountable is how a volume is used by many readers.
func mountable(change func(*csi.VolumeCapability)) *csi.VolumeCapability {
	c := grouped("")
	c.AccessMode = &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY}
	if change != nil {
		change(c)
	}
	return c
}

// TestRefusedStages: a request that can never succeed says which field is wrong and what is accepted. Nothing is made
// or kept of it, and the agent is not asked.
func TestRefusedStages(t *testing.T) {
	source := map[string]string{"source": "https://host/path/"}
	for name, tc := range map[string]struct {
		id, path   string
		values     map[string]string
		capability *csi.VolumeCapability
		code       codes.Code
		says       string
	}{
		"no id":           {"", "p", source, mountable(nil), codes.InvalidArgument, "volume_id is empty"},
		"a long id":       {strings.Repeat("v", 129), "p", source, mountable(nil), codes.InvalidArgument, "129 bytes"},
		"an id of lines":  {"a\nb", "p", source, mountable(nil), codes.InvalidArgument, "control characters"},
		"no path":         {"v", "", source, mountable(nil), codes.InvalidArgument, "staging_target_path is empty"},
		"a relative path": {"v", "./p", source, mountable(nil), codes.InvalidArgument, "absolute path"},
		"the root":        {"v", "/.", source, mountable(nil), codes.InvalidArgument, "that is not /"},
		"no capability":   {"v", "p", source, nil, codes.InvalidArgument, "volume_capability is missing"},
		"a block device": {
			"v", "p", source,
			&csi.VolumeCapability{AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}},
			codes.InvalidArgument, "block device",
		},
		"no access mode": {
			"v", "p", source, mountable(func(c *csi.VolumeCapability) { c.AccessMode = nil }), codes.InvalidArgument,
			"no access mode",
		},
		"a file system": {
			"v", "p", source, mountable(func(c *csi.VolumeCapability) { c.GetMount().FsType = "ext4" }),
			codes.InvalidArgument, `fs_type "ext4"`,
		},
		"an attribute": {
			"v", "p", map[string]string{"source": "s3://b", "Quota": "1"}, mountable(nil), codes.InvalidArgument, "Quota",
		},
		"a mount option": {"v", "p", source, flagged("rw"), codes.InvalidArgument, `mount option "rw"`},
		"a Dataset": {
			"v", "p", map[string]string{"dataset": "a/b"}, mountable(nil), codes.FailedPrecondition, "dataset a/b",
		},
		"a local source": {"v", "p", map[string]string{"source": "/etc"}, mountable(nil), codes.InvalidArgument, "/etc"},
		"a tier elsewhere": {
			"v", "p",
			map[string]string{"source": "s3://b", "tierDir": "/etc"},
			mountable(nil), codes.InvalidArgument,
			"/etc",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, agent := newDriver(t, nil)
			path := tc.path
			if path == "p" {
				path = filepath.Join(t.TempDir(), "staging")
			}
			_, err := d.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
				VolumeId: tc.id, StagingTargetPath: path, VolumeContext: tc.values, VolumeCapability: tc.capability,
			})
			if status.Code(err) != tc.code || !strings.Contains(status.Convert(err).Message(), tc.says) {
				t.Errorf("%v, want %s with %q", err, tc.code, tc.says)
			}
			if _, there := os.Stat(path); tc.path == "p" && there == nil || len(d.records.ids()) > 0 || agent.did() != "" {
				t.Error("something is made or kept, or the agent was asked")
			}
		})
	}
}

// flagged is mountable with mount flags.
func flagged(flags ...string) *csi.VolumeCapability {
	return mountable(func(c *csi.VolumeCapability) { c.GetMount().MountFlags = flags })
}

// TestStageWithoutAnAgent: without an agent a stage fails as one that may succeed later, and leaves neither a record
// nor a directory.
func TestStageWithoutAnAgent(t *testing.T) {
	d, agent := newDriver(t, nil)
	d.custody.setUp(false)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	rec := newRecord(t, "v")
	if _, err := d.stage(over, rec); status.Code(statusOf(err)) != codes.Unavailable {
		t.Errorf("it is %v", err)
	}
	if _, err := os.Stat(rec.Volume.Dir); err == nil || len(d.records.ids()) > 0 || agent.did() != "" {
		t.Errorf("something is made or kept: %v", err)
	}
}

// TestStagedInAnotherWay: a volume that is staged is refused another place and other attributes, and a place that
// another volume has is refused.
func TestStagedInAnotherWay(t *testing.T) {
	d, agent := newDriver(t, nil)
	// So that nothing is mounted by a driver that accepts it.
	agent.refuse(func(handover.Op, string) error { return io.EOF })
	rec := put(t, d, newRecord(t, "v"))
	for name, tc := range map[string]struct {
		change func(*record)
		code   codes.Code
		says   string
	}{
		"another path":   {func(r *record) { r.Volume.Dir += "-2" }, codes.AlreadyExists, "staged at"},
		"another source": {func(r *record) { r.Volume.Source = "s3://c" }, codes.AlreadyExists, "other attributes"},
		"another quota":  {func(r *record) { r.Volume.Quota = 1 }, codes.AlreadyExists, "other attributes"},
		"another volume": {func(r *record) { r.Volume.ID = "w" }, codes.FailedPrecondition, "volume v is staged at"},
		"another option": {
			func(r *record) { r.Volume.Options = map[string]string{"a": "b"} }, codes.AlreadyExists, "other attributes",
		},
		"a smaller cache": {func(r *record) { r.Volume.High = 0.5 }, codes.AlreadyExists, "other attributes"},
	} {
		asked := rec
		tc.change(&asked)
		_, err := d.stage(t.Context(), asked)
		if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %s with %q", name, err, tc.code, tc.says)
		}
		if kept, _ := d.records.get("v"); kept.Phase != phaseStaged || agent.did() != "" {
			t.Errorf("%s: the volume that is staged was touched: %+v", name, kept)
		}
	}
	for name, change := range map[string]func(*record){
		"the same": func(*record) {}, "other secrets": func(r *record) { r.Volume.Secrets = map[string]string{"k": "v"} },
		"another group": func(r *record) { r.Volume.GID = 7 }, "another mode": func(r *record) { r.Volume.FileMode = 0o400 },
	} {
		asked := rec
		change(&asked)
		if err := sameStage(rec, asked); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestClear: the end of a volume ends its session, drops its record, and removes the directory of an ephemeral one. It
// does so also where the agent fails or is not there, and a second end is none.
func TestClear(t *testing.T) {
	for name, tc := range map[string]struct {
		ephemeral bool
		says      error
	}{
		"staged": {false, nil}, "ephemeral": {true, nil}, "the agent has gone": {false, io.EOF},
		"the agent fails": {true, handover.Errorf(handover.CodeInternal, "stuck")},
	} {
		t.Run(name, func(t *testing.T) {
			d, agent := newDriver(t, nil)
			rec := newRecord(t, "v")
			rec.Ephemeral = tc.ephemeral
			rec.Targets = []target{{Path: filepath.Join(t.TempDir(), "target")}}
			if err := os.Mkdir(rec.Volume.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			hold(t, d, put(t, d, rec))
			agent.serves(rec.Volume)
			d.usage.put("v", handover.Stats{Used: 5})
			agent.refuse(func(handover.Op, string) error { return tc.says })
			over, cancel := context.WithCancel(t.Context())
			cancel() // A caller that has gone stops nothing half way.
			if err := d.clear(over, rec); err != nil {
				t.Fatal(err)
			}
			_, err := os.Stat(rec.Volume.Dir)
			if there := err == nil; there == tc.ephemeral {
				t.Errorf("the directory is there: %v", there)
			}
			if _, known := d.records.get("v"); known || d.custody.holds("v") || d.usage.get("v").Used != 0 {
				t.Error("something is kept of it")
			}
			if did := agent.did(); did != "detach v" {
				t.Errorf("the agent was asked for %q", did)
			}
			agent.refuse(nil)
			if err := d.clear(t.Context(), rec); err != nil {
				t.Errorf("the second time: %v", err)
			}
		})
	}
}

// TestUnstage: what is not staged, or not there, is unstaged; what is published is not.
func TestUnstage(t *testing.T) {
	for name, tc := range map[string]struct {
		records func(rec record) []record
		at      func(rec record) string
		left    int
	}{
		"staged": {
			func(r record) []record { return []record{r} }, func(r record) string { return r.Volume.Dir }, 0,
		},
		"staged elsewhere": {
			func(r record) []record { return []record{r} }, func(r record) string { return r.Volume.Dir + "-2" }, 1,
		},
		"not staged": {func(record) []record { return nil }, func(r record) string { return r.Volume.Dir }, 0},
		"with its views": {func(r record) []record {
			view, other := r, r
			view.Volume.ID, view.Of, view.Ephemeral, view.Volume.Dir = "v@1", "v", true, r.Volume.Dir+"-view"
			other.Volume.ID, other.Volume.Dir = "w", r.Volume.Dir+"-w"
			return []record{r, view, other}
		}, func(r record) string { return r.Volume.Dir }, 1},
	} {
		d, _ := newDriver(t, nil)
		rec := newRecord(t, "v")
		for _, r := range tc.records(rec) {
			put(t, d, r)
		}
		_, err := d.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{
			VolumeId: "v", StagingTargetPath: tc.at(rec),
		})
		if left := len(d.records.ids()); err != nil || left != tc.left {
			t.Errorf("%s: %v, left are %d records", name, err, left)
		}
	}
}

// TestStatusOf: an orchestrator tells from the code whether to try again, and reads one line.
func TestStatusOf(t *testing.T) {
	agent := func(code handover.Code) error { return handover.Errorf(code, "a\nb") }
	for name, tc := range map[string]struct {
		err  error
		code codes.Code
	}{
		"nothing":            {nil, codes.OK},
		"a status":           {status.Error(codes.AlreadyExists, "x"), codes.AlreadyExists},
		"a bad description":  {agent(handover.CodeInvalid), codes.InvalidArgument},
		"a source away":      {agent(handover.CodeUnavailable), codes.Unavailable},
		"a session in use":   {agent(handover.CodeExists), codes.Aborted},
		"a session gone":     {agent(handover.CodeNotFound), codes.Aborted},
		"an agent's fault":   {agent(handover.CodeInternal), codes.Internal},
		"no agent":           {errAway, codes.Unavailable},
		"an agent that ends": {io.ErrUnexpectedEOF, codes.Unavailable},
		"too late":           {context.DeadlineExceeded, codes.DeadlineExceeded},
		"given up":           {context.Canceled, codes.Canceled},
		"a stranger's mount": {errForeign, codes.FailedPrecondition},
		"no right":           {os.ErrPermission, codes.PermissionDenied},
		"anything else":      {errors.New("disk\nfull \xff"), codes.Internal},
	} {
		err := statusOf(tc.err)
		if tc.err != nil {
			err = statusOf(errors.Join(tc.err))
		}
		if status.Code(err) != tc.code || !isOneLine(status.Convert(err).Message()) {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
}

// isOneLine reports whether a text is one that a status can have.
func isOneLine(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\n") }
