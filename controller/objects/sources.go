package objects

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/api/v1alpha1"
)

// Source is the source of a mount, as it is asked whether it can be read.
type Source struct {
	// Name is the mount as the user calls it, and Address the source as the user wrote it.
	Name, Address string
	// Path is where Alluxio has it.
	Path string
	// Secrets names where its keys are, "" where it has none.
	Secrets string
	// Gateway says that a gateway beside each master reads it, which tells of it on the port Health, and Options which
	// options that gateway should have: a fingerprint, "" for none.
	Gateway bool
	Health  int32
	Options string
}

// sources are those of all mounts.
func (b *builder) sources() []Source {
	sources := make([]Source, 0, len(b.mounts))
	for i := range b.mounts {
		m := &b.mounts[i]
		s := Source{
			Name: strings.TrimPrefix(m.path, "/"), Address: m.source, Path: path.Join(b.root(), m.path),
			Secrets: secretsOf(&b.Dataset.Spec, &b.Dataset.Spec.Mounts[i]),
		}
		if m.kind == behindGateway {
			s.Gateway, s.Health = true, b.ports.masterGateway.at(m.gateway)
			if len(m.gatewayOptions()) > 0 {
				s.Options = gateway.Fingerprint(b.Keys, optionsFile(m.gatewayOptions()))
			}
		}
		sources = append(sources, s)
	}
	return sources
}

// secretsOf names the Secrets and their keys from which a mount has options.
func secretsOf(d *v1alpha1.DatasetSpec, m *v1alpha1.Mount) string {
	keys := map[string][]string{}
	var names []string
	for _, options := range [][]v1alpha1.EncryptOption{d.SharedEncryptOptions, m.EncryptOptions} {
		for i := range options {
			ref := options[i].ValueFrom.SecretKeyRef
			if keys[ref.Name] == nil {
				names = append(names, ref.Name)
			}
			if !slices.Contains(keys[ref.Name], ref.Key) {
				keys[ref.Name] = append(keys[ref.Name], ref.Key)
			}
		}
	}
	texts := make([]string, len(names))
	for i, name := range names {
		texts[i] = fmt.Sprintf("%s (%s)", name, strings.Join(keys[name], ", "))
	}
	return strings.Join(texts, ", ")
}
