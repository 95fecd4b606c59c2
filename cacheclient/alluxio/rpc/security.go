package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/user"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// Security says who we are and how connections are protected.
type Security struct {
	// User is who the servers take us for; the process's own user by default. A server with permission checks
	// compares it with owners and modes.
	User string
	// Impersonate is the user to act as, where the servers permit User to; "" acts as User.
	Impersonate string
	// Password is checked by servers with a custom authentication only; SIMPLE ignores it, but wants one.
	Password string
	// TLS protects connections. CAFile names the authorities in PEM, the system's where it is "".
	TLS    bool
	CAFile string
}

// defaultPassword is what Alluxio's own clients send where none is asked for.
const defaultPassword = "noPassword"

// complete checks the fields and fills in the defaults.
func (s Security) complete() (Security, error) {
	if s.User == "" {
		u, err := user.Current()
		if err != nil {
			return s, fmt.Errorf("the option user is needed: this process's own user has no name: %w", err)
		}
		s.User = u.Username
	}
	if s.Password == "" {
		s.Password = defaultPassword
	}
	for name, value := range map[string]string{"user": s.User, "impersonate": s.Impersonate, "password": s.Password} {
		if strings.Contains(value, "\x00") {
			return s, fmt.Errorf("option %s has a NUL", name)
		}
	}
	return s, nil
}

// credentials are the transport's.
func (s Security) credentials() (credentials.TransportCredentials, error) {
	if !s.TLS {
		return insecure.NewCredentials(), nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("option ca_cert: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("option ca_cert: %q has no certificate in PEM", s.CAFile)
		}
	}
	return credentials.NewTLS(cfg), nil
}

// payload is the message of the PLAIN mechanism (RFC 4616): authorization, authentication, password.
func (s Security) payload() []byte {
	return []byte(s.Impersonate + "\x00" + s.User + "\x00" + s.Password)
}

// key tells clusters of different securities apart in the registry of this process.
func (s Security) key() string {
	return fmt.Sprintf("%q %q %q %v %q", s.User, s.Impersonate, s.Password, s.TLS, s.CAFile)
}
