package driver

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
)

// TestAloneAmongViews: a target that is alone is so among all mounts of its volume.
func TestAloneAmongViews(t *testing.T) {
	volume := record{Volume: handover.Volume{ID: "v"}, Targets: []target{{Path: "/a"}}}
	view := record{Volume: handover.Volume{ID: "v@1"}, Of: "v", Targets: []target{{Path: "/b", Alone: true}}}
	empty, fresh := record{Volume: volume.Volume}, record{Of: "v"}
	for what, c := range map[string]struct {
		rec    record
		target target
		mounts []record
		code   codes.Code
	}{
		"one more":              {volume, target{Path: "/c"}, []record{volume}, codes.OK},
		"one more, alone":       {volume, target{Path: "/c", Alone: true}, []record{volume}, codes.FailedPrecondition},
		"beside one alone":      {volume, target{Path: "/c"}, []record{empty, view}, codes.FailedPrecondition},
		"the same again":        {view, target{Path: "/b", Alone: true}, []record{volume, view}, codes.OK},
		"the same, not alone":   {view, target{Path: "/b"}, []record{volume, view}, codes.AlreadyExists},
		"in a view not yet put": {fresh, target{Path: "/c", Alone: true}, []record{volume}, codes.FailedPrecondition},
	} {
		if err := mayPublish(c.rec, c.target, c.mounts); status.Code(err) != c.code {
			t.Errorf("%s: %v, want %s", what, err, c.code)
		}
	}
}
