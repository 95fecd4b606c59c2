package wire_test

import (
	"os"
	"path"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/reflect/protoreflect"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
)

// alluxio is the cluster of this package's tests.
var alluxio = cluster.Shared{Config: cluster.Config{Masters: 1, Workers: 1, TierQuota: 16 << 20}}

func TestMain(m *testing.M) { os.Exit(alluxio.Run(m)) }

// TestAgreesWithTheJar compares all that we use, the worker's service too, with the protocol of the pinned jar.
func TestAgreesWithTheJar(t *testing.T) {
	report(t, differences(ourFiles(), fromJar(t)))
}

// TestAgreesWithTheMaster compares what we use of the masters with what a running master says of itself.
func TestAgreesWithTheMaster(t *testing.T) {
	c := alluxio.Get(t)
	leader, err := c.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	server, err := openReflection(t.Context(), dial(t, leader))
	if err != nil {
		t.Fatal(err)
	}
	served, err := server.services()
	if err != nil {
		t.Fatal(err)
	}
	// A worker answers to nobody about its service: it is rewritten on the way to its server and loses its descriptor.
	ours := slices.DeleteFunc(ourFiles(), func(file protoreflect.FileDescriptor) bool {
		return slices.Contains([]string{"block_worker.proto", "dataserver.proto"}, path.Base(file.Path()))
	})
	var services []string
	for _, file := range ours {
		for i := range file.Services().Len() {
			services = append(services, string(file.Services().Get(i).FullName()))
		}
	}
	for _, service := range services {
		if !slices.Contains(served, service) {
			t.Errorf("the master does not serve %s, only %q", service, served)
		}
	}
	theirs, err := server.files(services)
	if err != nil {
		t.Fatal(err)
	}
	report(t, differences(ours, theirs))
}

// TestWorkerTellsNothing holds the reason for TestAgreesWithTheJar: when a worker lists its service one day, it can be
// compared with a running one.
func TestWorkerTellsNothing(t *testing.T) {
	server, err := openReflection(t.Context(), dial(t, alluxio.Get(t).Workers()[0]))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.files([]string{wire.BlockWorker_ServiceDesc.ServiceName}); err == nil {
		t.Errorf("a worker describes %s now", wire.BlockWorker_ServiceDesc.ServiceName)
	}
}

func report(t *testing.T, c *comparison) {
	t.Helper()
	for _, difference := range c.found {
		t.Error(difference)
	}
	if c.compared == 0 {
		t.Error("nothing was compared")
	}
	t.Logf("compared %d messages, fields, enum values and methods", c.compared)
}

func dial(t *testing.T, server *cluster.Server) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(server.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
