package ufs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/rclone/rclone/fs"

	"millrace.io/millrace/cacheclient/network"
)

// tlsOptions reach the HTTP client. The names are those of rclone's global flags.
type tlsOptions struct {
	CACert     fs.CommaSepList `config:"ca_cert"`
	NoCheck    bool            `config:"no_check_certificate"`
	ClientCert string          `config:"client_cert"`
	ClientKey  string          `config:"client_key"`
}

// proxyOptions say which requests go through a proxy: Proxy all, else HTTPS and HTTP those of that scheme. No are the
// hosts that are reached directly all the same.
type proxyOptions struct {
	Proxy string `config:"proxy"`
	HTTPS string `config:"https_proxy"`
	HTTP  string `config:"http_proxy"`
	No    string `config:"no_proxy"`
}

var tlsTable = fs.Options{
	{Name: "ca_cert", Default: fs.CommaSepList{}},
	{Name: "no_check_certificate", Default: false},
	{Name: "client_cert", Default: ""},
	{Name: "client_key", Default: ""},
}

var proxyTable = fs.Options{
	{Name: "proxy", Default: ""},
	{Name: "https_proxy", Default: ""},
	{Name: "http_proxy", Default: ""},
	{Name: "no_proxy", Default: ""},
}

// networkTable is tlsTable and proxyTable, for sources that our own client reads.
var networkTable = append(slices.Clone(proxyTable), tlsTable...)

// isProxy reports whether an option has the address of a proxy, which may have a password in it.
func isProxy(name string) bool {
	return name == "proxy" || name == "https_proxy" || name == "http_proxy"
}

// secretValue reports whether this value of the option is a secret: a proxy with a password is, and a key in PEM.
func secretValue(option *fs.Option, value string) bool {
	return secret(option) || isProxy(option.Name) && network.HasUser(value) || option.Name == "client_key" &&
		network.IsPEM(value)
}

// checkNetwork looks at the options of this file, and writes PEM as one line. Values are not repeated.
func checkNetwork(src source, name, value string) (string, error) {
	var err error
	switch {
	case isProxy(name):
		err = network.CheckProxy(value)
	case (name == "ca_cert" || name == "client_cert" || name == "client_key") && network.IsPEM(value):
		if src.scheme == schemeRemote {
			return "", fmt.Errorf("option %s is PEM; accepted for this source is the path of a file", name)
		}
		if name == "ca_cert" {
			_, err = network.Certificates(value)
		}
		if err == nil {
			value, err = network.Line(value)
		}
	}
	if err != nil {
		return "", fmt.Errorf("option %s %w", name, err)
	}
	return value, nil
}

// readPEM is what an option of PEM says: the text itself, or what is in the file that it names.
func readPEM(option, value string) ([]byte, error) {
	if network.IsPEM(value) {
		text, err := network.Text(value)
		if err != nil {
			return nil, fmt.Errorf("option %s %w", option, err)
		}
		return text, nil
	}
	text, err := os.ReadFile(value)
	if err != nil {
		return nil, fmt.Errorf("option %s: file %q: %w", option, value, bare(err))
	}
	return text, nil
}

// newTLSConfig believes the authorities of the options, else those of the system and of the operator.
func newTLSConfig(o tlsOptions, operator network.Settings) (*tls.Config, error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		// Only where the user asks for it by name.
		InsecureSkipVerify: o.NoCheck, //nolint:gosec // See above.
	}
	for _, given := range o.CACert {
		text, err := readPEM("ca_cert", given)
		if err != nil {
			return nil, err
		}
		if config.RootCAs == nil {
			config.RootCAs = x509.NewCertPool()
		}
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("option ca_cert: file %q has no PEM certificate", given)
		}
	}
	if config.RootCAs == nil {
		config.RootCAs = operator.Roots()
	}
	if (o.ClientCert == "") != (o.ClientKey == "") {
		return nil, errors.New("options client_cert and client_key are given together or not at all")
	}
	if o.ClientCert == "" {
		return config, nil
	}
	cert, err := readPEM("client_cert", o.ClientCert)
	if err != nil {
		return nil, err
	}
	key, err := readPEM("client_key", o.ClientKey)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("options client_cert and client_key: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// choose is the proxy of each request: what the options say, else the environment, else the operator.
func (o proxyOptions) choose(operator network.Proxies) (func(*http.Request) (*url.URL, error), error) {
	given := network.Proxies{HTTP: o.HTTP, HTTPS: o.HTTPS, No: o.No}
	if o.Proxy != "" {
		if o.Proxy != network.None && o.No == "" {
			// Of all requests, those to this machine too.
			u, err := network.Proxy(o.Proxy)
			if err != nil {
				return nil, fmt.Errorf("option proxy %w", err)
			}
			return http.ProxyURL(u), nil
		}
		given = given.Or(network.Proxies{HTTP: o.Proxy, HTTPS: o.Proxy})
	}
	environment := network.FromEnvironment()
	if err := environment.Check("the environment variable HTTP_PROXY",
		"the environment variable HTTPS_PROXY"); err != nil {
		return nil, err
	}
	return given.Or(environment).Or(operator).Choose(), nil
}
