package masters

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// TestSilentWorkers has a worker that was replaced by one with another address: it does not count any more.
func TestSilentWorkers(t *testing.T) {
	worker := func(host string, silent int32) *wire.WorkerInfo {
		return &wire.WorkerInfo{
			Address:        &wire.WorkerNetAddress{Host: &host, RpcPort: proto.Int32(29999)},
			LastContactSec: &silent, CapacityBytes: proto.Int64(100), UsedBytes: proto.Int64(10),
		}
	}
	var state State
	infos := []*wire.WorkerInfo{worker("b", 0), worker("gone", silentAfter+1), worker("a", silentAfter)}
	count(infos, 0, &state)
	if len(state.Workers) != 2 || state.Workers[0].Address != "a:29999" || state.Capacity != 200 || state.Used != 20 {
		t.Errorf("%+v", state)
	}
	// What workers keep free is not cached, and a worker of an earlier configuration keeps nothing.
	for reserved, used := range map[int64]int64{4: 12, 10: 0, 11: 0} {
		state = State{}
		if count(infos, reserved, &state); state.Used != used || state.Capacity != 200 {
			t.Errorf("with %d reserved: %+v", reserved, state)
		}
	}
}

func TestLeaderName(t *testing.T) {
	for address, want := range map[string]string{
		"hbase-master-2/<unresolved>:19998": "hbase-master-2:19998",
		"hbase-master-2/10.1.2.3:19998":     "hbase-master-2:19998",
		"hbase-master-2:19998":              "hbase-master-2:19998",
		"/10.1.2.3:19998":                   "/10.1.2.3:19998",
		"":                                  "",
	} {
		if got := leaderName(address); got != want {
			t.Errorf("%q is called %q, not %q", address, got, want)
		}
	}
}
