package masters

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/sanity/fakemaster"
)

// TestAsk looks at what one round finds out, and at what it says where it cannot.
func TestAsk(t *testing.T) {
	closed := newMaster(t)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		prepare func(m, other *fakemaster.Master, want *Want)
		want    func(State) bool
		says    string
	}{
		"no pod runs": {
			func(_, _ *fakemaster.Master, w *Want) { w.Idle = true },
			func(s State) bool { return !s.Asked && s.Err != "" }, "no pod of Alluxio runs yet",
		},
		"no master listens": {
			func(_, _ *fakemaster.Master, w *Want) { w.Masters = []string{closed.Address()} },
			func(s State) bool { return s.Asked && !s.Mounted && len(s.Roles) == 0 }, "says that it leads",
		},
		"none leads": {
			func(m, other *fakemaster.Master, _ *Want) { m.Follow(true); other.Follow(true) },
			func(s State) bool { return len(s.Roles) == 2 && !s.Disagree }, "says that it leads",
		},
		"two lead": {
			func(_, _ *fakemaster.Master, _ *Want) {},
			func(s State) bool { return s.Disagree && !s.Mounted }, "these masters are not one Alluxio",
		},
		"one leads": {
			func(_, other *fakemaster.Master, _ *Want) { other.Follow(true) },
			func(s State) bool { return s.Mounted && s.Leader != "" && len(s.Workers) == 1 && s.Used == 30 }, "",
		},
		"a mount is refused": {
			func(m, other *fakemaster.Master, _ *Want) {
				other.Follow(true)
				m.Refuse(func(call, _ string) error {
					if call == "mount" {
						return status.Error(codes.PermissionDenied, "not with these keys")
					}
					return nil
				})
			},
			func(s State) bool { return !s.Mounted && s.Err == "" && s.Leader != "" }, "not with these keys",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, other := newMaster(t), newMaster(t)
			m.SetWorkers(fakemaster.Worker{Host: "10.0.0.1", Port: 29999, Capacity: 100, Used: 40})
			want := Want{
				Masters: []string{m.Address(), other.Address()}, User: "root", Mounts: mountsOf("/a=s3://a"), Reserved: 10,
			}
			tc.prepare(m, other, &want)
			c, _ := newClusters()
			s := c.ask(t.Context(), want)
			if text := s.Err + s.MountErr; !tc.want(s) || !strings.Contains(text, tc.says) || (text == "") != (tc.says == "") {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestEmptied has workers drop what they hold before they end, leaves the mounts as they are, and says so only when
// nothing is left.
func TestEmptied(t *testing.T) {
	m := newMaster(t)
	m.SetWorkers(fakemaster.Worker{Host: "10.0.0.1", Port: 1, Capacity: 100, Used: 40})
	want := Want{Masters: []string{m.Address()}, User: "root", Mounts: mountsOf("/a=s3://a"), Empty: true}
	c, _ := newClusters()
	m.Refuse(func(call, _ string) error {
		if call == "free" {
			return status.Error(codes.Internal, "pinned")
		}
		return nil
	})
	if s := c.ask(t.Context(), want); s.Emptied || !strings.Contains(s.EmptyErr, "pinned") || s.Used != 40 {
		t.Errorf("refused: %+v", s)
	}
	m.Refuse(nil)
	if s := c.ask(t.Context(), want); s.Emptied || s.EmptyErr != "" || s.Used != 40 {
		t.Errorf("asked for: %+v", s)
	}
	if s := c.ask(t.Context(), want); !s.Emptied || s.Used != 0 {
		t.Errorf("done: %+v", s)
	}
	for _, did := range m.Did() {
		if did != "free /" {
			t.Errorf("it was asked for %q", did)
		}
	}
}

// TestRound tells the reconciler of what is news, and of nothing else; and keeps what was known while no master
// answers.
func TestRound(t *testing.T) {
	m := newMaster(t)
	uses := func(used int64) {
		m.SetWorkers(fakemaster.Worker{Host: "10.0.0.1", Port: 1, Capacity: 100, Used: used})
	}
	uses(40)
	c, _ := newClusters()
	c.Want(key, Want{Masters: []string{m.Address()}, User: "root", Mounts: mountsOf("/a=s3://a")})
	cl := c.byKey[key]
	cl.state.Sources = map[string]SourceVerdict{"/a": {State: gateway.Refused}}
	for i, step := range []struct {
		do   func()
		want next
		used int64
	}{
		{func() {}, next{changed: true}, 40},
		{func() {}, next{}, 40},
		{func() { uses(50) }, next{changed: true}, 50},
		{func() { m.Follow(true) }, next{changed: true}, 50},
		{func() {}, next{}, 50},
		{func() { m.Follow(false) }, next{changed: true}, 50},
	} {
		step.do()
		if n := c.round(t.Context(), cl); n != step.want {
			t.Errorf("round %d: %+v, want %+v", i, n, step.want)
		}
		s := c.State(key)
		if s.Used != step.used || !s.Mounted || s.Sources["/a"].State != gateway.Refused {
			t.Errorf("round %d knows %+v", i, s)
		}
	}
}

// TestWhatARoundBegins finds out the sizes of sources once an hour, and drains workers that leave once.
func TestWhatARoundBegins(t *testing.T) {
	m := newMaster(t)
	c, _ := newClusters()
	want := Want{Masters: []string{m.Address()}, User: "root", Mounts: mountsOf("/a=s3://a"), Sizes: true}
	c.Want(key, want)
	cl := c.byKey[key]
	for i, step := range []struct {
		do          func()
		walk, drain bool
	}{
		{func() {}, true, false},
		{func() {}, false, false}, // The first walk goes on.
		{func() { cl.walking, cl.walked = false, time.Now() }, false, false},
		{func() { cl.walked = time.Now().Add(-walkEvery) }, true, false},
		{func() { want.Leaving = []string{"10.0.0.2"}; c.Want(key, want) }, false, true},
		{func() {}, false, false}, // The drain goes on.
		{func() { cl.draining, cl.state.Drain = false, Drain{Leaving: want.Leaving, Done: true} }, false, false},
		{func() { want.Leaving = []string{"10.0.0.2", "10.0.0.3"}; c.Want(key, want) }, false, true},
		{func() { cl.draining = false; m.Follow(true) }, false, false},
	} {
		step.do()
		if n := c.round(t.Context(), cl); n.walk != step.walk || n.drain != step.drain {
			t.Errorf("round %d: %+v", i, n)
		}
	}
	want.Leaving = nil
	c.Want(key, want)
	if c.round(t.Context(), cl); c.State(key).Drain.Leaving != nil {
		t.Error("a drain is told of although no worker leaves")
	}
}

// TestWant begins a round at once where something else is wanted, and takes nothing for mounted that was not mounted
// yet.
func TestWant(t *testing.T) {
	c, _ := newClusters()
	first := Want{Masters: []string{"m:1"}, Mounts: mountsOf("/a=s3://a")}
	known := State{
		Asked: true, Mounted: true, Sized: true, Total: 5, Sources: map[string]SourceVerdict{"/a": {State: gateway.Reached}},
		Roles: map[string]rpc.Role{"m:1": rpc.Leading},
	}
	for _, step := range []struct {
		name   string
		change func(*Want)
		begins bool
		stays  bool
	}{
		{"the same", func(*Want) {}, false, true},
		{"something happened to a pod", func(w *Want) { w.Seen = "x" }, true, true},
		{"other mounts", func(w *Want) { w.Mounts = mountsOf("/b=s3://b") }, true, false},
	} {
		c.Want(key, first)
		cl := c.byKey[key]
		cl.state = known
		for len(cl.kick)+len(cl.look) > 0 {
			select {
			case <-cl.kick:
			case <-cl.look:
			}
		}
		want := first
		step.change(&want)
		c.Want(key, want)
		if begins := len(cl.kick) == 1 && len(cl.look) == 1; begins != step.begins {
			t.Errorf("%s: a round begins: %v", step.name, begins)
		}
		if s := c.State(key); reflect.DeepEqual(s, known) != step.stays || !step.stays && (s.Mounted || s.Sized) {
			t.Errorf("%s: known is %+v", step.name, s)
		}
	}
	c.Forget(key)
	if s := c.State(key); !reflect.DeepEqual(s, State{}) {
		t.Errorf("of a Dataset that is gone is known %+v", s)
	}
	c.Soon(key)
}
