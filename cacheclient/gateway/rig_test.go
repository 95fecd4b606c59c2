package gateway_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/serve"
)

// running is a gateway that serves.
type running struct {
	gateway         *gateway.Gateway
	keys            gateway.Keys
	endpoint, admin string
	// end stops it and waits.
	end func()
}

// start serves a store until the test ends.
func start(t *testing.T, store ufs.Store, adapt func(*gateway.Config)) *running {
	t.Helper()
	cfg := gateway.Config{
		Store: store, Keys: gateway.NewKeys(), Timeout: 2 * time.Second,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if adapt != nil {
		adapt(&cfg)
	}
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{gateway: g, keys: cfg.Keys}
	r.serve(t, listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0"))
	return r
}

// serve serves until end is called or the test ends.
func (r *running) serve(t *testing.T, s3Listener, adminListener net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.gateway.Serve(ctx, s3Listener, adminListener) }()
	r.endpoint, r.admin = "http://"+s3Listener.Addr().String(), "http://"+adminListener.Addr().String()
	ended := false
	r.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(r.end)
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// open opens a source.
func open(t *testing.T, source string) ufs.Store {
	t.Helper()
	store, err := ufs.Open(t.Context(), source, ufs.Options{ResponseTimeout: 2 * time.Second, Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// httpSource serves a directory by HTTP.
func httpSource(t *testing.T, dir string, opts serve.Options) (*serve.Server, string) {
	t.Helper()
	server, err := serve.New(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	address, err := server.Start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server, address
}

// client is an S3 client of the AWS SDK with these keys, which asks once.
func (r *running) client(keys gateway.Keys) *s3.Client {
	return s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String(r.endpoint), UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(keys.AccessKeyID, keys.SecretAccessKey, ""),
	})
}

// get reads an object whole.
func get(t *testing.T, c *s3.Client, key string) ([]byte, error) {
	t.Helper()
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("data"), Key: aws.String(key)})
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Body.Close() }()
	return io.ReadAll(out.Body)
}

// listed is what a listing tells.
type listed struct {
	objects map[string]int64
	etags   map[string]string
	// keys and prefixes are in the order of the pages.
	keys, prefixes []string
	pages          int
}

// list reads all pages of a listing of version 2.
func list(t *testing.T, c *s3.Client, prefix, delimiter string, most int32) listed {
	t.Helper()
	l := listed{objects: map[string]int64{}, etags: map[string]string{}}
	pages := s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{
		Bucket: aws.String("data"), Prefix: aws.String(prefix), Delimiter: aws.String(delimiter),
		MaxKeys: aws.Int32(most),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		l.pages++
		if n := int32(len(page.Contents) + len(page.CommonPrefixes)); n > most || n != *page.KeyCount {
			t.Fatalf("list %q: %d items, %d asked for, %d told", prefix, n, most, *page.KeyCount)
		}
		for _, o := range page.Contents {
			l.keys = append(l.keys, *o.Key)
			l.objects[*o.Key], l.etags[*o.Key] = *o.Size, *o.ETag
		}
		for _, p := range page.CommonPrefixes {
			l.prefixes = append(l.prefixes, *p.Prefix)
		}
	}
	return l
}

// codeOf is the status and S3's code of an error of the SDK.
func codeOf(err error) (int, string) {
	var status interface{ HTTPStatusCode() int }
	var api smithy.APIError
	if !errors.As(err, &status) {
		return 0, fmt.Sprint(err)
	}
	if errors.As(err, &api) {
		return status.HTTPStatusCode(), api.ErrorCode()
	}
	return status.HTTPStatusCode(), ""
}

// subject is a gateway over one kind of source, whose files are in dir.
type subject struct {
	*testing.T
	dir string
	r   *running
}

// overSources runs a test over the tree behind a web server and as a directory.
func overSources(t *testing.T, test func(*subject)) {
	t.Helper()
	for name, source := range map[string]func(t *testing.T, dir string) string{
		"http": func(t *testing.T, dir string) string {
			t.Helper()
			_, address := httpSource(t, dir, serve.Options{})
			return "http://" + address + "/"
		},
		"directory": func(_ *testing.T, dir string) string { return dir },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cachetest.Write(t, dir)
			test(&subject{t, dir, start(t, open(t, source(t, dir)), nil)})
		})
	}
}

// is reports whether an error of the SDK has this status.
func is(err error, status int) bool {
	got, _ := codeOf(err)
	return got == status
}

// walkTree is what a listing of a directory should tell, by a walk of it.
func walkTree(t *testing.T, dir string) (keys []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if p == dir || err != nil {
			return err
		}
		key, err := filepath.Rel(dir, p)
		if d.IsDir() {
			key += "/"
		}
		keys = append(keys, key)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

// metric reads one value of /metrics.
func (r *running) metric(t *testing.T, name string) float64 {
	t.Helper()
	resp, err := http.Get(r.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// probe is the status of a health endpoint.
func (r *running) probe(t *testing.T, path string) int {
	t.Helper()
	resp, err := http.Get(r.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// randomFile makes a file of random bytes.
func randomFile(t *testing.T, dir, name string, size int) []byte {
	t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data)
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return data
}
