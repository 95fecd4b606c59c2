package alluxio

import (
	"testing"

	"millrace.io/millrace/cacheclient"
)

func TestHasRoom(t *testing.T) {
	c := cacheclient.Capacity{Levels: []cacheclient.Level{
		{Where: "a:1", Quota: 1000, Used: 900},
		{Where: "b:1", Quota: 1000},
	}}
	if !hasRoom(cacheclient.Capacity{}, "a:1", 1) {
		t.Error("a worker of whose room nothing is known yet has none")
	}
	for _, x := range []struct {
		worker string
		length int64
		want   bool
	}{
		{"a:1", 50, true}, {"a:1", 51, false}, {"b:1", 950, true}, {"b:1", 951, false}, {"unknown:1", 1, false},
	} {
		if got := hasRoom(c, x.worker, x.length); got != x.want {
			t.Errorf("%s has room for %d: %v", x.worker, x.length, got)
		}
	}
}
