package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/serve"
)

const (
	mib        = 1 << 20
	blockSize  = 64 * mib
	alluxioBig = 150 * mib
)

// TestAlluxio mounts web servers in a real Alluxio, whose own Web under store can read none of them, and compares what
// its shell lists and reads with the files.
func TestAlluxio(t *testing.T) {
	c := cluster.ForTest(t, cluster.Config{
		Masters: 1, Workers: 1, SameHost: true, BlockSize: blockSize,
		TierQuota: 512 << 20,
	})
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cachetest.Write(t, dir)
	names := []string{"empty dir/", "odd dir %41#/ü/leaf"}
	for i := range 10_000 {
		names = append(names, fmt.Sprintf("many/%05d", i))
	}
	makeFiles(t, dir, names...)
	randomFile(t, dir, "large.bin", alluxioBig)
	server, address := httpSource(t, dir, serve.Options{})
	m := mountInAlluxio(t, c, "web", "http://"+address+"/", dir)
	m.server = server
	t.Run("listing", m.listing)
	t.Run("traffic", m.traffic)
	t.Run("together", m.together)
	t.Run("content", m.content)
	t.Run("replaced", m.replaced)
	t.Run("write", m.write)
	t.Run("restarted", m.restarted)
	t.Run("nginx", func(t *testing.T) {
		small := t.TempDir()
		cachetest.Write(t, small)
		makeFiles(t, small, "empty dir/", "odd dir %41#/ü/leaf")
		n := mountInAlluxio(t, c, "nginx", serveNginx(t, small), small)
		n.listing(t)
		n.content(t)
	})
}

// alluxioMount is a gateway's bucket as Alluxio shows it.
type alluxioMount struct {
	cluster *cluster.Cluster
	gateway *running
	// at is the mount point, and dir has the files.
	at, dir string
	// server is the source, if it counts.
	server *serve.Server
}

// mountInAlluxio mounts a source through a gateway of its own, which has its own bucket: Alluxio mounts no address
// twice.
func mountInAlluxio(t *testing.T, c *cluster.Cluster, name, source, dir string) *alluxioMount {
	t.Helper()
	r := start(t, open(t, source), func(cfg *gateway.Config) { cfg.Bucket = name })
	args := []string{"mount", "--readonly"}
	options := gateway.AlluxioOptions(r.endpoint, source, r.keys)
	for _, option := range slices.Sorted(maps.Keys(options)) {
		args = append(args, "--option", option+"="+options[option])
	}
	m := &alluxioMount{cluster: c, gateway: r, at: "/" + name, dir: dir}
	m.shell(t, append(args, m.at, gateway.AlluxioURI(name))...)
	return m
}

// shell runs a command of Alluxio's file system shell.
func (m *alluxioMount) shell(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.cluster.Shell(t.Context(), args...)
	if err != nil {
		t.Fatalf("alluxio fs %q: %v", args, err)
	}
	return out
}

// listedLine is a line of ls: the size, the state, the time, how much is cached or that it is a directory, and the
// path.
var listedLine = regexp.MustCompile(`(?m)^ *(\d+) +PERSISTED (\S+ \S+) +(\d+%|DIR) (/.*)$`)

// unnamed reports whether Alluxio has no name for it: it leaves out what has a question mark, and its log says so.
func unnamed(path string) bool { return strings.Contains(path, "?") }

func (m *alluxioMount) listing(t *testing.T) {
	t.Helper()
	got := map[string]string{}
	for _, line := range listedLine.FindAllStringSubmatch(m.shell(t, "ls", "-R", m.at), -1) {
		size := line[1]
		if line[3] == "DIR" {
			size = line[3]
		}
		got[strings.TrimPrefix(line[4], m.at+"/")] = size
	}
	for _, key := range walkTree(t, m.dir) {
		if unnamed(key) {
			continue
		}
		path, isDir := strings.CutSuffix(key, "/")
		want := "DIR"
		if !isDir {
			st, err := os.Stat(filepath.Join(m.dir, path))
			if err != nil {
				t.Fatal(err)
			}
			want = strconv.FormatInt(st.Size(), 10)
		}
		if got[path] != want {
			t.Errorf("%q is listed as %q, want %q", path, got[path], want)
		}
		delete(got, path)
	}
	if len(got) != 0 {
		t.Errorf("listed and not there: %v", got)
	}
}

// traffic reads a file of three blocks and sees what it costs the source, and that it then comes from the cache.
func (m *alluxioMount) traffic(t *testing.T) {
	before := m.server.Stats()
	m.copyOut(t, "large.bin")
	cost := m.server.Stats().Sub(before)
	t.Logf("one read of %d bytes cost the source %d bytes in %d requests", alluxioBig, cost.BodyBytes, cost.Requests)
	// A worker asks from a block's first byte to the file's end and hangs up at the block's: on a busy machine late, when
	// the sockets between are full of what comes next. A block that is read twice costs 40 % more.
	if cost.BodyBytes < alluxioBig || cost.BodyBytes > alluxioBig*115/100 {
		t.Errorf("one read of %d bytes cost the source %d", alluxioBig, cost.BodyBytes)
	}
	for range 100 {
		if strings.Contains(m.shell(t, "ls", m.at+"/large.bin"), "100%") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	before = m.server.Stats()
	m.copyOut(t, "large.bin")
	if cost := m.server.Stats().Sub(before); cost.BodyBytes != 0 {
		t.Errorf("a cached file cost the source %d bytes", cost.BodyBytes)
	}
}

// together has four readers of one mount read the file by our own client, whose workers read the source. Each reads by
// its own handle what comes next, at most four MiB ahead: so the kernel asks by any handle for the pages that all
// readers share.
func (m *alluxioMount) together(t *testing.T) {
	m.shell(t, "free", m.at+"/large.bin")
	address, err := rpc.ParseAddress(strings.TrimSuffix(m.cluster.Address(), "/") + m.at)
	if err != nil {
		t.Fatal(err)
	}
	client, err := alluxio.New(t.Context(), alluxio.Config{Address: address, WorkersRead: true, NoShortCircuit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	info, err := client.Stat(t.Context(), "large.bin")
	if err != nil {
		t.Fatal(err)
	}
	before := m.server.Stats()
	var readers sync.WaitGroup
	pages := newPages(info.Size)
	for range 4 {
		readers.Go(func() {
			if err := pages.read(t.Context(), client, info); err != nil {
				t.Error(err)
			}
		})
	}
	readers.Wait()
	cost := m.server.Stats().Sub(before)
	t.Logf("four readers of %d bytes cost the source %d bytes in %d requests", alluxioBig, cost.BodyBytes,
		cost.Requests)
	// On a busy machine a worker hangs up late at the end of a block, when the gateway has read on, or asks for one of
	// the three blocks a second time. Readers that share nothing cost four times the file.
	if cost.BodyBytes < alluxioBig || cost.BodyBytes > alluxioBig*115/100+64<<20 {
		t.Errorf("four readers of %d bytes cost the source %d", alluxioBig, cost.BodyBytes)
	}
}

// pages are the MiB of a file, each of which a reader reads.
type pages struct {
	next atomic.Int64
	// done are closed when a page is here.
	done []chan struct{}
}

func newPages(size int64) *pages {
	p := &pages{done: make([]chan struct{}, size/mib)}
	for i := range p.done {
		p.done[i] = make(chan struct{})
	}
	return p
}

// read reads what no other reader does by a handle of its own.
func (p *pages) read(ctx context.Context, client cacheclient.Client, info cacheclient.Info) error {
	f, err := client.Open(ctx, info)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		i := p.next.Add(1) - 1
		if i >= int64(len(p.done)) {
			return nil
		}
		if i >= 4 {
			<-p.done[i-4]
		}
		d, err := f.Read(ctx, i*mib, mib)
		close(p.done[i])
		if err != nil {
			return err
		}
		n := d.Len()
		d.Release()
		if n != mib {
			return fmt.Errorf("%d bytes at %d MiB", n, i)
		}
	}
}

// copyOut copies a path out of Alluxio and compares it with the source's.
func (m *alluxioMount) copyOut(t *testing.T, path string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	m.shell(t, "copyToLocal", m.at+"/"+path, out)
	for _, key := range append(walkTree(t, filepath.Join(m.dir, path)), "") {
		if strings.HasSuffix(key, "/") || unnamed(key) {
			continue
		}
		want, err := os.ReadFile(filepath.Join(m.dir, path, key))
		if err != nil {
			continue // a directory, whose files follow
		}
		if got, err := os.ReadFile(filepath.Join(out, key)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s/%s: %d bytes, %v, not the %d of the source", path, key, len(got), err, len(want))
		}
	}
}

func (m *alluxioMount) content(t *testing.T) {
	t.Helper()
	for _, path := range []string{"odd", "odd dir %41#", "dir", "empty", "empty dir", "big.bin"} {
		m.copyOut(t, path)
	}
}

// replaced changes a file at the source: after the next look at it Alluxio has the new one.
func (m *alluxioMount) replaced(t *testing.T) {
	for _, text := range []string{"second version, longer", "third version, longer!"} {
		if err := os.WriteFile(filepath.Join(m.dir, "a.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		// What is believed for a while is as old as that.
		time.Sleep(6 * time.Second)
		m.shell(t, "loadMetadata", "-F", m.at+"/a.txt")
		if got := m.shell(t, "cat", m.at+"/a.txt"); got != text {
			t.Errorf("%q, want %q", got, text)
		}
	}
}

// restarted ends the gateway, in whose absence what is cached is read on, and starts it again with the same keys: the
// mount goes on.
func (m *alluxioMount) restarted(t *testing.T) {
	address := strings.TrimPrefix(m.gateway.endpoint, "http://")
	m.gateway.end()
	m.copyOut(t, "large.bin")
	m.gateway.serve(t, listen(t, address), listen(t, "127.0.0.1:0"))
	m.copyOut(t, "one block")
}

// serveNginx serves a directory by nginx, with its index pages.
func serveNginx(t *testing.T, dir string) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		// Where only root's PATH looks.
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("needs nginx")
		}
	}
	own := t.TempDir()
	address := cachetest.FreeAddress(t)
	worker := ""
	if os.Geteuid() == 0 {
		worker = "user root;"
	}
	config := fmt.Sprintf(`
daemon off; pid %[1]s/pid; error_log %[1]s/log; worker_processes 1; %[4]s
events { worker_connections 128; }
http {
  access_log off; default_type application/octet-stream;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  server { listen %[2]s; root "%[3]s"; charset utf-8; autoindex on; }
}`, own, address, dir, worker)
	file := filepath.Join(own, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, nginx, "-c", file, "-p", own, "-e", filepath.Join(own, "log"))
	// Its worker ends with it on this signal.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	cachetest.WaitListening(t, address, ended)
	return "http://" + address + "/"
}

func (m *alluxioMount) write(t *testing.T) {
	if _, err := m.cluster.Shell(t.Context(), "rm", m.at+"/a.txt"); err == nil {
		t.Error("a file is removed through a read-only mount")
	}
	if _, err := os.Stat(filepath.Join(m.dir, "a.txt")); err != nil {
		t.Error(err)
	}
}
