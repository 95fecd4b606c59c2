package fluid

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/sanity/kubenodes"
	"millrace.io/millrace/sanity/pattern"
	"millrace.io/millrace/sanity/serve"
	"millrace.io/millrace/sanity/testbed"
)

// stage is the cluster that all scenes share.
type stage struct {
	ctx  context.Context // ends when the run is interrupted
	once sync.Once
	err  error // why there is none
	bed  *testbed.Bed

	// mu guards the rest.
	mu      sync.Mutex
	sites   map[string]*serve.Server // what the web server has, by scene
	results map[string]bool          // whether a document held, by its name
}

var shared = stage{sites: map[string]*serve.Server{}, results: map[string]bool{}}

// siteName is the web server's and the S3 server's host.
const siteName = "mirror.example.org"

// laneCount is how many scenes run side by side, each on two nodes.
func laneCount() int {
	if n, err := strconv.Atoi(os.Getenv("MILLRACE_FLUID_LANES")); err == nil && n > 0 {
		return min(n, 4)
	}
	return 3
}

// lane are the two nodes of a scene.
func lane(i int) [2]string {
	return [2]string{fmt.Sprintf("node%d", 2*i+1), fmt.Sprintf("node%d", 2*i+2)}
}

// get is the stage, for a test that has asked for it.
func get(t *testing.T) *stage {
	t.Helper()
	if os.Getenv("MILLRACE_FLUID") == "" {
		t.Skip("starts a Kubernetes cluster: make fluid")
	}
	if err := kubenodes.Check(); err != nil {
		t.Skip(err)
	}
	shared.once.Do(func() { shared.err = shared.start(t) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return &shared
}

func (s *stage) start(t *testing.T) error {
	t.Helper()
	begin := time.Now()
	var err error
	// A namespace's node selector keeps what a scene runs on the scene's nodes, with nothing added to its YAML.
	s.bed, err = testbed.Start(s.ctx, kubenodes.Options{
		Nodes: 2 * laneCount(), Shm: 8 << 30, Log: t.Logf, Names: map[string]string{siteName: kubenodes.ControlPlane},
		Admission: []string{"PodNodeSelector"},
	}, nil)
	if err != nil {
		return err
	}
	for i := range laneCount() {
		nodes := lane(i)
		label := laneLabel + "=" + strconv.Itoa(i)
		if _, err := s.bed.Cluster.Kubectl(s.ctx, "label", "node", nodes[0], nodes[1], label); err != nil {
			return err
		}
	}
	if err := errors.Join(s.serve(), s.startS3()); err != nil {
		return err
	}
	if err := s.bed.Install(); err != nil {
		return err
	}
	t.Logf("all is there after %v", time.Since(begin).Round(time.Second))
	return nil
}

const laneLabel = "lane"

// stop ends the cluster.
func (s *stage) stop() error {
	if s.bed == nil {
		return nil
	}
	return s.bed.Stop()
}

// serve starts the web server, in which each scene has a directory.
func (s *stage) serve() error {
	listener, err := s.bed.Control().Listen(s.ctx, "tcp", kubenodes.ControlPlane+":80")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(s.answer), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(s.ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }() // It ends with its context.
	return nil
}

func (s *stage) answer(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	site := s.sites[name]
	s.mu.Unlock()
	if site == nil {
		http.NotFound(w, r)
		return
	}
	http.StripPrefix("/"+name, site).ServeHTTP(w, r)
}

// site writes what the web server has for a scene.
func (s *stage) site(name string) (*serve.Server, error) {
	dir := s.directory(name)
	for under, tree := range web {
		if err := tree.write(filepath.Join(dir, under)); err != nil {
			return nil, err
		}
	}
	site, err := serve.New(dir, serve.Options{})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sites[name] = site
	return site, nil
}

func (s *stage) directory(scene string) string { return filepath.Join(s.bed.Dir(), "web", scene) }

// startS3 starts an S3 server with its buckets.
func (s *stage) startS3() error {
	root := filepath.Join(s.bed.Dir(), "s3")
	for under, tree := range buckets {
		if err := tree.write(filepath.Join(root, under)); err != nil {
			return err
		}
	}
	err := testbed.StartS3(s.ctx, s.bed.Control(), kubenodes.ControlPlane, testbed.S3Port, root)
	return err
}

// tree has the sizes of files by their paths. A file's content is that of its name.
type tree map[string]int64

func (t tree) write(dir string) error {
	for name, size := range t {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := pattern.Write(path, filepath.Base(name), size); err != nil {
			return err
		}
	}
	return nil
}

// nothingIsLeft waits until all namespaces are gone, and looks at the nodes.
func (s *stage) nothingIsLeft(t *testing.T) {
	s.bed.Await(t, 4*time.Minute, "all gone", func() error {
		out, err := s.bed.Cluster.Kubectl(t.Context(), "get", "namespaces", "-l", sceneLabel, "-o", "name")
		if err == nil && out != "" {
			err = fmt.Errorf("there are %s", strings.Fields(out))
		}
		if err != nil {
			return err
		}
		if out, err = s.bed.Cluster.Kubectl(t.Context(), "get", "pv", "-o", "name"); err == nil && out != "" {
			err = fmt.Errorf("there are %s", strings.Fields(out))
		}
		return errors.Join(err, s.bed.OnNodes(t.Context()))
	})
}
