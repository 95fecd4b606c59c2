package faultproxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/faultproxy"
	"millrace.io/millrace/sanity/pace"
)

// echo is a server that sends back what it gets, and ends when its client does.
func echo(t *testing.T) string {
	t.Helper()
	return listen(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

func start(t *testing.T, target string) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.Start(t.Context(), "127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *faultproxy.Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(pace.Limit(30 * time.Second))); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// exchange sends a text and checks that it comes back; it returns how long that took.
func exchange(t *testing.T, c net.Conn, text string) time.Duration {
	t.Helper()
	begin := time.Now()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("%q came back as %q: %v", text, got, err)
	}
	return time.Since(begin)
}

// silent checks that nothing can be read for a while.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	n, err := c.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes where nothing should come: %v", n, err)
	}
	_ = c.SetReadDeadline(time.Now().Add(pace.Limit(30 * time.Second)))
}

// eventually waits for a state of the proxy.
func eventually(t *testing.T, p *faultproxy.Proxy, what string, ok func(faultproxy.Stats) bool) {
	t.Helper()
	for end := time.Now().Add(pace.Limit(30 * time.Second)); !ok(p.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: %+v", what, p.Stats())
		}
	}
}

func TestBytesAndEndsPass(t *testing.T) {
	p := start(t, echo(t))
	c := dial(t, p)
	text := strings.Repeat("0123456789", 1<<20)
	go func() {
		_, _ = io.WriteString(c, text)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != text {
		t.Fatalf("%d bytes of %d came back: %v", len(got), len(text), err)
	}
	eventually(t, p, "the connection ends", func(s faultproxy.Stats) bool { return s.Open == 0 })
	if s, want := p.Stats(), (faultproxy.Stats{Accepted: 1, Up: 10 << 20, Down: 10 << 20}); s != want {
		t.Errorf("counted %+v, want %+v", s, want)
	}
}

func TestDelaysAddUpAndDoNotSlowAStream(t *testing.T) {
	p := start(t, echo(t))
	c := dial(t, p)
	exchange(t, c, "x")
	p.Set(faultproxy.Faults{DelayUp: 60 * time.Millisecond, DelayDown: 40 * time.Millisecond})
	if took := exchange(t, c, "x"); took < 100*time.Millisecond {
		t.Errorf("100 ms of delay: an answer after %v", took)
	}
	// 400 pieces, each delayed by itself, would take 40 s.
	text := bytes.Repeat([]byte("y"), 400*64<<10)
	begin := time.Now()
	go func() { _, _ = c.Write(text) }()
	if _, err := io.ReadFull(c, make([]byte, len(text))); err != nil {
		t.Fatal(err)
	}
	pace.Within(t, "a stream of 25 MiB", time.Since(begin), 10*time.Second)
	p.Set(faultproxy.Faults{})
	exchange(t, c, "x")
}

func TestOneByteAtATime(t *testing.T) {
	sizes := make(chan int, 100)
	target := listen(t, func(c net.Conn) {
		buffer := make([]byte, 100)
		for {
			n, err := c.Read(buffer)
			if err != nil {
				close(sizes)
				return
			}
			sizes <- n
		}
	})
	p := start(t, target)
	p.Set(faultproxy.Faults{Chunk: 1, Pause: pace.Limit(10 * time.Millisecond)})
	c := dial(t, p)
	if _, err := io.WriteString(c, "twenty bytes of text"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite()
	total, reads := 0, 0
	for n := range sizes {
		total += n
		reads++
	}
	if total != 20 || reads < 10 {
		t.Errorf("%d bytes in %d reads", total, reads)
	}
}

func TestAStallHoldsBackAndLetsGo(t *testing.T) {
	p := start(t, echo(t))
	c := dial(t, p)
	exchange(t, c, "before")
	p.Set(faultproxy.Faults{StallDown: true})
	if _, err := io.WriteString(c, "held"); err != nil {
		t.Fatal(err)
	}
	eventually(t, p, "the way up is open", func(s faultproxy.Stats) bool { return s.Up == 10 })
	silent(t, c)
	p.Set(faultproxy.Faults{})
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "held" {
		t.Errorf("after the stall: %q, %v", got, err)
	}

	// Half-open: new connections are accepted and never answered, and ends are not told.
	p.Set(faultproxy.Faults{StallUp: true, StallDown: true})
	dead := dial(t, p)
	if _, err := io.WriteString(dead, "hello?"); err != nil {
		t.Fatal(err)
	}
	silent(t, dead)
	_ = c.Close()
	time.Sleep(50 * time.Millisecond)
	if s := p.Stats(); s.Open != 2 || s.Up != 10 {
		t.Errorf("while it is stalled: %+v", s)
	}
	p.Set(faultproxy.Faults{})
	eventually(t, p, "the closed connection ends", func(s faultproxy.Stats) bool { return s.Open == 1 && s.Down == 16 })
}

func TestResets(t *testing.T) {
	p := start(t, echo(t))
	one, two := dial(t, p), dial(t, p)
	exchange(t, one, "x")
	exchange(t, two, "x")
	p.Reset()
	for _, c := range []net.Conn{one, two} {
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after Reset: %d bytes, %v", n, err)
		}
	}
	eventually(t, p, "both end", func(s faultproxy.Stats) bool { return s.Open == 0 })

	p.Set(faultproxy.Faults{ResetAfter: 1000, StallUp: true})
	c := dial(t, p)
	if _, err := c.Write(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	before := p.Stats().Down
	p.Set(faultproxy.Faults{ResetAfter: 1000})
	n, err := io.Copy(io.Discard, c)
	if !errors.Is(err, syscall.ECONNRESET) || n > 1000 {
		t.Errorf("ResetAfter 1000: %d bytes, then %v", n, err)
	}
	if down := p.Stats().Down - before; down != 1000 {
		t.Errorf("delivered %d bytes, want 1000", down)
	}
	p.Set(faultproxy.Faults{})
	exchange(t, dial(t, p), "again")
}

func TestRefuseAndAccept(t *testing.T) {
	p := start(t, echo(t))
	c := dial(t, p)
	exchange(t, c, "x")
	address := p.Address()
	p.Refuse()
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused: %v", err)
	}
	exchange(t, c, "the old one goes on")
	for range 2 {
		if err := p.Accept(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if p.Address() != address {
		t.Errorf("the address was %s and is %s", address, p.Address())
	}
	exchange(t, dial(t, p), "x")
	p.Close()
	p.Close()
	if err := p.Accept(t.Context()); err == nil {
		t.Error("a closed proxy accepts")
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("after Close: %d bytes", n)
	}
}

func TestATargetThatRefusesOrResets(t *testing.T) {
	gone := listen(t, func(net.Conn) {})
	host, _, _ := net.SplitHostPort(gone)
	p := start(t, net.JoinHostPort(host, "1"))
	c, err := net.Dial("tcp", p.Address())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		_ = c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("nobody at the target: %v", err)
	}
	// A reset of the target reaches the client as one.
	resetting := start(t, listen(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	}))
	r := dial(t, resetting)
	if _, err := io.WriteString(r, "x"); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the target resets: %d bytes, %v", n, err)
	}
}

func TestStartNeedsAnAddressItCanHave(t *testing.T) {
	taken := echo(t)
	if _, err := faultproxy.Start(context.Background(), taken, "127.0.0.1:1"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("started: %v", err)
	}
}
