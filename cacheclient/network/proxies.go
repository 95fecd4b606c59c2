package network

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// None is the proxy of requests that go directly, whatever the environment says.
const None = "none"

// Proxies says which requests go through a proxy. Each is "" where nothing is said, and None where nothing goes through
// one.
type Proxies struct {
	// HTTP and HTTPS are the proxies for http:// and https://.
	HTTP, HTTPS string
	// No are the hosts that are reached directly, as NO_PROXY has them: names, which stand for what is below them as
	// well, addresses, networks, each with a port where that counts, and *. Loopback is always reached directly.
	No string
}

// FromEnvironment are the proxies of this process's environment.
func FromEnvironment() Proxies {
	e := httpproxy.FromEnvironment()
	return Proxies{HTTP: e.HTTPProxy, HTTPS: e.HTTPSProxy, No: e.NoProxy}
}

// Or are the proxies with what is not said taken from others.
func (p Proxies) Or(others Proxies) Proxies {
	for _, f := range []struct {
		mine   *string
		others string
	}{{&p.HTTP, others.HTTP}, {&p.HTTPS, others.HTTPS}, {&p.No, others.No}} {
		if *f.mine == "" {
			*f.mine = f.others
		}
	}
	return p
}

// Check tells which of the proxies is none, by the names that the caller has for them. The value is not repeated: it
// may have a password.
func (p Proxies) Check(httpName, httpsName string) error {
	for _, f := range []struct{ name, value string }{{httpName, p.HTTP}, {httpsName, p.HTTPS}} {
		if err := CheckProxy(f.value); err != nil {
			return fmt.Errorf("%s %w", f.name, err)
		}
	}
	return nil
}

// Choose is the proxy of each request, as an http.Transport asks for it.
func (p Proxies) Choose() func(*http.Request) (*url.URL, error) {
	direct := func(proxy string) string {
		if proxy == None {
			return ""
		}
		return proxy
	}
	config := httpproxy.Config{HTTPProxy: direct(p.HTTP), HTTPSProxy: direct(p.HTTPS), NoProxy: p.No}
	choose := config.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }
}

// CheckProxy reports whether a value names a proxy, or none. Its error is the second half of a sentence, and does not
// repeat the value.
func CheckProxy(value string) error {
	if value == "" || value == None {
		return nil
	}
	u, err := Proxy(value)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return nil
	}
	return fmt.Errorf("has the scheme %q; accepted are http, https, socks5 and socks5h", u.Scheme)
}

// Proxy reads the address of a proxy. With a port it may leave out http://, as it may in the environment.
func Proxy(value string) (*url.URL, error) {
	bare := !strings.Contains(value, "://")
	if bare {
		value = "http://" + value
	}
	u, err := url.Parse(value)
	if err != nil || u.Hostname() == "" || bare && u.Port() == "" || strings.Trim(u.Path, "/") != "" ||
		u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("is no proxy; accepted are none and a URL such as http://host:port, " +
			"https://host:port or socks5://host:port")
	}
	return u, nil
}

// HasUser reports whether a proxy's address has a user or a password, so that it is a secret. What cannot be read is
// taken for one.
func HasUser(value string) bool {
	if value == "" || value == None {
		return false
	}
	u, err := Proxy(value)
	return err != nil && strings.Contains(value, "@") || err == nil && u.User != nil
}

// WithoutUser is a proxy's address without user and password.
func WithoutUser(value string) string {
	u, err := Proxy(value)
	if err != nil || u.User == nil {
		return value
	}
	u.User = nil
	return u.String()
}
