package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"millrace.io/millrace/cacheclient/network"
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
	// TLS protects connections. Authorities are in PEM, or the path of a file of it; the system's where it is "".
	TLS         bool
	Authorities string
}

// defaultPassword is what Alluxio's own clients send where none is asked for.
const defaultPassword = "noPassword"

// identity is a Security as connections use it.
type identity struct {
	// payload is the message of the PLAIN mechanism (RFC 4616): authorization, authentication, password.
	payload   []byte
	transport credentials.TransportCredentials
}

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
	for _, option := range []struct{ name, value string }{
		{"user", s.User}, {"impersonate", s.Impersonate}, {"password", s.Password},
	} {
		if strings.Contains(option.value, "\x00") {
			return s, fmt.Errorf("option %s has a NUL", option.name)
		}
	}
	if s.Authorities != "" && !s.TLS {
		return s, errors.New("option ca_cert is given and TLS is off: it is for TLS only")
	}
	return s, nil
}

// identity reads what the complete Security names.
func (s Security) identity() (identity, error) {
	who := identity{
		payload:   []byte(s.Impersonate + "\x00" + s.User + "\x00" + s.Password),
		transport: insecure.NewCredentials(),
	}
	if !s.TLS {
		return who, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.Authorities != "" {
		text := s.Authorities
		if !network.IsPEM(text) {
			pem, err := os.ReadFile(text)
			if err != nil {
				return who, fmt.Errorf("option ca_cert: %w", err)
			}
			text = string(pem)
		}
		certs, err := network.Certificates(text)
		if err != nil {
			return who, fmt.Errorf("option ca_cert %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		for _, c := range certs {
			cfg.RootCAs.AddCert(c)
		}
	}
	who.transport = credentials.NewTLS(cfg)
	return who, nil
}

// key tells clusters of different securities apart in the registry of this process.
func (s Security) key() string {
	return fmt.Sprintf("%q %q %q %v %q", s.User, s.Impersonate, s.Password, s.TLS, s.Authorities)
}
