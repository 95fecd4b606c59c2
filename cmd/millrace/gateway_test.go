package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/net/webdav"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cmd/commandline"
)

// gatewayShown is what a gateway says of itself.
type gatewayShown struct {
	Source      string `json:"source"`
	Bucket      string `json:"bucket"`
	Endpoint    string `json:"endpoint"`
	AccessKeyID string `json:"accessKeyId"`
	KeysFile    string `json:"keysFile"`
	Metrics     string `json:"metrics"`
}

// startGateway runs a gateway until the test ends, and returns what it said of itself.
func (r *rig) startGateway(args ...string) (*process, gatewayShown) {
	r.t.Helper()
	args = append([]string{"gateway", "-o", "json", "--metrics-listen", "127.0.0.1:0"}, args...)
	p := &process{
		rig: r, cmd: r.command(context.Background(), args...), err: &lockedBuffer{},
		ended: make(chan struct{}),
	}
	out := &lockedBuffer{}
	p.cmd.Stdout, p.cmd.Stderr = out, p.err
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	r.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	waitFor(r.t, "the gateway", func() bool {
		select {
		case <-p.ended:
			r.t.Fatalf("the gateway ended: %s", p.err)
		default:
		}
		return strings.HasSuffix(out.String(), "\n")
	})
	var shown gatewayShown
	if err := json.Unmarshal([]byte(out.String()), &shown); err != nil {
		r.t.Fatalf("%q: %v", out, err)
	}
	return p, shown
}

// mountGateway mounts a gateway's bucket, whose keys file is the file of options.
func (r *rig) mountGateway(shown gatewayShown) {
	r.t.Helper()
	r.ok(r.mountArgs("s3://"+shown.Bucket, "--background", "--revalidate", "0", "--options-file", shown.KeysFile,
		"--option", "endpoint="+shown.Endpoint)...)
}

// TestGateway mounts a directory through a gateway, which is killed and started again with the same keys meanwhile.
func TestGateway(t *testing.T) {
	r := newRig(t)
	data, odd := r.write("large.bin", 5<<20), r.write("odd/100% ü#?.txt", 1000)
	keys := filepath.Join(r.base, "keys")
	args := []string{"--keys-file", keys, "--bucket", "tree", r.source}
	p, shown := r.startGateway(append(args, "--listen", "127.0.0.1:0")...)
	if shown.Source != r.source || shown.Bucket != "tree" || shown.KeysFile != keys ||
		!strings.HasPrefix(shown.Endpoint, "http://127.0.0.1:") {
		t.Errorf("it says %+v", shown)
	}
	text, err := os.ReadFile(keys)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.TrimSpace(strings.SplitN(string(text), "secret_access_key = ", 2)[1])
	line, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/environ")
	if err != nil || len(secret) < 40 || bytes.Contains(line, []byte(secret)) ||
		strings.Contains(p.err.String(), secret) {
		t.Errorf("the secret shows, or is none: %v", err)
	}
	r.mountGateway(shown)
	r.same("large.bin", data)
	p.signal(syscall.SIGKILL)
	p.exit()
	p, again := r.startGateway(append(args, "--listen", strings.TrimPrefix(shown.Endpoint, "http://"))...)
	if again.AccessKeyID != shown.AccessKeyID || again.Endpoint != shown.Endpoint {
		t.Errorf("it says %+v after %+v", again, shown)
	}
	r.same("odd/100% ü#?.txt", odd)
	metrics := getText(t, again.Metrics)
	if !strings.Contains(metrics, "millrace_gateway_source_received_bytes_total 100") {
		t.Errorf("metrics: %s", metrics)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := getText(t, strings.TrimSuffix(again.Metrics, "/metrics")+path); got != "ok\n" {
			t.Errorf("%s: %q", path, got)
		}
	}
	r.ok("unmount", r.dir)
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 || strings.Contains(p.err.String(), secret) {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func getText(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestGatewayOverRclone reads a WebDAV server by a connection string, with the password in a file, and with keys that
// are good for one run.
func TestGatewayOverRclone(t *testing.T) {
	r := newRig(t)
	data := r.write("dir/file with space", 100_000)
	dav := &webdav.Handler{FileSystem: webdav.Dir(r.source), LockSystem: webdav.NewMemLS()}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, pass, _ := req.BasicAuth(); pass != "hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		dav.ServeHTTP(w, req)
	}))
	t.Cleanup(server.Close)
	options := filepath.Join(r.base, "options")
	if err := os.WriteFile(options, []byte("user = me\npass = hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, shown := r.startGateway("--listen", "127.0.0.1:0", "--options-file", options, ":webdav,url='"+server.URL+"':")
	if filepath.Dir(shown.KeysFile) != r.runtime {
		t.Errorf("the keys are in %s", shown.KeysFile)
	}
	r.mountGateway(shown)
	r.same("dir/file with space", data)
	r.ok("unmount", r.dir)
	p.signal(os.Interrupt)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
	if _, err := os.Stat(shown.KeysFile); err == nil {
		t.Error("keys for one run are left")
	}
}

// TestGatewayMemory has many clients read a large file at once, some of them slowly, while others list a large
// directory: the gateway's memory depends on none of it.
func TestGatewayMemory(t *testing.T) {
	r := newRig(t)
	const size, files = 64 << 20, 3000
	f, err := os.Create(filepath.Join(r.source, "large"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close(), os.Mkdir(filepath.Join(r.source, "many"), 0o755)); err != nil {
		t.Fatal(err)
	}
	for n := range files {
		if err := os.WriteFile(filepath.Join(r.source, "many",
			fmt.Sprintf("a file with a name of some length %06d", n)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := httptest.NewServer(http.FileServer(http.Dir(r.source)))
	t.Cleanup(server.Close)
	p, shown := r.startGateway("--listen", "127.0.0.1:0", "--connections", "32", server.URL+"/")
	keys, err := gateway.LoadKeys(shown.KeysFile)
	if err != nil {
		t.Fatal(err)
	}
	c := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(shown.Endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, ""),
	})
	get := func() io.ReadCloser {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("data"), Key: aws.String("large")})
		if err != nil {
			t.Error(err)
			return io.NopCloser(strings.NewReader(""))
		}
		return out.Body
	}
	for range 8 {
		// It takes nothing until the end.
		body := get()
		t.Cleanup(func() { _ = body.Close() })
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			body := get()
			defer func() { _ = body.Close() }()
			if n, err := io.Copy(io.Discard, body); n != size || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	for range 4 {
		wg.Go(func() {
			pages := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{
				Bucket: aws.String("data"),
				Prefix: aws.String("many/"),
			})
			n := 0
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				n += len(page.Contents)
			}
			if n != files+1 {
				t.Errorf("%d keys", n)
			}
		})
	}
	wg.Wait()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, err := strconv.Atoi(strings.Fields(peak)[0])
	most := 100_000
	if raceEnabled() {
		// The race detector's own memory is several times the program's.
		most *= 6
	}
	t.Logf("the peak of the resident memory is %d kB", kilobytes)
	if err != nil || kilobytes > most {
		t.Errorf("the peak of the resident memory is %d kB, at most %d (%v)", kilobytes, most, err)
	}
	p.signal(syscall.SIGTERM)
	p.exit()
}

// TestGatewayWaitsForItsSource starts before its source does.
func TestGatewayWaitsForItsSource(t *testing.T) {
	r := newRig(t)
	server := httptest.NewUnstartedServer(http.FileServer(http.Dir(r.source)))
	address := server.Listener.Addr().String()
	_ = server.Listener.Close()
	p, shown := r.startGateway("--listen", "127.0.0.1:0", "--timeout", "2s", "http://"+address+"/")
	if !strings.Contains(p.err.String(), "the source cannot be read now; requests will ask it again") {
		t.Errorf("it says %s", p.err)
	}
	ready := strings.TrimSuffix(shown.Metrics, "/metrics") + "/readyz"
	if got := getText(t, ready); !strings.Contains(got, "refuses the connection") {
		t.Errorf("readyz: %s", got)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func TestGatewayWrongInput(t *testing.T) {
	r := newRig(t)
	open := filepath.Join(r.base, "open")
	if err := os.WriteFile(open, []byte("access_key_id = KEY\nsecret_access_key = hunter2hunter2hunter2\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		say  []string
		args []string
	}{
		{commandline.ExitUsage, []string{"takes a SOURCE, not 0"}, nil},
		{commandline.ExitUsage, []string{"takes a SOURCE, not 2"}, []string{r.source, r.dir}},
		{
			commandline.ExitUsage,
			[]string{`--listen "0.0.0.0:9063" is not on the loopback`, "--allow-remote"},
			[]string{"--listen", "0.0.0.0:9063", r.source},
		},
		{
			commandline.ExitUsage,
			[]string{`--listen "9063" is not an address`, "127.0.0.1:9063"},
			[]string{"--listen", "9063", r.source},
		},
		{
			commandline.ExitUsage,
			[]string{`--metrics-listen "x" is not an address`, "or none"},
			[]string{"--metrics-listen", "x", r.source},
		},
		{
			commandline.ExitUsage,
			[]string{`--bucket "Data" is not a bucket's name`},
			[]string{"--bucket", "Data", r.source},
		},
		{commandline.ExitUsage, []string{`--connections "1" is too few`}, []string{"--connections", "1", r.source}},
		{commandline.ExitUsage, []string{`--block-size "1x" is not a size`}, []string{"--block-size", "1x", r.source}},
		{
			commandline.ExitFailure,
			[]string{"others may read or change it (mode 0644)", open},
			[]string{"--keys-file", open, r.source},
		},
		{commandline.ExitFailure, []string{"it does not exist"}, []string{filepath.Join(r.base, "no such")}},
		{commandline.ExitFailure, []string{"accepted are sftp, webdav"}, []string{":crypt,remote=/etc:"}},
	} {
		r.refused(c.code, c.say, append([]string{"gateway"}, c.args...)...)
	}
	r.refused(commandline.ExitFailure, []string{"is read through millrace gateway only"}, "mount", ":sftp,host=h:",
		r.dir)
	// A port that is taken.
	p, shown := r.startGateway("--listen", "127.0.0.1:0", r.source)
	r.refused(commandline.ExitFailure, []string{"--listen ", "address already in use"}, "gateway", "--listen",
		strings.TrimPrefix(shown.Endpoint, "http://"), r.source)
	p.signal(syscall.SIGTERM)
	p.exit()
}
