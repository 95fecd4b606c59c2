package masters

import (
	"log/slog"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/fakemaster"
)

// key is the Dataset of these tests.
var key = types.NamespacedName{Namespace: "n", Name: "d"}

// newMaster is a master that leads.
func newMaster(t *testing.T) *fakemaster.Master {
	t.Helper()
	m, err := fakemaster.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// newClusters asks masters in no round but those of the test. Each notification is counted.
func newClusters() (c *Clusters, told *int) {
	told = new(int)
	return &Clusters{Log: slog.New(slog.DiscardHandler), Notify: func(types.NamespacedName) { *told++ }}, told
}

// connected is a connection to a master, for a test.
func connected(t *testing.T, m *fakemaster.Master) *rpc.Cluster {
	t.Helper()
	conn, err := connect(Want{Masters: []string{m.Address()}, User: "root"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Release)
	return conn
}
