package objects

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/api/v1alpha1"
)

const (
	// gatewayDir is where a gateway finds its keys and options.
	gatewayDir = "/etc/millrace/gateway"
	// gatewayUser is the user and group that gateways run as.
	gatewayUser int64 = 65532
)

// gateways counts the mounts behind gateways.
func (b *builder) gateways() int {
	n := 0
	for i := range b.mounts {
		if b.mounts[i].kind == behindGateway {
			n++
		}
	}
	return n
}

// bucket is what Alluxio sees of a gateway. Two mounts need two names.
func (b *builder) bucket(m *mount) string { return b.names.name + "-" + m.id }

// optionsKey is the key of the gateways' Secret with the options of a mount.
func (m *mount) optionsKey() string { return "options-" + m.id }

// spare is how many gateways more than there are have ports that the scheduler keeps for them on a node's network.
// Mounts up to the next multiple of it come without another pod.
const spare = 8

// reserved counts the gateways for which there are ports.
func (b *builder) reserved() int { return reserved(b.gateways()) }

func reserved(gateways int) int { return (gateways + spare - 1) / spare * spare }

// serving reports whether pods have a process for gateways: where a mount is behind one, and where there is no mount
// yet.
func (b *builder) serving() bool { return b.gateways() > 0 || len(b.mounts) == 0 }

// addGateways adds the process that runs the gateways of all mounts. They listen on the loopback, so masters and
// workers have their own. D-252 says why it is one.
func (b *builder) addGateways(spec *corev1.PodSpec, role gatewayRole, part *v1alpha1.ComponentSpec) {
	if !b.serving() {
		return
	}
	var mode int32 = 0o440
	ports := role.of(&b.ports)
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "gateway", VolumeSource: corev1.VolumeSource{
		Secret: &corev1.SecretVolumeSource{SecretName: b.names.gateway(), DefaultMode: &mode},
	}})
	yes, no, user := true, false, gatewayUser
	door := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
		Path: "/healthz", Port: intstr.FromInt32(ports.door), Scheme: corev1.URISchemeHTTP,
	}}
	c := corev1.Container{
		Name: gatewayContainer, Image: b.Settings.MillraceImage, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: []string{
			"gateway", "--each", gatewayDir + "/" + role.eachKey(), "--metrics-listen", fmt.Sprintf(":%d", ports.door),
			"--network-dir", gatewayDir, "--log-format", "json",
		},
		Env:   proxyEnv(part),
		Ports: []corev1.ContainerPort{containerPort("gw", ports.door)},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
		}},
		VolumeMounts:   []corev1.VolumeMount{{Name: "gateway", MountPath: gatewayDir, ReadOnly: true}},
		LivenessProbe:  &corev1.Probe{ProbeHandler: door, PeriodSeconds: 10, FailureThreshold: 3, TimeoutSeconds: 3},
		ReadinessProbe: &corev1.Probe{ProbeHandler: door, PeriodSeconds: 5, FailureThreshold: 2, TimeoutSeconds: 3},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: &user, RunAsGroup: &user, RunAsNonRoot: &yes,
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
	for i := range int32(b.reserved()) {
		c.Ports = append(c.Ports, containerPort(fmt.Sprintf("gw-%d", i), ports.at(i)))
	}
	spec.Containers = append(spec.Containers, c)
}

// gatewayContainer is the container of all gateways of a pod.
const gatewayContainer = "gateway"

// gatewayRole is the part of Alluxio that a gateway is beside. Its health has a port of its own there.
type gatewayRole string

const (
	besideMasters gatewayRole = "master"
	besideWorkers gatewayRole = "worker"
)

// of are the ports beside that part.
func (r gatewayRole) of(p *ports) gatewayPorts {
	if r == besideMasters {
		return p.masterGateway
	}
	return p.workerGateway
}

// eachKey is the key of the gateways' Secret with the arguments of all of them.
func (r gatewayRole) eachKey() string { return string(r) + "-gateways.json" }

// eachFile is the file of the gateways beside masters, or beside workers.
func (b *builder) eachFile(role gatewayRole) []byte {
	lists := [][]string{}
	for i := range b.mounts {
		if m := &b.mounts[i]; m.kind == behindGateway {
			lists = append(lists, b.gatewayArguments(m, role.of(&b.ports).at(m.gateway), onHost(b.spec, string(role))))
		}
	}
	text, _ := json.Marshal(lists) // It cannot fail: strings.
	return text
}

// gatewayArguments are those of the gateway of a mount, which tells its health on a port.
func (b *builder) gatewayArguments(m *mount, health int32, onHost bool) []string {
	args := []string{
		"--listen", fmt.Sprintf("127.0.0.1:%d", b.ports.gateway.at(m.gateway)), "--metrics-listen", fmt.Sprintf(":%d",
			health),
		"--bucket", b.bucket(m), "--keys-file", gatewayDir + "/" + KeysFile, "--start-anyway",
	}
	if len(b.tiers) > 0 {
		args = append(args, "--block-size", strconv.FormatInt(blockSize(b.tiers), 10))
	}
	if len(m.gatewayOptions()) > 0 {
		args = append(args, "--options-file", gatewayDir+"/"+m.optionsKey())
	}
	if onHost {
		// A master and a worker of the Dataset on one node have a gateway each, of which either may answer.
		args = append(args, "--share-port")
	}
	return append(args, m.source)
}

// sealed returns a hash keyed with the gateways' secret key, so that it is no means to try passwords.
func (b *builder) sealed(text string) string {
	sum := hmac.New(sha256.New, []byte(b.Keys.SecretAccessKey))
	_, _ = sum.Write([]byte(text))
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// sourcesHash tells apart what the gateways' Secret has.
func (b *builder) sourcesHash() string {
	var text strings.Builder
	data := b.gatewaySecret()
	for _, key := range slices.Sorted(maps.Keys(data)) {
		fmt.Fprintf(&text, "%s\n%s\n", key, data[key])
	}
	return b.sealed(text.String())
}

// gatewaySecret is what gateways read.
func (b *builder) gatewaySecret() map[string][]byte {
	data := map[string][]byte{KeysFile: fmt.Appendf(nil, "access_key_id = %s\nsecret_access_key = %s\n",
		b.Keys.AccessKeyID, b.Keys.SecretAccessKey)}
	for _, role := range []gatewayRole{besideMasters, besideWorkers} {
		data[role.eachKey()] = b.eachFile(role)
	}
	for i := range b.mounts {
		m := &b.mounts[i]
		if m.kind == behindGateway && len(m.gatewayOptions()) > 0 {
			data[m.optionsKey()] = optionsFile(m.gatewayOptions())
		}
	}
	for name, text := range b.Settings.Network.Files() {
		data[name] = []byte(text)
	}
	return data
}

// secrets are the Secrets that pods and nodes read.
func (b *builder) secrets() []Object {
	var out []Object
	if b.serving() {
		out = append(out, b.secret(b.names.gateway(), b.gatewaySecret()))
	}
	// It is there also with nothing in it: a volume cannot come to name it later.
	return append(out, b.secret(b.names.node(), b.nodeCredentials()))
}

func (b *builder) secret(name string, data map[string][]byte) Object {
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: b.meta(name),
		Type: corev1.SecretTypeOpaque, Data: data,
	}
}

// ReadKeys reads the keys from the Secret that was made before; they are zero where it has none.
func ReadKeys(secret *corev1.Secret) gateway.Keys {
	var keys gateway.Keys
	if secret == nil {
		return keys
	}
	for line := range strings.Lines(string(secret.Data[KeysFile])) {
		name, value, _ := strings.Cut(line, "=")
		switch strings.TrimSpace(name) {
		case "access_key_id":
			keys.AccessKeyID = strings.TrimSpace(value)
		case "secret_access_key":
			keys.SecretAccessKey = strings.TrimSpace(value)
		}
	}
	if keys.AccessKeyID == "" || keys.SecretAccessKey == "" {
		return gateway.Keys{}
	}
	return keys
}

// optionsFile is a file as --options-file reads it.
func optionsFile(options map[string]string) []byte {
	var text []byte
	for _, name := range slices.Sorted(maps.Keys(options)) {
		text = fmt.Appendf(text, "%s = %s\n", name, options[name])
	}
	return text
}

// directNames are the options with which an agent reads an S3 store by itself, by Alluxio's names.
var directNames = map[string]string{
	"aws.accessKeyId": "access_key_id", "s3a.accessKeyId": "access_key_id", "aws.secretKey": "secret_access_key",
	"s3a.secretKey":               "secret_access_key",
	"alluxio.underfs.s3.endpoint": "endpoint", "alluxio.underfs.s3.endpoint.region": "region",
	"alluxio.underfs.s3.region": "region",
}

// nodeCredentials are what a node needs to read the source without Alluxio. With several mounts nothing could tell
// which one they are for, so there are none.
func (b *builder) nodeCredentials() map[string][]byte {
	if len(b.mounts) == 0 {
		return map[string][]byte{"may_be_empty": []byte("true")}
	}
	if len(b.mounts) != 1 {
		return nil
	}
	m := &b.mounts[0]
	scheme, _, _ := strings.Cut(m.source, "://")
	data := map[string][]byte{}
	if m.kind == behindGateway {
		for name, value := range m.gatewayOptions() {
			data["source_"+name] = []byte(value)
		}
		return data
	}
	for name, value := range m.alluxioOptions() {
		if strings.HasPrefix(scheme, "s3") && directNames[name] != "" {
			data["source_"+directNames[name]] = []byte(value)
		}
	}
	return data
}
