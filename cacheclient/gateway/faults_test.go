package gateway_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/serve"
)

// TestTraffic reads a file whole, in ranges, and by many at once: each costs the source what is read and no more.
func TestTraffic(t *testing.T) {
	pace.Long(t)
	dir := t.TempDir()
	want := randomFile(t, dir, "file", 32<<20)
	server, address := httpSource(t, dir, serve.Options{})
	r := start(t, open(t, "http://"+address+"/"), nil)
	c := r.client(r.keys)
	if got, err := get(t, c, "file"); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// The first file of a server is described by its first byte.
	if s := server.Stats(); s.BodyBytes != int64(len(want))+1 {
		t.Errorf("one read of %d bytes cost the source %d", len(want), s.BodyBytes)
	}
	before := server.Stats()
	for off := 0; off < len(want); off += 8 << 20 {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{
			Bucket: aws.String("data"), Key: aws.String("file"),
			Range: aws.String("bytes=" + strconv.Itoa(off) + "-" + strconv.Itoa(off+8<<20-1)),
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(out.Body)
		_ = out.Body.Close()
		if err != nil || !bytes.Equal(got, want[off:off+8<<20]) {
			t.Errorf("from %d: %d bytes, %v", off, len(got), err)
		}
	}
	if s := server.Stats().Sub(before); s.BodyBytes != int64(len(want)) {
		t.Errorf("one read in ranges of %d bytes cost the source %d", len(want), s.BodyBytes)
	}
	if n := r.metric(t, "millrace_gateway_source_received_bytes_total"); n != 64<<20 {
		t.Errorf("%v bytes are counted as received", n)
	}
	if n := r.metric(t, "millrace_gateway_sent_bytes_total"); n != 64<<20 {
		t.Errorf("%v bytes are counted as sent", n)
	}
	if n := r.metric(t, "millrace_gateway_source_streams"); n != 0 {
		t.Errorf("%v streams are open", n)
	}
}

// TestSourceDown asks of a source that is down, and sees it come back.
func TestSourceDown(t *testing.T) {
	pace.Long(t)
	dir := t.TempDir()
	makeFiles(t, dir, "file", "dir/file")
	server, address := httpSource(t, dir, serve.Options{})
	r := start(t, open(t, "http://"+address+"/"), nil)
	c := r.client(r.keys)
	list(t, c, "", "", 1000)
	if r.probe(t, "/readyz") != 200 || r.probe(t, "/healthz") != 200 {
		t.Error("not ready")
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	// Known by the listing, and not.
	for _, key := range []string{"file", "dir/other"} {
		begun := time.Now()
		_, err := get(t, c, key)
		if status, code := codeOf(err); status != http.StatusServiceUnavailable || code != "SlowDown" {
			t.Errorf("get %q: %d %s", key, status, code)
		}
		if took := time.Since(begun); took > pace.Limit(5*time.Second) {
			t.Errorf("get %q failed after %v", key, took)
		}
	}
	if _, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{
		Bucket: aws.String("data"),
		Prefix: aws.String("unseen/"),
	}); !is(err, http.StatusServiceUnavailable) {
		t.Errorf("list: %v", err)
	}
	time.Sleep(5 * time.Second)
	if got := r.probe(t, "/readyz"); got != http.StatusServiceUnavailable || r.probe(t, "/healthz") != 200 {
		t.Errorf("readyz %d", got)
	}
	if _, err := server.Start(address); err != nil {
		t.Fatal(err)
	}
	if data, err := get(t, c, "file"); err != nil || string(data) != "file" {
		t.Errorf("%q, %v", data, err)
	}
	if r.probe(t, "/readyz") != 200 {
		t.Error("not ready again")
	}
}

// breaking serves a file and breaks each response off after some bytes, as often as times says.
type breaking struct {
	data  []byte
	after int
	times atomic.Int32
	// bytes counts what was sent, and changed has the file be another one; changes has it become that when a response
	// breaks off.
	bytes            atomic.Int64
	changes, changed atomic.Bool
}

func (b *breaking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	tag := `"one"`
	if b.changed.Load() {
		tag = `"two"`
	}
	w.Header().Set("Etag", tag)
	w.Header().Set("Content-Type", "application/octet-stream")
	out := &cutting{ResponseWriter: w, b: b, left: -1}
	if r.Header.Get("Range") == "bytes=0-0" {
		// By which the file is described.
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(b.data))
		return
	}
	if r.Method == http.MethodGet && b.times.Add(-1) >= 0 {
		out.left = b.after
	}
	http.ServeContent(out, r, "", time.Unix(1e9, 0), bytes.NewReader(b.data))
}

type cutting struct {
	http.ResponseWriter
	b    *breaking
	left int
}

var errCut = errors.New("cut")

func (c *cutting) Write(p []byte) (int, error) {
	if c.left >= 0 && len(p) > c.left {
		p = p[:c.left]
	}
	n, err := c.ResponseWriter.Write(p)
	c.b.bytes.Add(int64(n))
	if c.left >= 0 {
		if c.left -= n; c.left == 0 && err == nil {
			c.b.changed.Store(c.b.changes.Load())
			err = errCut
		}
	}
	return n, err
}

// TestBreaks has the source break off in the middle: once is mended, always is a response that is cut, and a
// file that changed meanwhile is never mixed with what was sent of it.
func TestBreaks(t *testing.T) {
	serveFile := func(t *testing.T, times int32) (*breaking, *running) {
		t.Helper()
		b := &breaking{data: make([]byte, 4<<20), after: 600_000}
		_, _ = rand.Read(b.data)
		b.times.Store(times)
		server := httptest.NewServer(b)
		t.Cleanup(server.Close)
		return b, start(t, open(t, server.URL+"/"), nil)
	}
	t.Run("once", func(t *testing.T) {
		b, r := serveFile(t, 1)
		got, err := get(t, r.client(r.keys), "file")
		if err != nil || !bytes.Equal(got, b.data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if n := b.bytes.Load(); n != int64(len(b.data)) {
			t.Errorf("the source sent %d bytes of %d", n, len(b.data))
		}
		if n := r.metric(t, "millrace_gateway_resumed_streams_total"); n != 1 {
			t.Errorf("%v resumed", n)
		}
	})
	t.Run("always", func(t *testing.T) {
		b, r := serveFile(t, 1000)
		got, err := get(t, r.client(r.keys), "file")
		if err == nil || !bytes.HasPrefix(b.data, got) || len(got) == len(b.data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if n := r.metric(t, `millrace_gateway_requests_total{operation="get",status="cut"}`); n != 1 {
			t.Errorf("%v cut", n)
		}
	})
	t.Run("changed", func(t *testing.T) {
		b, r := serveFile(t, 1)
		b.changes.Store(true)
		got, err := get(t, r.client(r.keys), "file")
		if err == nil || len(got) > b.after || !bytes.HasPrefix(b.data, got) {
			t.Errorf("%d bytes of a file that changed after %d, %v", len(got), b.after, err)
		}
	})
}

// doubted is a source whose bodies need to be confirmed, those from the offset from on; which fails at the offset of
// lies.
type doubted struct {
	ufs.Store
	from, lies int64
	mu         sync.Mutex
	// confirmed are the ends of bodies that were asked about; mu guards it.
	confirmed []int64
}

func (d *doubted) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*ufs.Body, error) {
	body, err := d.Store.Open(ctx, info, off, length)
	if err != nil || off < d.from {
		return body, err
	}
	end := off + length
	body.Confirm = func(context.Context) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.confirmed = append(d.confirmed, end)
		if end == d.lies {
			return cacheclient.ErrStale
		}
		return nil
	}
	return body, nil
}

// TestEachBlockIsConfirmed reads without an end over the boundaries of blocks, at each of which a client may keep what
// it has: no last byte of a block is sent before the source has confirmed it.
func TestEachBlockIsConfirmed(t *testing.T) {
	pace.Long(t)
	const block = 1 << 20
	const size = 4*block + 5
	for _, c := range []struct {
		from, lies int64
		confirmed  []int64
	}{
		{confirmed: []int64{block, 2 * block, 3 * block, 4 * block, size}},
		{lies: 3 * block},
		// The first body is asked for as far as the file goes.
		{from: 1, confirmed: []int64{size, 3 * block, 4 * block, size}},
		{from: 1, lies: 3 * block},
		{from: size},
	} {
		lies, dir := c.lies, t.TempDir()
		want := randomFile(t, dir, "file", size)
		d := &doubted{Store: open(t, dir), from: c.from, lies: lies}
		r := start(t, d, func(c *gateway.Config) { c.BlockSize = block })
		got, err := get(t, r.client(r.keys), "file")
		switch {
		case lies == 0 && (err != nil || !bytes.Equal(got, want)):
			t.Errorf("%d bytes, %v", len(got), err)
		case lies == 0 && !slices.Equal(d.confirmed, c.confirmed):
			t.Errorf("confirmed at %d", d.confirmed)
		case lies != 0 && (err == nil || int64(len(got)) >= lies || !bytes.HasPrefix(want, got)):
			t.Errorf("%d bytes of which %d are confirmed, %v", len(got), lies-block, err)
		}
	}
}

// TestChanged replaces a file: a client that knows it from before gets the new one whole.
func TestChanged(t *testing.T) {
	overSources(t, func(s *subject) {
		t, dir, r := s.T, s.dir, s.r
		if strings.HasSuffix(t.Name(), "/http") {
			pace.Long(t) // What was written within its second is read two seconds later.
		}
		c := r.client(r.keys)
		old, err := get(t, c, "one block")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			fresh := randomFile(t, dir, "fresh", len(old))
			if err := os.Rename(filepath.Join(dir, "fresh"), filepath.Join(dir, "one block")); err != nil {
				t.Fatal(err)
			}
			if got, err := get(t, c, "one block"); err != nil || !bytes.Equal(got, fresh) {
				t.Errorf("%d bytes, %v, not the new version", len(got), err)
			}
		}
		if err := os.Remove(filepath.Join(dir, "one block")); err != nil {
			t.Fatal(err)
		}
		if _, err := get(t, c, "one block"); !is(err, http.StatusNotFound) {
			t.Errorf("a removed file: %v", err)
		}
	})
}

// TestPlaces fills all places with clients that take nothing, and sees names looked up meanwhile, others wait, and the
// source be given back.
func TestPlaces(t *testing.T) {
	pace.Long(t)
	dir := t.TempDir()
	want := randomFile(t, dir, "file", 32<<20)
	_, address := httpSource(t, dir, serve.Options{})
	r := start(t, open(t, "http://"+address+"/"), func(c *gateway.Config) { c.Connections, c.MaxRequests = 4, 8 })
	c := r.client(r.keys)
	var slow []io.ReadCloser
	for range 3 {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("data"), Key: aws.String("file")})
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, out.Body)
	}
	if n := r.metric(t, "millrace_gateway_source_streams"); n != 3 {
		t.Errorf("%v streams", n)
	}
	if _, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{
		Bucket: aws.String("data"),
		Key:    aws.String("file"),
	}); err != nil {
		t.Errorf("a name beside streams: %v", err)
	}
	// All streams are taken by clients that do not read. Theirs end after a few seconds.
	begun := time.Now()
	if got, err := get(t, c, "file"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if took := time.Since(begun); took < time.Second || took > pace.Limit(15*time.Second) {
		t.Errorf("it took %v until a stream was free", took)
	}
	if n := r.metric(t, "millrace_gateway_released_streams_total"); n < 1 {
		t.Errorf("%v streams were released", n)
	}
	// And the slow ones get all of it when they go on.
	for _, body := range slow {
		got, err := io.ReadAll(body)
		_ = body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("who went on after a pause has %d bytes, %v", len(got), err)
		}
	}
}

// TestClientsGone ends requests in the middle: nothing stays open at the source.
func TestClientsGone(t *testing.T) {
	dir := t.TempDir()
	randomFile(t, dir, "file", 32<<20)
	_, address := httpSource(t, dir, serve.Options{BytesPerSecond: 20 << 20})
	r := start(t, open(t, "http://"+address+"/"), nil)
	c := r.client(r.keys)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("data"), Key: aws.String("file")})
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, out.Body)
			_ = out.Body.Close()
		})
	}
	wg.Wait()
	for range 100 {
		if r.metric(t, "millrace_gateway_source_streams") == 0 &&
			r.metric(t, "millrace_gateway_serving_requests") == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("streams of clients that have gone stay open")
}

// TestSilentClients opens more connections than the gateway takes, which say nothing; others are served all the same.
func TestSilentClients(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir, "file")
	r := start(t, open(t, dir), nil)
	for range 200 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.endpoint, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	if data, err := get(t, r.client(r.keys), "file"); err != nil || string(data) != "file" {
		t.Errorf("%q, %v", data, err)
	}
}

// TestUnaskedBody sends a body that never ends, signed or not: the answer comes at once and the connection ends.
func TestUnaskedBody(t *testing.T) {
	r := start(t, open(t, t.TempDir()), nil)
	for _, signed := range []bool{true, false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, r.endpoint+"/data/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		if signed {
			err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(),
				aws.Credentials{AccessKeyID: r.keys.AccessKeyID, SecretAccessKey: r.keys.SecretAccessKey}, req,
				"UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now())
			if err != nil {
				t.Fatal(err)
			}
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(r.endpoint, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "PUT /data/x HTTP/1.1\r\nHost: "+req.Host+"\r\nContent-Length: 1000000\r\n")
		_ = req.Header.Write(conn)
		_, _ = io.WriteString(conn, "\r\nsome bytes")
		begun := time.Now()
		_ = conn.SetReadDeadline(begun.Add(20 * time.Second))
		answer, err := io.ReadAll(conn)
		if !bytes.Contains(answer, []byte("AccessDenied")) || err != nil ||
			time.Since(begun) > pace.Limit(10*time.Second) {
			t.Errorf("signed %v: %q, %v after %v", signed, answer, err, time.Since(begun))
		}
	}
}
