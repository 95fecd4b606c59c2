package ufs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// readBuffer is net/http's buffer on a connection, in bytes. It is small on purpose: a read that is larger than the
// buffer goes from the socket into the caller's memory, and only what came together with
// the head of the response is copied.
const readBuffer = 4 << 10

// maxRedirects is how many hops are followed for one request, as many as Go and browsers follow about.
const maxRedirects = 10

// httpClient sends requests to one source: what is needed to reach it, and what may be
// told to it.
//
// It is a plain http.Transport and not rclone's fshttp: that one ends the process when a certificate file is
// missing, and takes its settings from, and counts into, process-wide state.
//
// It speaks HTTP/1.1 only. Ranges that are fetched at the same time then have a TCP
// connection each, with its own window and its own place in a server's fair queue; in HTTP/2 they
// would share one, and copy every byte through its flow control once more.
type httpClient struct {
	// files is for requests to one file, lists for index pages and for questions in the middle of a body. They have
	// separate connections: a reader of an index page, or of a body, may ask for files meanwhile, and must not wait for
	// itself.
	files, lists *http.Transport
	// header goes with each request, user and pass and the names in private to the
	// source's own host only.
	header     http.Header
	private    []string
	user, pass string
	timeout    time.Duration
	// bodies are those of files that are open, and mostBodies is how many connections they may have, 0 for any number.
	bodies     atomic.Int64
	mostBodies int64
	// stored says that a Content-Encoding belongs to the file as it is stored, as in object stores.
	stored bool
}

// idleGrace is how long idle connections stay open while a request waits for its response.
const idleGrace = 2 * time.Second

// request is what to ask for, and how to call it in an error.
type request struct {
	url  *url.URL
	show string
	// dropped says that the server took the slash off a directory's address: files are asked for so, too.
	dropped bool
}

func newHTTPClient(o httpOptions, security tlsOptions, proxies proxyOptions, opts Options) (*httpClient, error) {
	tlsConfig, err := newTLSConfig(security, opts.Network)
	if err != nil {
		return nil, err
	}
	c := &httpClient{
		header: http.Header{}, user: o.User, pass: o.Pass, timeout: opts.ResponseTimeout,
		mostBodies: int64(opts.MaxConns),
	}
	c.header.Set("User-Agent", "millrace")
	// A range of a compressed body is no range of the file.
	c.header.Set("Accept-Encoding", "identity")
	if len(o.Headers)%2 != 0 {
		return nil, errors.New("option headers is not a list key,value,key,value: its length is odd")
	}
	for i := 0; i < len(o.Headers); i += 2 {
		name := o.Headers[i]
		if !slices.Contains(c.private, name) {
			// What the user says is said instead of ours, and a name twice is two.
			c.header.Del(name)
		}
		c.header.Add(name, o.Headers[i+1])
		c.private = append(c.private, name)
	}
	way, err := newWay(proxies, opts)
	if err != nil {
		return nil, err
	}
	c.files, c.lists = newTransport(tlsConfig, way, opts, opts.MaxConns), newTransport(tlsConfig, way, opts, 0)
	return c, nil
}

// mostHeader bounds the head of a response, in bytes.
const mostHeader = 2 << 20

func newTransport(tlsConfig *tls.Config, way *way, opts Options, maxConns int) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  way.proxy,
		DialContext:            way.dial,
		MaxResponseHeaderBytes: mostHeader,
		TLSClientConfig:        tlsConfig.Clone(),
		TLSHandshakeTimeout:    opts.ResponseTimeout,
		ResponseHeaderTimeout:  opts.ResponseTimeout,
		DisableCompression:     true,
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    opts.MaxConns,
		MaxIdleConns:           2 * opts.MaxConns,
		IdleConnTimeout:        90 * time.Second,
		ReadBufferSize:         readBuffer,
		Protocols:              protocols,
	}
}

// send makes one attempt at a request and follows its redirects, but not the one that says what kind
// of thing the path is, for which isRedirect is true. The caller closes the body.
//
// It follows them itself, since http.Client refuses some that Go's own file server sends, and keeps
// credentials on the way to subdomains and other ports.
func (c *httpClient) send(
	ctx context.Context, transport *http.Transport, method string, r request, header http.Header,
) (*http.Response, error) {
	req := (&http.Request{Method: method, URL: r.url, Host: r.url.Host, Header: c.header.Clone()}).WithContext(ctx)
	for name, values := range header {
		req.Header[name] = values
	}
	if c.user != "" || c.pass != "" {
		req.SetBasicAuth(c.user, c.pass)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
	// A server of few connections may wait for those that are idle here.
	waiting := time.AfterFunc(min(idleGrace, c.timeout/4), c.close)
	defer waiting.Stop()
	for range maxRedirects {
		resp, err := transport.RoundTrip(req)
		if err != nil {
			err = explain(ctx, err, req.URL.Host, c.timeout)
			if network := (*networkError)(nil); errors.As(err, &network) {
				network.elsewhere = req.URL.Host != r.url.Host
			}
			return nil, err
		}
		if !isRedirect(resp) || tellsKind(req.URL, resp.Header.Get("Location")) {
			return resp, nil
		}
		discard(resp)
		if req, err = c.next(req, resp); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s redirects more than %d times", r.show, maxRedirects)
}

// besideKey marks the context of a question that is asked beside a body.
type besideKey struct{}

// besideBodies has questions of the context take no connection for files, all of which bodies may hold.
// D-197 says why.
func besideBodies(ctx context.Context) context.Context {
	return context.WithValue(ctx, besideKey{}, true)
}

// hold counts a body of a file, until the function that it returns is called.
func (c *httpClient) hold() (end func()) {
	c.bodies.Add(1)
	return sync.OnceFunc(func() { c.bodies.Add(-1) })
}

// forFiles is the transport for a question about a file. Bodies that come slowly may hold all connections for files.
func (c *httpClient) forFiles(ctx context.Context) *http.Transport {
	held := c.mostBodies > 0 && c.bodies.Load() >= c.mostBodies
	if beside, _ := ctx.Value(besideKey{}).(bool); beside || held {
		return c.lists
	}
	return c.files
}

// isRedirect reports whether resp sends the client elsewhere. A caller of send sees one only where tellsKind.
func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// tellsKind reports whether a redirect only adds a slash, by which servers say that the path is a directory, or
// only drops it, by which they say that it is a file.
func tellsKind(u *url.URL, location string) bool {
	plain, slash := strings.CutSuffix(u.Path, "/")
	name := plain[strings.LastIndexByte(plain, '/')+1:]
	if name == "" {
		// The root of a server is no file, wherever it leads.
		return false
	}
	// Go's file server writes the name as it is, unescaped.
	if location == name+"/" && !slash || location == "../"+name && slash {
		return true
	}
	to, err := u.Parse(location)
	return err == nil && (!slash && to.Path == plain+"/" || slash && to.Path == plain)
}

// next is the request that a redirect asks for. It refuses to leave https, and says what is private to no other
// host, also not when a later redirect leads back.
func (c *httpClient) next(req *http.Request, resp *http.Response) (*http.Request, error) {
	to, err := req.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, fmt.Errorf("%s redirects to what is no URL", req.URL.Host)
	}
	if to.Scheme != "https" && (to.Scheme != "http" || req.URL.Scheme == "https") {
		return nil, fmt.Errorf("%s redirects from %s to %s at %s, which is refused", req.URL.Host, req.URL.Scheme,
			to.Scheme, to.Host)
	}
	to.User, to.Fragment = nil, ""
	header := req.Header.Clone()
	host, ctx := req.Host, req.Context()
	if !sameHost(req.URL, to) {
		for _, name := range append([]string{"Authorization", "Cookie"}, c.private...) {
			header.Del(name)
		}
		host = to.Host
	} else if host == req.URL.Host {
		host = to.Host
	}
	if !strings.EqualFold(firstURL(resp).Hostname(), to.Hostname()) {
		if err := outside(to.Hostname()); err != nil {
			return nil, fmt.Errorf("%s redirects to %s: %w", req.URL.Host, to.Host, err)
		}
		ctx = away(ctx, true)
	} else {
		ctx = away(ctx, false)
	}
	again := (&http.Request{Method: req.Method, URL: to, Host: host, Header: header}).WithContext(ctx)
	again.Response = resp
	return again, nil
}

// sameHost reports whether to is where from is; the same name by https instead of http is.
func sameHost(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	if from.Scheme == to.Scheme {
		return port(from) == port(to)
	}
	return from.Scheme == "http" && port(from) == "80" && to.Scheme == "https" && port(to) == "443"
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

// close ends idle connections.
func (c *httpClient) close() {
	c.files.CloseIdleConnections()
	c.lists.CloseIdleConnections()
}
