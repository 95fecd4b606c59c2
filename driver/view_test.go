package driver

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
)

// TestWhichMountAPublishShows: the volume's own mount is shown to a publish that asks for what was staged, a view of
// the same PersistentVolume to one that asks for another group, and a view without its secrets to another
// PersistentVolume.
func TestWhichMountAPublishShows(t *testing.T) {
	const own, view, stranger = "own", "view", "stranger"
	values := map[string]string{"source": "s3://bucket/a", "option.endpoint": "https://one", namespaceKey: "ta"}
	rec := record{Namespace: "ta", Volume: handover.Volume{
		ID: "same", Dir: "/staging", Source: "s3://bucket/a", Options: map[string]string{"endpoint": "https://one"},
		Secrets: map[string]string{"key": "of A"}, GID: 2000,
	}}
	with := func(key, value string) map[string]string {
		other := maps.Clone(values)
		if other[key] = value; value == "" {
			delete(other, key)
		}
		return other
	}
	for what, c := range map[string]struct {
		values     map[string]string
		capability *csi.VolumeCapability
		want       string
	}{
		"the same":              {values, grouped("2000"), own},
		"the gid of the flags":  {values, grouped("3000", "gid=2000"), own},
		"with a pod's name":     {with("csi.storage.k8s.io/pod.name", "p"), grouped("2000"), own},
		"no attributes":         {nil, grouped(""), own},
		"no namespace":          {with(namespaceKey, ""), grouped("2000"), own},
		"another group":         {values, grouped("3000"), view},
		"a group, nothing else": {nil, grouped("3000"), view},
		"no group":              {values, grouped(""), view},
		"another mode":          {with("fileMode", "0440"), grouped("2000"), view},
		"another source":        {with("source", "s3://bucket/b"), grouped("2000"), stranger},
		"another option":        {with("option.endpoint", "https://two"), grouped("2000"), stranger},
		"an option less":        {with("option.endpoint", ""), grouped("2000"), stranger},
		"another quota":         {with("quota", "1Gi"), grouped("2000"), stranger},
		"another namespace":     {with(namespaceKey, "tb"), grouped("2000"), stranger},
	} {
		d := &Driver{}
		asked, err := d.asked(rec, &csi.NodePublishVolumeRequest{
			VolumeContext: c.values, VolumeCapability: c.capability,
		})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		got := own
		if !sameMount(rec, asked) {
			shown, err := viewOf("/state", rec, asked)
			if err != nil {
				t.Fatal(err)
			}
			if got = view; shown.Volume.Secrets["key"] != "of A" {
				got = stranger
			}
			inside := filepath.Dir(shown.Volume.Dir) == "/state/"+ephemeralDir
			if shown.handle() != "same" || !shown.Ephemeral || !inside {
				t.Errorf("%s: %+v", what, shown)
			}
		}
		if got != c.want {
			t.Errorf("%s is shown the mount of %q, want %q", what, got, c.want)
		}
	}
}

// TestWrongAttributesOfAPublish: what could not be staged cannot be published.
func TestWrongAttributesOfAPublish(t *testing.T) {
	d := &Driver{}
	for what, req := range map[string]*csi.NodePublishVolumeRequest{
		"an attribute": {
			VolumeContext: map[string]string{"source": "s3://b", "Quota": "1"}, VolumeCapability: grouped(""),
		},
		"a Dataset": {VolumeContext: map[string]string{"dataset": "a/b"}, VolumeCapability: grouped("")},
		"a group":   {VolumeCapability: grouped("staff")},
	} {
		code := codes.InvalidArgument
		if what == "a Dataset" {
			code = codes.FailedPrecondition
		}
		staged := record{Volume: handover.Volume{ID: "v", Dir: "/d", Source: "s3://b"}}
		if _, err := d.asked(staged, req); status.Code(err) != code {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// grouped is how a pod of the group uses a volume whose mount has the flags.
func grouped(group string, flags ...string) *csi.VolumeCapability {
	mount := &csi.VolumeCapability_MountVolume{VolumeMountGroup: group, MountFlags: flags}
	return &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{Mount: mount}}
}

// TestViewIDs: the same question has the same view, secrets or not, and another question another one; the longest id of
// a volume still gives one that is accepted.
func TestViewIDs(t *testing.T) {
	for _, id := range []string{"v", strings.Repeat("é", handover.MaxID/2)} {
		staged := record{Volume: handover.Volume{ID: id, Dir: "/staging", Source: "s3://b"}}
		asked := func(gid uint32, secret, namespace string) record {
			rec := staged
			rec.Volume.GID, rec.Volume.Secrets, rec.Namespace = gid, map[string]string{"k": secret}, namespace
			view, err := viewOf("/state", staged, rec)
			if err != nil {
				t.Fatal(err)
			}
			if err := view.Volume.Check(); err != nil {
				t.Error(err)
			}
			return view
		}
		first := asked(1, "a", "")
		if first.Volume.ID != asked(1, "b", "ns").Volume.ID || first.Volume.ID == asked(2, "a", "").Volume.ID {
			t.Errorf("%s: %s, %s, %s", id, first.Volume.ID, asked(1, "b", "ns").Volume.ID, asked(2, "a", "").Volume.ID)
		}
	}
}
