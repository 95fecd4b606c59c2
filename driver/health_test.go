package driver

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/fuse/handover"
)

// TestObserve: a volume's condition is what the agent says of its session; of an agent that does not say anything the
// last numbers stay known.
func TestObserve(t *testing.T) {
	d, agent := newDriver(t, nil)
	agent.serves(handover.Volume{ID: "v"})
	for _, tc := range []struct {
		stats  handover.Stats
		reason string
	}{
		{handover.Stats{Used: 5, Capacity: 10, Message: "all is well"}, ""},
		{handover.Stats{Used: 6, Capacity: 10, Abnormal: true, Message: "the tier is gone"}, reasonSession},
	} {
		agent.tells("v", tc.stats)
		stats, c := d.observe(t.Context(), "v")
		if stats.Used != tc.stats.Used || c.reason != tc.reason || c.message != tc.stats.Message {
			t.Errorf("%+v, %+v", stats, c)
		}
	}
	agent.refuse(func(handover.Op, string) error { return io.EOF })
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if stats, c := d.observe(over, "v"); stats.Used != 6 || c.reason != reasonAway {
		t.Errorf("without an answer: %+v, %+v", stats, c)
	}
}

// TestUnserved: a volume that cannot be asked about is so for the agent, or because the agent does not serve it.
func TestUnserved(t *testing.T) {
	d, _ := newDriver(t, nil)
	for _, tc := range []struct {
		err          error
		up           bool
		reason, says string
	}{
		{handover.Errorf(handover.CodeNotFound, "no"), true, reasonUnserved, "does not serve the volume"},
		{errors.New("no"), true, reasonAway, "does not answer"},
		{errors.New("no"), false, reasonAway, "has not been running for"},
	} {
		d.custody.setUp(tc.up)
		if c := d.unserved(tc.err); c.reason != tc.reason || !strings.Contains(c.message, tc.says) {
			t.Errorf("%v, %v: %+v", tc.err, tc.up, c)
		}
	}
}

// TestVolumeHealth: each trouble of a volume's mounts is told once, and one that only slows it down as that.
func TestVolumeHealth(t *testing.T) {
	session, away := condition{reasonSession, "slow"}, condition{reasonAway, "away"}
	for name, tc := range map[string]struct {
		conditions []condition
		want       []csi.VolumeHealthErrorType
	}{
		"well":            {[]condition{{}, {message: "all is well"}}, nil},
		"one is degraded": {[]condition{{}, session}, []csi.VolumeHealthErrorType{csi.VolumeHealthErrorType_DEGRADED}},
		"both are away":   {[]condition{away, away}, []csi.VolumeHealthErrorType{csi.VolumeHealthErrorType_INACCESSIBLE}},
		"each has its own": {[]condition{away, session}, []csi.VolumeHealthErrorType{
			csi.VolumeHealthErrorType_INACCESSIBLE, csi.VolumeHealthErrorType_DEGRADED,
		}},
	} {
		health := healthOf("v", tc.conditions)
		same := health.GetVolumeId() == "v" && len(health.GetHealthStatuses()) == len(tc.want)
		for i := range tc.want {
			same = same && health.GetHealthStatuses()[i].GetStatus() == tc.want[i]
		}
		if !same {
			t.Errorf("%s: %v", name, health)
		}
	}
}

// TestHealthOfAVolume: the volume's views are asked about as well, and a mount that a pod lost is told. A volume that
// is not here is not found.
func TestHealthOfAVolume(t *testing.T) {
	d, agent := newDriver(t, nil)
	view := newRecord(t, "v@1")
	view.Of = "v"
	rec := newRecord(t, "v")
	for _, r := range []record{rec, view} {
		put(t, d, r)
		agent.serves(r.Volume)
	}
	ask := func() (string, error) {
		resp, err := d.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "v"})
		var reasons []string
		for _, s := range resp.GetVolumeHealth().GetHealthStatuses() {
			reasons = append(reasons, s.GetReason())
		}
		return strings.Join(reasons, " "), err
	}
	if got, err := ask(); got != "" || err != nil {
		t.Errorf("well: %q, %v", got, err)
	}
	agent.tells("v@1", handover.Stats{Abnormal: true, Message: "the tier is gone"})
	if got, err := ask(); got != reasonSession || err != nil {
		t.Errorf("a view is abnormal: %q, %v", got, err)
	}
	put(t, d, rec.with(target{Path: "/a", Lost: lost{Since: time.Unix(1, 0)}}))
	if got, err := ask(); !strings.Contains(got, reasonLost) || err != nil {
		t.Errorf("a pod lost its mount: %q, %v", got, err)
	}
	_, err := d.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: "w"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("another volume: %v", err)
	}
}

// TestStatsOfAVolume: a path at which nothing is mounted is told so, whatever the agent says. A path that is none of
// the volume's is not found. A cache that is full is no volume that fills up.
func TestStatsOfAVolume(t *testing.T) {
	d, agent := newDriver(t, nil)
	rec := newRecord(t, "v")
	if err := os.Mkdir(rec.Volume.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, d, rec)
	agent.serves(rec.Volume)
	agent.tells("v", handover.Stats{Used: 10, Capacity: 10, Files: 3})
	resp, err := d.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{
		VolumeId: "v", VolumePath: rec.Volume.Dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	usage := resp.GetUsage()
	if len(usage) != 1 || usage[0].GetUsed() != 10 || usage[0].GetAvailable() != 10 || usage[0].GetTotal() != 10 {
		t.Errorf("%v", usage)
	}
	if text := string(resp.ProtoReflect().GetUnknown()); !strings.Contains(text, "not mounted at "+rec.Volume.Dir) {
		t.Errorf("its condition is %q", text)
	}
	for id, path := range map[string]string{"v": "/elsewhere", "w": rec.Volume.Dir} {
		_, err := d.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path})
		if status.Code(err) != codes.NotFound {
			t.Errorf("%s at %s: %v", id, path, err)
		}
	}
}

// TestStorageHealth: a node is told to be unable to read only when its agent is away for longer than a restart takes.
func TestStorageHealth(t *testing.T) {
	d, _ := newDriver(t, nil)
	for name, tc := range map[string]struct {
		up    bool
		since time.Duration
		well  bool
	}{
		"up": {true, time.Hour, true}, "just gone": {false, 0, true}, "away": {false, time.Hour, false},
	} {
		d.custody.up, d.custody.since = tc.up, time.Now().Add(-tc.since)
		resp, err := d.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
		if well := len(resp.GetBackendHealth()) == 0; err != nil || well != tc.well {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
}
