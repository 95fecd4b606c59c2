package rpc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

func TestSecurityIsComplete(t *testing.T) {
	s, err := Security{}.complete()
	if err != nil || s.User == "" || s.Password == "" {
		t.Fatalf("%+v, %v", s, err)
	}
	who, err := s.identity()
	if want := "\x00" + s.User + "\x00noPassword"; err != nil || string(who.payload) != want {
		t.Errorf("the message is %q (%v), wanted %q", who.payload, err, want)
	}
	who, err = Security{User: "u", Impersonate: "i", Password: "p"}.identity()
	if want := "i\x00u\x00p"; err != nil || string(who.payload) != want {
		t.Errorf("the message is %q (%v), wanted %q", who.payload, err, want)
	}
}

func TestSecurityRefuses(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		s    Security
		says string
	}{
		{Security{User: "a\x00b"}, "option user has a NUL"},
		{Security{User: "a", Impersonate: "\x00"}, "option impersonate has a NUL"},
		{Security{User: "a", Password: "secret\x00"}, "option password has a NUL"},
		{Security{User: "a", Authorities: "/x"}, "option ca_cert is given and TLS is off"},
		{Security{User: "a", TLS: true, Authorities: filepath.Join(t.TempDir(), "none.pem")}, "option ca_cert: open "},
		{Security{User: "a", TLS: true, Authorities: noPEM}, "option ca_cert is no certificate in PEM"},
	} {
		c, err := Connect(Config{Masters: []string{"127.0.0.1:1"}, Security: test.s})
		if err == nil {
			c.Release()
		}
		if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, wanted %q", test.s, err, test.says)
		}
	}
}

// TestSessionsShareACluster checks that those who may share connections do, and others do not.
func TestSessionsShareACluster(t *testing.T) {
	noMoreGoroutines(t)
	open := func(s Security, masters ...string) *Cluster {
		c, err := Connect(Config{Masters: masters, Security: s})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := open(Security{User: "u"}, "m1:1", "m2:1")
	b := open(Security{User: "u"}, "m2:1", "m1:1", "m2:1")
	others := []*Cluster{
		open(Security{User: "u"}, "m1:1"), open(Security{User: "v"}, "m1:1", "m2:1"),
		open(Security{User: "u", Password: "p"}, "m1:1", "m2:1"),
		open(Security{User: "u", TLS: true}, "m1:1", "m2:1"),
		open(Security{User: "u", Impersonate: "v"}, "m1:1", "m2:1"),
	}
	if a != b {
		t.Error("two sessions of the same masters and user do not share connections")
	}
	for i, c := range others {
		if c == a {
			t.Errorf("session %d shares connections with one that is another's", i)
		}
		c.Release()
	}
	a.Release()
	if a.life.Err() != nil {
		t.Error("the first of two sessions ends the connections of the other")
	}
	b.Release()
	if a.life.Err() == nil {
		t.Error("the last session leaves its connections")
	}
	if c := open(Security{User: "u"}, "m1:1", "m2:1"); c == a {
		t.Error("a new session gets connections that are closed")
	} else {
		c.Release()
	}
}

// authority is a certificate that signs itself, for loopback addresses, and the file that it is in.
func authority(t *testing.T, hosts ...string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for _, h := range hosts {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(h))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// behindTLS is the address of a proxy that speaks TLS to clients and passes on to the target what they say: Alluxio's
// open servers have no TLS of their own.
func behindTLS(t *testing.T, target string, cert tls.Certificate) string {
	t.Helper()
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}}
	return tcpServer(t, func(raw net.Conn) {
		client := tls.Server(raw, cfg)
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		defer server.Close()
		go func() {
			_, _ = io.Copy(server, client)
			_ = server.Close()
		}()
		_, _ = io.Copy(client, server)
	})
}

func TestTLS(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	cert, ca := authority(t, "127.0.0.1")
	_, otherCA := authority(t, "127.0.0.1")
	elsewhere, elsewhereCA := authority(t, "127.0.0.2")
	var masters, misnamed []string
	for _, a := range addresses(c) {
		masters, misnamed = append(masters, behindTLS(t, a, cert)), append(misnamed, behindTLS(t, a, elsewhere))
	}
	m := connectAs(t, Security{User: "u", TLS: true, Authorities: ca}, masters...)
	if err := m.Check(within(t, 10*time.Second)); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	for name, test := range map[string]struct {
		masters []string
		s       Security
		says    string
	}{
		"another authority": {
			masters,
			Security{TLS: true, Authorities: otherCA},
			"cannot be trusted: tls: failed to verify certificate: x509: certificate signed by unknown authority",
		},
		"the system's": {
			masters,
			Security{TLS: true},
			"cannot be trusted: tls: failed to verify certificate: x509: certificate signed by unknown authority",
		},
		"a certificate of others": {
			misnamed,
			Security{TLS: true, Authorities: elsewhereCA},
			"cannot be trusted: tls: failed to verify certificate: x509: certificate is valid for 127.0.0.2, not " +
				"127.0.0.1",
		},
		"without TLS": {masters, Security{}, "closed the connection without a word"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			err := connectAs(t, test.s, test.masters...).Check(within(t, 2*time.Second))
			if !errors.Is(err, cacheclient.ErrUnavailable) || !strings.Contains(err.Error(), test.says) ||
				strings.Contains(err.Error(), "\n") {
				t.Errorf("after %v: %v, wanted %q", time.Since(begin), err, test.says)
			}
			t.Logf("after %v: %v", time.Since(begin).Round(time.Millisecond), err)
		})
	}
}
