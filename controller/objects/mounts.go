package objects

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/api/v1alpha1"
)

// kind says how Alluxio gets at a source.
type kind int

const (
	unknown kind = iota
	// direct sources are read by Alluxio itself.
	direct
	// behindGateway sources are read by a gateway beside Alluxio.
	behindGateway
	// onNode is a directory of the node.
	onNode
	// inClaim is a directory of a PersistentVolumeClaim.
	inClaim
)

// kinds are the schemes that are served.
var kinds = map[string]kind{
	"http": behindGateway, "https": behindGateway, "local": onNode, "pvc": inClaim,
	"s3": direct, "s3a": direct, "s3n": direct, "hdfs": direct, "viewfs": direct, "oss": direct, "cosn": direct,
	"cos": direct,
	"gs":  direct, "gcs": direct, "abfs": direct, "abfss": direct, "wasb": direct, "wasbs": direct, "obs": direct,
	"swift": direct,
	"o3fs":  direct, "ofs": direct, "alluxio": direct,
	// Not in Alluxio's own image, where mounting one fails with that sentence.
	"cephfs": direct, "adl": direct, "kodo": direct,
}

func kindOf(mountPoint string) kind {
	scheme, _, _ := strings.Cut(mountPoint, "://")
	return kinds[strings.ToLower(scheme)]
}

// HashOption is the option of a mount by which the controller reports whether Alluxio has what the spec says, also
// where a secret has changed. Alluxio keeps options that it does not know. D-078 says why.
const HashOption = "millrace.hash"

// Where Alluxio's containers have what is not behind an address: rootDir the empty directory that is below Alluxio's
// own root, sourcesDir the sources of the node and of claims. No mount may be below another one's source
// (CM/file/meta/MountTable.java), so neither is below the other.
const (
	rootDir    = "/underFSStorage"
	sourcesDir = "/sources"
)

// mount is one mount of a Dataset, resolved.
type mount struct {
	kind kind
	// path is where it is in the Dataset, from below the root that pods see.
	path string
	// id names its volume, its container and its bucket.
	id string
	// source is as the user wrote it.
	source  string
	options map[string]string
	secrets map[string]string
	// gateway is the number of the gateway, from 0 on.
	gateway          int32
	readOnly, shared bool
}

// resolveMounts reads the mounts of a Dataset and the secrets that they name.
func resolveMounts(in Input) ([]mount, []Problem) {
	var mounts []mount
	var problems []Problem
	spec := &in.Dataset.Spec
	paths := map[string]int{}
	var gateways int32
	for i := range spec.Mounts {
		field := fmt.Sprintf("Dataset.spec.mounts[%d]", i)
		m, bad := resolveMount(in, &spec.Mounts[i], field)
		problems = append(problems, bad...)
		if j, taken := paths[m.path]; taken {
			problems = append(problems,
				Problem{field, fmt.Sprintf("has the path %s, as mounts[%d] has; give each a name or a path of its own",
					m.path, j)})
		}
		paths[m.path] = i
		if m.kind == behindGateway {
			m.gateway = gateways
			gateways++
		}
		mounts = append(mounts, m)
	}
	return mounts, problems
}

func resolveMount(in Input, m *v1alpha1.Mount, field string) (mount, []Problem) {
	var problems []Problem
	r := mount{
		kind: kindOf(m.MountPoint), path: mountPath(m), source: m.MountPoint, shared: m.Shared,
		options: maps.Clone(in.Dataset.Spec.SharedOptions), secrets: map[string]string{},
		readOnly: m.ReadOnly || !writing(in.Dataset.Spec.AccessModes),
	}
	r.id = shortHash(r.path)
	if r.options == nil {
		r.options = map[string]string{}
	}
	maps.Copy(r.options, m.Options)
	scheme, rest, _ := strings.Cut(m.MountPoint, "://")
	switch {
	case r.kind == unknown:
		problems = append(problems, Problem{
			field + ".mountPoint",
			fmt.Sprintf("has the scheme %s, which is not served; accepted are %s", scheme,
				strings.Join(slices.Sorted(maps.Keys(kinds)), ", ")),
		})
	case strings.Contains(strings.SplitN(rest, "/", 2)[0], "@") && r.kind != direct:
		problems = append(problems, Problem{
			field + ".mountPoint",
			"has a user or a password; give them as encryptOptions",
		})
	case r.kind == onNode && !path.IsAbs(rest):
		problems = append(problems, Problem{field + ".mountPoint", "is not local:// and an absolute path"})
	}
	for _, part := range strings.Split(r.path, "/") {
		if part == ".." || part == "." {
			problems = append(problems, Problem{field + ".path", fmt.Sprintf("%q has a part that is . or ..", r.path)})
		}
	}
	read := func(options []v1alpha1.EncryptOption, field string) {
		for i := range options {
			value, problem := secretValue(in.Secrets, &options[i], fmt.Sprintf("%s[%d]", field, i))
			if problem != nil {
				problems = append(problems, *problem)
			}
			delete(r.options, options[i].Name)
			r.secrets[options[i].Name] = value
		}
	}
	read(in.Dataset.Spec.SharedEncryptOptions, "Dataset.spec.sharedEncryptOptions")
	problems = append(problems, checkTwice(&in.Dataset.Spec, m, field)...)
	read(m.EncryptOptions, field+".encryptOptions")
	if viaGateway(in.Dataset, m, in.Settings.Network) {
		plainNames(r.options)
		plainNames(r.secrets)
		if r.kind == direct {
			r.asGateways()
		}
		r.kind, r.readOnly = behindGateway, true
		problems = append(problems, checkGatewayOptions(&r, field)...)
	}
	return r, problems
}

// checkTwice looks for options that a mount has openly and as a secret, of its own or shared: it cannot be told which
// of the two is meant.
func checkTwice(d *v1alpha1.DatasetSpec, m *v1alpha1.Mount, mount string) []Problem {
	var problems []Problem
	check := func(secrets []v1alpha1.EncryptOption, field string) {
		for i := range secrets {
			name := secrets[i].Name
			if _, open := m.Options[name]; open {
				problems = append(problems, Problem{
					field,
					fmt.Sprintf("has %s, which %s.options has also; accepted is one of them", name, mount),
				})
			}
			if _, open := d.SharedOptions[name]; open {
				problems = append(problems, Problem{
					field,
					fmt.Sprintf("has %s, which Dataset.spec.sharedOptions has also; accepted is one of them", name),
				})
			}
		}
	}
	check(d.SharedEncryptOptions, "Dataset.spec.sharedEncryptOptions")
	check(m.EncryptOptions, mount+".encryptOptions")
	return problems
}

// isAlluxios reports whether an option is one that Alluxio itself knows, also of a mount behind a gateway.
func isAlluxios(option string) bool { return strings.HasPrefix(option, "alluxio.") }

// gatewayOption is what options of rclone's backends look like.
var gatewayOption = regexp.MustCompile(`^[a-z0-9_]+$`)

// checkGatewayOptions looks for options that do not fit into a gateway's file, which has a line for each.
func checkGatewayOptions(m *mount, field string) []Problem {
	var problems []Problem
	for i, options := range []map[string]string{m.options, m.secrets} {
		for _, name := range slices.Sorted(maps.Keys(options)) {
			if isAlluxios(name) {
				continue
			}
			// A line break at the end is what editors and echo leave in a Secret.
			options[name] = strings.TrimRight(options[name], "\r\n")
			if ofNetworks(name) {
				value, err := checkNetwork(name, options[name], i == 0)
				if err != nil {
					problems = append(problems, Problem{field, fmt.Sprintf("has the option %s, which %v", name, err)})
				}
				options[name] = value
			}
			switch {
			case !gatewayOption.MatchString(name):
				problems = append(problems, Problem{
					field,
					fmt.Sprintf("has the option %q; accepted for this source are the options of rclone's backend, "+
						"such as headers, and Alluxio's, which begin with alluxio", name),
				})
			case strings.ContainsAny(options[name], "\r\n"):
				problems = append(problems, Problem{
					field,
					fmt.Sprintf("has the option %q with a line break in it; accepted is one line", name),
				})
			}
		}
	}
	return problems
}

// gatewayOptions are the options that are the gateway's, with the secret ones.
func (m *mount) gatewayOptions() map[string]string {
	all := maps.Clone(m.options)
	maps.Copy(all, m.secrets)
	maps.DeleteFunc(all, func(name, _ string) bool { return isAlluxios(name) })
	return all
}

// alluxioOptions are the others.
func (m *mount) alluxioOptions() map[string]string {
	all := maps.Clone(m.options)
	maps.Copy(all, m.secrets)
	maps.DeleteFunc(all, func(name, _ string) bool { return m.kind == behindGateway && !isAlluxios(name) })
	return all
}

// secretValue finds the value of an option.
func secretValue(secrets map[string]*corev1.Secret, o *v1alpha1.EncryptOption, field string) (string, *Problem) {
	ref := o.ValueFrom.SecretKeyRef
	secret := secrets[ref.Name]
	if secret == nil {
		return "", &Problem{field, fmt.Sprintf("names the Secret %q, which does not exist", ref.Name)}
	}
	value, ok := secret.Data[ref.Key]
	if !ok {
		return "", &Problem{field, fmt.Sprintf("names the key %q of the Secret %q, which does not have it", ref.Key,
			ref.Name)}
	}
	return string(value), nil
}

// SecretNames are the names of the Secrets that the Dataset's options are in.
func SecretNames(dataset *v1alpha1.Dataset) []string {
	found := map[string]bool{}
	collect := func(options []v1alpha1.EncryptOption) {
		for i := range options {
			if name := options[i].ValueFrom.SecretKeyRef.Name; name != "" {
				found[name] = true
			}
		}
	}
	collect(dataset.Spec.SharedEncryptOptions)
	for i := range dataset.Spec.Mounts {
		collect(dataset.Spec.Mounts[i].EncryptOptions)
	}
	return slices.Sorted(maps.Keys(found))
}

// mountPath is where a mount is in the Dataset.
func mountPath(m *v1alpha1.Mount) string {
	if path.IsAbs(m.Path) {
		return "/" + strings.Trim(m.Path, "/")
	}
	return "/" + strings.Trim(m.Name, "/")
}

// writing reports whether a volume is asked for that can be written.
func writing(modes []corev1.PersistentVolumeAccessMode) bool {
	return slices.ContainsFunc(modes,
		func(m corev1.PersistentVolumeAccessMode) bool { return m != corev1.ReadOnlyMany })
}

// root is the directory of Alluxio's name space that pods see. Alluxio's own root cannot be mounted and unmounted
// while it runs, so a mount of the Dataset's root is at a directory below.
func (b *builder) root() string { return Root(b.Dataset) }

// Root is the same for a Dataset.
func Root(d *v1alpha1.Dataset) string {
	for i := range d.Spec.Mounts {
		if mountPath(&d.Spec.Mounts[i]) == "/" {
			return "/" + d.Name
		}
	}
	return "/"
}

// alluxioMounts are the mounts as Alluxio is to have them, outer ones first.
func (b *builder) alluxioMounts() []rpc.Mount {
	mounts := make([]rpc.Mount, 0, len(b.mounts))
	for i := range b.mounts {
		m := &b.mounts[i]
		out := rpc.Mount{
			Path: path.Join(b.root(), m.path), Source: m.source, Shared: m.shared, Properties: map[string]string{},
			// Alluxio mounts nothing below a mount that is read-only. Pods cannot write all the same.
			ReadOnly: m.readOnly && !b.around(m),
		}
		switch m.kind {
		case behindGateway:
			out.Source = gateway.AlluxioURI(b.bucket(m))
			maps.Copy(out.Properties, m.alluxioOptions())
			maps.Copy(out.Properties, gateway.AlluxioOptions(fmt.Sprintf("http://127.0.0.1:%d",
				b.ports.gateway.at(m.gateway)), m.source, b.Keys))
		case onNode, inClaim:
			out.Source = m.inContainer()
		default:
			maps.Copy(out.Properties, m.alluxioOptions())
		}
		out.Properties[HashOption] = mountHash(out)
		mounts = append(mounts, out)
	}
	slices.SortFunc(mounts, func(a, b rpc.Mount) int { return strings.Compare(a.Path, b.Path) })
	return mounts
}

// around reports whether another mount is below a mount.
func (b *builder) around(m *mount) bool {
	below := strings.TrimSuffix(m.path, "/") + "/"
	return slices.ContainsFunc(b.mounts, func(other mount) bool {
		return other.path != m.path &&
			strings.HasPrefix(other.path, below)
	})
}

// inContainer is where a source of the node or of a claim is in Alluxio's containers.
func (m *mount) inContainer() string { return sourcesDir + "/" + m.id }

// mountHash tells two mounts apart that differ in anything.
func mountHash(m rpc.Mount) string {
	// It cannot fail: strings and booleans.
	text, _ := json.Marshal([]any{m.Path, m.Source, m.Properties, m.ReadOnly, m.Shared})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}
