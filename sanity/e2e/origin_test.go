package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/sanity/machines"
)

// origin is a web server on the mirror's machine that is harmed in the middle of a test: it may want a token, and end.
type origin struct {
	machine *machines.Machine
	address string
	secure  bool
	files   http.Handler
	// token is what the header X-Token has to be, "" for anything.
	token atomic.Value

	// mu guards server.
	mu     sync.Mutex
	server *http.Server
}

// startOrigin serves the small directories at a port of the mirror until the test ends. A secure one has a certificate
// of its own authority.
func (r *rest) startOrigin(t *testing.T, port string, secure bool) *origin {
	t.Helper()
	o := &origin{
		machine: r.mirror, address: net.JoinHostPort(mirrorAddress, port), secure: secure,
		files: http.FileServer(http.Dir(filepath.Join(r.htdocs(), "small"))),
	}
	o.token.Store("")
	o.start(t)
	t.Cleanup(func() { o.stop(t) })
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if want, _ := o.token.Load().(string); want != "" && r.Header.Get("X-Token") != want {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	o.files.ServeHTTP(w, r)
}

func (o *origin) start(t *testing.T) {
	t.Helper()
	l, err := o.machine.Listen(t.Context(), "tcp", o.address)
	if err != nil {
		t.Fatal(err)
	}
	if o.secure {
		l = tls.NewListener(l, &tls.Config{
			Certificates: []tls.Certificate{ownCertificate(t)},
			MinVersion:   tls.VersionTLS12,
		})
	}
	server := &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}
	o.mu.Lock()
	o.server = server
	o.mu.Unlock()
	go func() { _ = server.Serve(l) }()
}

// stop ends the server and its connections, if it serves.
func (o *origin) stop(t *testing.T) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.server == nil {
		return
	}
	if err := o.server.Close(); err != nil {
		t.Error(err)
	}
	o.server = nil
}

// ownCertificate is one that no authority vouches for.
func ownCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: mirrorName}, DNSNames: []string{mirrorName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}
