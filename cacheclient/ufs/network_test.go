package ufs

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/cacheclient/cachetest"
	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/sanity/forward"
	"millrace.io/millrace/sanity/pki"
)

// hiddenName is a host that only the proxy of a test knows.
const hiddenName = "data.inner.test"

// serveHidden serves by TLS as hiddenName, with an authority of its own, whose certificate it returns.
func serveHidden(t *testing.T, handler http.Handler) (server *httptest.Server, authority string) {
	t.Helper()
	a, err := pki.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue(pki.Subject{
		User: "server", Names: []string{hiddenName},
		Addresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	server = httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, string(a.PEM)
}

// TestAuthorityAsText gives an authority as the text that it is, in the forms that YAML, files and Secrets give it.
func TestAuthorityAsText(t *testing.T) {
	server, authority := serveHidden(t, newFaulty(t).Config.Handler)
	_, other := serveHidden(t, http.NotFoundHandler())
	folded := strings.ReplaceAll(strings.TrimSpace(authority), "\n", " ")
	for name, text := range map[string]string{
		"as it is": authority, "folded": folded, "escaped": strings.ReplaceAll(authority, "\n",
			`\n`), "two": other + authority,
		"with comments": "# Issuer: CN=one, O=\"two\"\n" + authority, "of Windows": strings.ReplaceAll(authority,
			"\n", "\r\n"),
	} {
		store := mustOpen(t, server.URL, Options{Secrets: map[string]string{"ca_cert": text}})
		if got, err := content(t, store, "file"); err != nil || len(got) != 1_000_000 {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	file := filepath.Join(t.TempDir(), "options")
	if err := os.WriteFile(file, []byte("ca_cert = "+folded+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, server.URL, Options{File: file})
	operator := network.Settings{Authorities: other + authority}
	mustOpen(t, server.URL, Options{Network: operator})
	if _, err := Open(testContext(t), server.URL, Options{
		Network: operator,
		Secrets: map[string]string{"ca_cert": other},
	}); err == nil || !strings.Contains(err.Error(), "ca_cert") {
		t.Errorf("another authority than the operator's: %v", err)
	}
}

// TestBadNetwork gives what is no authority and no proxy, and gets a sentence with the option and without the value.
func TestBadNetwork(t *testing.T) {
	server, authority := serveHidden(t, http.NotFoundHandler())
	for name, c := range map[string]struct {
		secrets map[string]string
		want    string
	}{
		"no base64": {
			map[string]string{"ca_cert": "-----BEGIN CERTIFICATE-----hunter2!-----END CERTIFICATE-----"},
			"option ca_cert has a block CERTIFICATE that is no PEM",
		},
		"no end": {
			map[string]string{"ca_cert": authority[:len(authority)/2]},
			"option ca_cert has a block of PEM without its end",
		},
		"no cert": {
			map[string]string{"ca_cert": "-----BEGIN CERTIFICATE-----aHVudGVyMg==-----END CERTIFICATE-----"},
			"option ca_cert has a certificate that cannot be read, the 1. of 1",
		},
		"a key": {
			map[string]string{"ca_cert": "-----BEGIN PRIVATE KEY-----aHVudGVyMg==-----END PRIVATE KEY-----"},
			"option ca_cert has a block PRIVATE KEY; accepted are certificates",
		},
		"no proxy": {
			map[string]string{"https_proxy": "http://me:hunter2@ h"},
			"option https_proxy is no proxy; accepted are none and a URL",
		},
		"no scheme": {
			map[string]string{"http_proxy": "gopher://hunter2:70"},
			`option http_proxy has the scheme "gopher"`,
		},
		"client's half": {
			map[string]string{"client_cert": authority},
			"options client_cert and client_key are given together",
		},
	} {
		_, err := Open(testContext(t), server.URL, Options{Secrets: c.secrets})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"proxy", "https_proxy", "http_proxy"} {
		_, err := Open(testContext(t), server.URL,
			Options{Values: map[string]string{name: "http://me:hunter2@proxy:3128"}})
		if err == nil || !strings.Contains(err.Error(), "option "+name+" is a secret") ||
			strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s with a password as an argument: %v", name, err)
		}
	}
	t.Setenv("HTTPS_PROXY", "http://me:hunter2@ h")
	if _, err := Open(testContext(t), server.URL, Options{}); err == nil || !strings.Contains(err.Error(),
		"the environment variable HTTPS_PROXY is no proxy") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the environment's: %v", err)
	}
}

// TestForwardProxy reads what only a proxy with a password reaches, over TLS, plainly, and as a bucket.
func TestForwardProxy(t *testing.T) {
	web, authority := serveHidden(t, newFaulty(t).Config.Handler)
	bucket, bucketAuthority := serveHidden(t, &cachetest.Bucket{Objects: map[string]string{"file": "of the bucket"}})
	plain := newFaulty(t)
	proxy := &forward.Proxy{User: "me", Password: "hunter2", Names: map[string]string{
		hiddenName + ":443": web.Listener.Addr().String(), hiddenName + ":9000": bucket.Listener.Addr().String(),
		hiddenName + ":80": plain.Listener.Addr().String(),
	}}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	with := strings.Replace(server.URL, "://", "://me:hunter2@", 1)
	for name, c := range map[string]struct {
		source, port string
		opts         Options
	}{
		"https": {
			"https://" + hiddenName + "/", "443",
			Options{Secrets: map[string]string{"https_proxy": with, "ca_cert": authority}},
		},
		"both": {
			"https://" + hiddenName + "/", "443",
			Options{Secrets: map[string]string{"proxy": with, "ca_cert": authority}},
		},
		"plain": {
			"http://" + hiddenName + "/", "80",
			Options{Secrets: map[string]string{"http_proxy": with}},
		},
		"the operator's": {
			"http://" + hiddenName + "/", "80",
			Options{Network: network.Settings{Proxies: network.Proxies{HTTP: with}}},
		},
		"not for other names": {
			"http://" + hiddenName + "/", "80",
			Options{Secrets: map[string]string{"http_proxy": with, "no_proxy": "other.test,.example.org,10.0.0.0/8"}},
		},
		"a bucket": {"s3://b", "9000", Options{Values: map[string]string{"endpoint": "https://" + hiddenName +
			":9000"}, Secrets: map[string]string{
			"https_proxy": with, "ca_cert": bucketAuthority, "secret_access_key": "b", "access_key_id": "a",
		}}},
		"wins over operator's": {
			"http://" + hiddenName + "/", "80",
			Options{
				Secrets: map[string]string{"http_proxy": with},
				Network: network.Settings{Proxies: network.Proxies{HTTP: "http://127.0.0.1:1"}},
			},
		},
	} {
		before := proxy.Asked(hiddenName + ":" + c.port)
		store := mustOpen(t, c.source, c.opts)
		if got, err := content(t, store, "file"); err != nil || got == "" {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if proxy.Asked(hiddenName+":"+c.port) == before {
			t.Errorf("%s: the proxy was not asked", name)
		}
		if strings.Contains(store.Identity(), "hunter2") {
			t.Errorf("%s: the identity tells the proxy's password", name)
		}
	}
	for name, c := range map[string]struct {
		secrets map[string]string
		want    string
	}{
		"no password": {map[string]string{"https_proxy": server.URL}, "Proxy Authentication Required"},
		"wrong password": {
			map[string]string{"https_proxy": strings.Replace(with, "hunter2", "hunter3", 1)},
			"Proxy Authentication Required",
		},
		"directly": {map[string]string{"https_proxy": with, "no_proxy": "inner.test"}, "no such host"},
		"none":     {map[string]string{"https_proxy": "none"}, "no such host"},
		"a proxy that left": {
			map[string]string{"https_proxy": "http://me:hunter2@127.0.0.1:1"},
			"the proxy on the way to " + hiddenName,
		},
	} {
		_, err := Open(testContext(t), "https://"+hiddenName+"/", Options{Secrets: c.secrets})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
