package build

import (
	"crypto/x509"
	"testing"
)

// TestMozilla reads the certificates as a program in the image does.
func TestMozilla(t *testing.T) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(mozilla()) {
		t.Fatal("no certificate is in it")
	}
	empty := x509.NewCertPool()
	if pool.Equal(empty) {
		t.Fatal("the pool is empty")
	}
}
