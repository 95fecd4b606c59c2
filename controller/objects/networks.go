package objects

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/controller/api/v1alpha1"
)

// pemOptions are files for a process of one machine, and texts here: a path of a node is no tenant's to name.
var pemOptions = []string{"ca_cert", "client_cert", "client_key"}

// proxyVariables are those of the environment, by which a part's env says which proxies its gateways use.
var proxyVariables = []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}

func isProxy(option string) bool {
	return option == "proxy" || option == "https_proxy" || option == "http_proxy"
}

// ofNetworks reports whether an option says how a source is reached in a network, by a name of any case.
func ofNetworks(option string) bool {
	lower := strings.ToLower(option)
	return slices.Contains(pemOptions, lower) || isProxy(lower) || lower == "no_proxy"
}

// isS3 reports whether a mount is a bucket, which a gateway reads as well as Alluxio does.
func isS3(mountPoint string) bool {
	scheme, _, _ := strings.Cut(mountPoint, "://")
	scheme = strings.ToLower(scheme)
	return scheme == "s3" || scheme == "s3a" || scheme == "s3n"
}

// viaGateway reports whether a mount is read by a gateway: a web server always, a bucket where its network has an
// authority or a proxy of its own, of which Alluxio's Java knows nothing.
func viaGateway(d *v1alpha1.Dataset, m *v1alpha1.Mount, operator network.Settings) bool {
	if kindOf(m.MountPoint) == behindGateway {
		return true
	}
	if !isS3(m.MountPoint) {
		return false
	}
	if operator != (network.Settings{}) {
		return true
	}
	for _, options := range []map[string]string{d.Spec.SharedOptions, m.Options} {
		for name := range options {
			if ofNetworks(name) {
				return true
			}
		}
	}
	for _, options := range [][]v1alpha1.EncryptOption{d.Spec.SharedEncryptOptions, m.EncryptOptions} {
		if slices.ContainsFunc(options, func(o v1alpha1.EncryptOption) bool { return ofNetworks(o.Name) }) {
			return true
		}
	}
	return false
}

// pathStyleOption is Alluxio's name for buckets in the path of an address.
const pathStyleOption = "alluxio.underfs.s3.disable.dns.buckets"

// asGateways has the options of a bucket by the names that a gateway knows. Those that are only Alluxio's stay.
func (m *mount) asGateways() {
	_, rest, _ := strings.Cut(m.source, "://")
	m.source = "s3://" + rest
	keys := false
	for _, options := range []map[string]string{m.options, m.secrets} {
		for _, name := range slices.Sorted(maps.Keys(options)) {
			known := directNames[name]
			if name == pathStyleOption {
				known = "force_path_style"
			}
			if known != "" {
				options[known] = options[name]
				delete(options, name)
			}
		}
		keys = keys || options["access_key_id"] != ""
	}
	if !keys && m.options["env_auth"] == "" {
		// As Alluxio does without keys: by what the pod is given.
		m.options["env_auth"] = "true"
	}
}

// plainNames has options of networks by their names without capitals, which those of the environment may have.
func plainNames(options map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if lower := strings.ToLower(name); lower != name && ofNetworks(name) {
			options[lower] = options[name]
			delete(options, name)
		}
	}
}

// checkNetwork looks at an option of a network, and writes PEM as one line. Its error is the second half of a sentence,
// without the value.
func checkNetwork(name, value string, open bool) (string, error) {
	switch {
	case isProxy(name):
		if err := network.CheckProxy(value); err != nil {
			return "", err
		}
		if open && network.HasUser(value) {
			return "", errors.New("has a user or a password; give it as one of encryptOptions")
		}
	case name == "ca_cert":
		if _, err := network.Certificates(value); err != nil {
			return "", err
		}
		return network.Line(value)
	case slices.Contains(pemOptions, name):
		if !network.IsPEM(value) {
			return "", errors.New("is no PEM, which begins with -----BEGIN; give it as one of encryptOptions")
		}
		if open && name == "client_key" {
			return "", errors.New("is a secret; give it as one of encryptOptions")
		}
		return network.Line(value)
	}
	return value, nil
}

// proxyEnv are the variables for proxies among those of a part, for its gateways.
func proxyEnv(part *v1alpha1.ComponentSpec) []corev1.EnvVar {
	var env []corev1.EnvVar
	for _, name := range proxyVariables {
		if value, ok := part.Env[name]; ok {
			env = append(env, corev1.EnvVar{Name: name, Value: value})
		}
	}
	return env
}

// checkEnv looks for proxies among the variables of a part that are none.
func checkEnv(field string, part *v1alpha1.ComponentSpec) []Problem {
	var problems []Problem
	for _, name := range proxyVariables {
		if err := network.CheckProxy(part.Env[name]); err != nil && isProxy(strings.ToLower(name)) {
			problems = append(problems, Problem{
				fmt.Sprintf("AlluxioRuntime.spec.%s.env[%s]", field, name),
				err.Error(),
			})
		}
	}
	return problems
}

// besideGateways keeps Alluxio's way to its gateways, on the loopback, out of the proxies of its environment.
func besideGateways(env map[string]string) map[string]string {
	if env["HTTP_PROXY"] == "" && env["http_proxy"] == "" {
		return env
	}
	env = maps.Clone(env)
	for _, name := range []string{"NO_PROXY", "no_proxy"} {
		if value, ok := env[name]; ok || name == "NO_PROXY" {
			env[name] = strings.TrimPrefix(value+",127.0.0.1,localhost", ",")
		}
	}
	return env
}
