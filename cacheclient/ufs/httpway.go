package ufs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// errInside says that a redirect leads to this machine, or to its link.
var errInside = errors.New("a redirect to another host that leads to an address of this machine or of its link is " +
	"refused")

// way is how connections are made: directly or through a proxy, and after a redirect to another host to no address that
// only this machine reaches. D-153 says why.
type way struct {
	proxy  func(*http.Request) (*url.URL, error)
	dialer net.Dialer
	// proxies are the addresses of proxies, which the user names.
	proxies sync.Map
}

func newWay(proxies proxyOptions, opts Options) (*way, error) {
	choose, err := proxies.choose(opts.Network.Proxies)
	if err != nil {
		return nil, err
	}
	w := &way{dialer: net.Dialer{Timeout: opts.ResponseTimeout, KeepAlive: 30 * time.Second}}
	w.proxy = func(r *http.Request) (*url.URL, error) {
		u, err := choose(r)
		if u != nil {
			w.proxies.Store(u.Hostname(), true)
		}
		return u, err
	}
	return w, nil
}

// awayKey marks the context of a request to a host that a redirect named.
type awayKey struct{}

func away(ctx context.Context, is bool) context.Context { return context.WithValue(ctx, awayKey{}, is) }

// dial connects. What a redirect named is looked at when its name has become an address, so that no name hides one.
func (w *way) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	_, proxy := w.proxies.Load(host)
	if away, _ := ctx.Value(awayKey{}).(bool); !away || proxy {
		return w.dialer.DialContext(ctx, network, address)
	}
	guarded := w.dialer
	guarded.Control = func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err == nil && inside(at.Addr()) {
			return errInside
		}
		return err
	}
	return guarded.DialContext(ctx, network, address)
}

// outside refuses a host that is written as an address inside; a proxy would connect to it.
func outside(host string) error {
	if at, err := netip.ParseAddr(host); err == nil && inside(at) || host == "localhost" {
		return errInside
	}
	return nil
}

// inside reports whether an address means another thing on each machine: the loopback, the link, where clouds have
// their metadata services, and none.
func inside(at netip.Addr) bool {
	at = at.Unmap()
	return at.IsLoopback() || at.IsLinkLocalUnicast() || at.IsUnspecified() || at.IsMulticast()
}
