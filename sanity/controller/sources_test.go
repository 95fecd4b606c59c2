package controller_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/controller/masters"
	"millrace.io/millrace/controller/objects"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// hanging is a server of S3 that stops to answer where a test says so.
type hanging struct {
	http.Handler
	hangs atomic.Bool
	ended chan struct{}
	asked atomic.Int64
}

func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	if h.hangs.Load() {
		select {
		case <-h.ended:
		case <-r.Context().Done():
		}
		return
	}
	h.Handler.ServeHTTP(w, r)
}

// bucket is a server of S3 over a directory with one file.
func bucket(t *testing.T, name string, keys gateway.Keys) *hanging {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	store, err := ufs.Open(t.Context(), dir, ufs.Options{})
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	g, err := gateway.New(gateway.Config{Store: store, Bucket: name, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	return &hanging{Handler: g, ended: make(chan struct{})}
}

// TestSourcesOfARealAlluxio has a real master ask sources that it reads itself: one that is well, and one for each
// thing that can be wrong. Then the first one hangs, and is mended.
func TestSourcesOfARealAlluxio(t *testing.T) {
	t.Parallel()
	servers := cluster.ForTest(t, cluster.Config{Masters: 1, NoWorkers: true})
	keys := gateway.NewKeys()
	well := bucket(t, "well", keys)
	defer close(well.ended)
	plain := httptest.NewServer(well)
	t.Cleanup(plain.Close)
	secure := httptest.NewTLSServer(well)
	t.Cleanup(secure.Close)
	want := masters.Want{Masters: []string{servers.Masters()[0].Address()}, User: "root"}
	wanted := map[string]gateway.State{}
	for name, source := range map[string]struct {
		endpoint, key string
		state         gateway.State
	}{
		"well": {
			plain.URL, keys.SecretAccessKey, gateway.Reached,
		}, "keys": {
			plain.URL, "some other secret key",
			gateway.Refused,
		},
		"authority": {
			secure.URL, keys.SecretAccessKey, gateway.Untrusted,
		}, "server": {
			"http://127.0.0.1:1",
			keys.SecretAccessKey, gateway.Unreached,
		},
	} {
		m := rpc.Mount{Path: "/" + name, Source: "s3://" + name + "/", ReadOnly: true, Properties: map[string]string{
			"s3a.accessKeyId": keys.AccessKeyID, "s3a.secretKey": source.key,
			"alluxio.underfs.s3.endpoint":        source.endpoint,
			"alluxio.underfs.s3.endpoint.region": "us-east-1", "alluxio.underfs.s3.disable.dns.buckets": "true",
			"alluxio.underfs.s3.inherit.acl": "false", objects.HashOption: name,
		}}
		want.Mounts = append(want.Mounts, m)
		want.Sources = append(want.Sources, objects.Source{Name: name, Path: m.Path})
		wanted[m.Path] = source.state
	}
	clusters := &masters.Clusters{Notify: func(types.NamespacedName) {}, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- clusters.Start(ctx) }()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	key := types.NamespacedName{Namespace: "default", Name: "asked"}
	clusters.Want(key, want)
	become := func() {
		t.Helper()
		eventually(t, "the verdicts", func() string {
			state := clusters.State(key)
			for path, want := range wanted {
				if v := state.Sources[path]; v.State != want {
					return fmt.Sprintf("%s is %q (%s), want %q; mounted %v %s", path, v.State, v.Message, want,
						state.Mounted, state.MountErr)
				}
			}
			return ""
		})
	}
	become()
	before := well.asked.Load()
	time.Sleep(5 * time.Second)
	// One that is ill has all be asked again after 3 s; each question costs the server three requests, a refused one a
	// single one.
	if n := well.asked.Load() - before; n > 4*3 {
		t.Errorf("the server was asked %d times in 5 s", n)
	}
	begun := time.Now()
	well.hangs.Store(true)
	wanted["/well"], wanted["/keys"] = gateway.Unreached, gateway.Unreached
	become()
	pace.Within(t, "telling of a source that hangs", time.Since(begun), 15*time.Second)
	const says = "the leading master has no answer from it: it did not answer in time"
	if said := clusters.State(key).Sources["/well"].Message; said != says {
		t.Errorf("it says %q", said)
	}
	begun = time.Now()
	well.hangs.Store(false)
	wanted["/well"], wanted["/keys"] = gateway.Reached, gateway.Refused
	become()
	pace.Within(t, "telling that it is mended", time.Since(begun), 30*time.Second)
}
