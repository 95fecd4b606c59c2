package network

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestChoose holds which requests go through which proxy, as Go reads NO_PROXY.
func TestChoose(t *testing.T) {
	p := Proxies{
		HTTP: "http://plain:3128", HTTPS: "me:secret@secure:3129",
		No: "example.org,.svc,10.0.0.0/8,192.0.2.7:8443",
	}
	for address, want := range map[string]string{
		"http://host/": "plain:3128", "https://host/": "secure:3129",
		"https://example.org/": "", "https://below.example.org/": "", "https://notexample.org/": "secure:3129",
		"https://a.svc/": "", "http://10.1.2.3/": "", "http://11.1.2.3/": "plain:3128",
		"https://192.0.2.7:8443/": "", "https://192.0.2.7/": "secure:3129",
		"http://localhost:80/": "", "http://127.0.0.1:9063/": "", "https://[::1]/": "",
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		u, err := p.Choose()(r)
		got := ""
		if u != nil {
			got = u.Host
		}
		if err != nil || got != want {
			t.Errorf("%s goes by %q, %v", address, got, err)
		}
	}
	none := Proxies{HTTP: None}.Or(p)
	if none.HTTP != None || none.HTTPS != p.HTTPS || none.No != p.No {
		t.Error("what is said is replaced")
	}
}

// TestProxies holds what is a proxy, and what is a secret.
func TestProxies(t *testing.T) {
	for value, want := range map[string]struct{ fits, user bool }{
		"": {true, false}, "none": {true, false}, "http://h:3128": {true, false}, "h:3128": {
			true,
			false,
		}, "https://h": {true, false},
		"socks5://h:1080": {true, false}, "http://u:p@h:3128": {true, true}, "u:p@h:3128": {
			true,
			true,
		}, "http://u@h": {true, true},
		"h": {false, false}, "ftp://h:1": {false, false}, "http://": {false, false}, "http://h/path": {false, false},
		"http://u:p @h": {false, true}, "http://h:port": {false, false}, "http://h?x": {false, false},
	} {
		err := CheckProxy(value)
		if (err == nil) != want.fits || HasUser(value) != want.user {
			t.Errorf("%q: %v, has a user: %v", value, err, HasUser(value))
		}
		if err != nil && want.user && strings.Contains(err.Error(), value) {
			t.Errorf("the error repeats the value: %v", err)
		}
	}
	if got := WithoutUser("https://u:p@h:3128"); got != "https://h:3128" {
		t.Error(got)
	}
}

// TestRead reads the settings of a directory.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	if s, err := Read(dir); err != nil || s != (Settings{}) {
		t.Errorf("%+v, %v", s, err)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("HTTPS_PROXY", "http://u:secret@proxy:3128\n")
	put("NO_PROXY", ".svc\n")
	if s, err := Read(dir); err != nil || s.HTTPS != "http://u:secret@proxy:3128" || s.No != ".svc" ||
		s.Roots() != nil {
		t.Errorf("%v", err)
	}
	for name, text := range map[string]string{"HTTP_PROXY": "http://u:secret@", "ca.crt": "secret"} {
		put(name, text)
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(),
			"secret") {
			t.Errorf("%s: %v", name, err)
		}
		put(name, "")
	}
}
