package network

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Settings are what an operator says of all sources.
type Settings struct {
	// Authorities are believed beside those of the system, in PEM.
	Authorities string
	Proxies
}

// The files of a directory of settings, which is a Secret of Kubernetes.
const (
	AuthoritiesFile = "ca.crt"
	httpFile        = "HTTP_PROXY"
	httpsFile       = "HTTPS_PROXY"
	noFile          = "NO_PROXY"
)

// Roots are the authorities of the system and the operator's, nil where the operator names none.
func (s Settings) Roots() *x509.CertPool {
	if s.Authorities == "" {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	// What cannot be read was refused by Check.
	certs, _ := Certificates(s.Authorities)
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// Check tells in one sentence what of the settings cannot be used. Values are not repeated.
func (s Settings) Check() error {
	if s.Authorities != "" {
		if _, err := Certificates(s.Authorities); err != nil {
			return fmt.Errorf("%s %w", AuthoritiesFile, err)
		}
	}
	return s.Proxies.Check(httpFile, httpsFile)
}

// fields are the files of settings, and what each says.
func fields(s *Settings) map[string]*string {
	return map[string]*string{AuthoritiesFile: &s.Authorities, httpFile: &s.HTTP, httpsFile: &s.HTTPS, noFile: &s.No}
}

// Files are the settings as Read reads them, without those of which nothing is said.
func (s Settings) Files() map[string]string {
	files := map[string]string{}
	for name, value := range fields(&s) {
		if *value != "" {
			files[name] = *value
		}
	}
	return files
}

// Read reads settings from a directory, of which any file may be missing.
func Read(dir string) (Settings, error) {
	var s Settings
	for name, into := range fields(&s) {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Settings{}, fmt.Errorf("the network's settings: %w", err)
		}
		*into = strings.TrimSpace(string(text))
	}
	if err := s.Check(); err != nil {
		return Settings{}, fmt.Errorf("the network's settings in %s: %w", dir, err)
	}
	return s, nil
}
