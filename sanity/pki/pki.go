// Package pki makes the keys and certificates of a Kubernetes cluster for tests: one authority, and what it signs.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Authority signs the certificates of one cluster.
type Authority struct {
	// PEM is its own certificate, which is the file ca.crt as well.
	PEM []byte

	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// Subject is what a certificate is for: a user and its groups, and where it is a server's too, the names and addresses
// that it is reached by.
type Subject struct {
	User      string
	Groups    []string
	Names     []string
	Addresses []net.IP
}

// New makes an authority whose files are in dir.
func New(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := Subject{User: "millrace-test"}.template()
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, key: key, cert: cert, PEM: pem.EncodeToMemory(&pem.Block{
		Type:  "CERTIFICATE",
		Bytes: der,
	})}
	return a, os.WriteFile(a.File("ca.crt"), a.PEM, 0o600)
}

// File is the path of a file of that name.
func (a *Authority) File(name string) string { return filepath.Join(a.dir, name) }

func (s Subject) template() *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // It never fails.
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.User, Organization: s.Groups},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(7 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    s.Names, IPAddresses: s.Addresses,
	}
}

// Issue makes a certificate and its key, in PEM.
func (a *Authority) Issue(s Subject) (cert, key []byte, err error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, s.template(), a.cert, &k.PublicKey, a.key)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), nil
}

// Write issues a certificate into the files NAME.crt and NAME.key.
func (a *Authority) Write(name string, s Subject) error {
	cert, key, err := a.Issue(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.File(name+".crt"), cert, 0o600); err != nil {
		return err
	}
	return os.WriteFile(a.File(name+".key"), key, 0o600)
}

// Kubeconfig writes the file NAME.kubeconfig for programs that talk to the API at that address as that subject, and
// names it.
func (a *Authority) Kubeconfig(name, server string, s Subject) (string, error) {
	cert, key, err := a.Issue(s)
	if err != nil {
		return "", err
	}
	k := clientcmdapi.NewConfig()
	k.Clusters["test"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: a.PEM}
	k.AuthInfos["user"] = &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}
	k.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "user"}
	k.CurrentContext = "test"
	file := a.File(name + ".kubeconfig")
	return file, clientcmd.WriteToFile(*k, file)
}
