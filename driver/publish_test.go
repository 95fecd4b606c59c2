package driver

import (
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
)

// TestOneHandleOneSource: a publish whose attributes name another source, or other options of it, than the volume was
// staged with is refused: two PersistentVolumes have one handle.
func TestOneHandleOneSource(t *testing.T) {
	rec := record{Volume: handover.Volume{ID: "same", Source: "s3://bucket/a", Options: map[string]string{"endpoint": "https://one"}}}
	for name, c := range map[string]struct {
		values map[string]string
		ok     bool
	}{
		"the same":       {map[string]string{"source": "s3://bucket/a", "option.endpoint": "https://one"}, true},
		"with a pod's":   {map[string]string{"source": "s3://bucket/a", "option.endpoint": "https://one", "csi.storage.k8s.io/pod.name": "p"}, true},
		"another quota":  {map[string]string{"source": "s3://bucket/a", "option.endpoint": "https://one", "quota": "1Gi"}, true},
		"none":           {nil, true},
		"another source": {map[string]string{"source": "s3://bucket/b", "option.endpoint": "https://one"}, false},
		"another option": {map[string]string{"source": "s3://bucket/a", "option.endpoint": "https://two"}, false},
		"an option less": {map[string]string{"source": "s3://bucket/a"}, false},
	} {
		err := sameSource(rec, c.values)
		if (err == nil) != c.ok || err != nil && status.Code(err) != codes.AlreadyExists {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStatsTellNoInodes: a total of inodes without free ones would be taken for a volume that is full.
func TestStatsTellNoInodes(t *testing.T) {
	for _, u := range statsResponse(handover.Stats{Capacity: 100, Used: 40, Files: 1000}, condition{}).GetUsage() {
		if u.GetUnit() != csi.VolumeUsage_BYTES || u.GetAvailable() != 60 {
			t.Errorf("%+v", u)
		}
	}
}
