// Package forward is a forward proxy for tests, as companies have them: it connects for CONNECT, asks for plain
// http://, wants a password where it has one, and knows names that no resolver does.
package forward

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"sync"
)

// Proxy is an HTTP proxy. Its fields are set before it serves.
type Proxy struct {
	// Names are the addresses, host:port, by which hosts are reached that only the proxy knows, by host:port.
	Names map[string]string
	// User and Password are wanted where User is not "".
	User, Password string
	// Dial connects; the process's own network if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// mu guards asked.
	mu sync.Mutex
	// asked is by host:port.
	asked map[string]int
}

// Asked is how many requests came for a host:port.
func (p *Proxy) Asked(address string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[address]
}

// connect connects to what a request is for.
func (p *Proxy) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if known, ok := p.Names[address]; ok {
		address = known
	}
	if p.Dial != nil {
		return p.Dial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// ServeHTTP forwards a request.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	address := r.Host
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, "80")
	}
	p.mu.Lock()
	if p.asked == nil {
		p.asked = map[string]int{}
	}
	p.asked[address]++
	p.mu.Unlock()
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password))
	if p.User != "" && r.Header.Get("Proxy-Authorization") != basic {
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method == http.MethodConnect {
		p.tunnel(w, r, address)
		return
	}
	p.ask(w, r)
}

// tunnel carries bytes both ways until both sides have ended.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, address string) {
	far, err := p.connect(r.Context(), "tcp", address)
	if err != nil {
		http.Error(w, "the host is not reached", http.StatusBadGateway)
		return
	}
	defer func() { _ = far.Close() }()
	w.WriteHeader(http.StatusOK)
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = near.Close() }()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(far, buffered)
		_ = far.Close()
	})
	_, _ = io.Copy(near, far)
	_ = near.Close()
	both.Wait()
}

// ask asks for plain HTTP.
func (p *Proxy) ask(w http.ResponseWriter, r *http.Request) {
	transport := &http.Transport{DialContext: p.connect, DisableKeepAlives: true, DisableCompression: true}
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.Header.Del("Proxy-Authorization")
	resp, err := transport.RoundTrip(out)
	if err != nil {
		http.Error(w, "the host is not reached", http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}
