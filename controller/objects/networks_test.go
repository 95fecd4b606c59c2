package objects

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"millrace.io/millrace/cacheclient/network"
	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/sanity/pki"
)

// authority is a certificate in PEM.
func authority(t *testing.T) string {
	t.Helper()
	a, err := pki.New(t.TempDir())
	must(t, err)
	return string(a.PEM)
}

// withOptions is the walkthrough with these options, and those of a Secret, of its one mount.
func withOptions(t *testing.T, mountPoint string, open, secret map[string]string) Input {
	t.Helper()
	in := read(t, "testdata/walkthrough.yaml")
	m := &in.Dataset.Spec.Mounts[0]
	m.MountPoint, m.Options = mountPoint, open
	s := &corev1.Secret{Data: map[string][]byte{}}
	for name, value := range secret {
		s.Data[name] = []byte(value)
		m.EncryptOptions = append(
			m.EncryptOptions,
			v1alpha1.EncryptOption{Name: name, ValueFrom: v1alpha1.EncryptOptionSource{
				SecretKeyRef: v1alpha1.SecretKeySelector{Name: "net", Key: name},
			}},
		)
	}
	slices.SortFunc(m.EncryptOptions, func(a, b v1alpha1.EncryptOption) int { return strings.Compare(a.Name, b.Name) })
	in.Secrets = map[string]*corev1.Secret{"net": s}
	return in
}

// optionsOf are the lines of the options file of the one gateway.
func optionsOf(t *testing.T, plan *Plan) []string {
	t.Helper()
	for _, o := range plan.Objects {
		s, ok := o.(*corev1.Secret)
		if !ok {
			continue
		}
		for key, text := range s.Data {
			if strings.HasPrefix(key, "options-") {
				return strings.Split(strings.TrimSpace(string(text)), "\n")
			}
		}
	}
	return nil
}

// TestNetworkOptions has authorities and proxies become lines of the gateway's options.
func TestNetworkOptions(t *testing.T) {
	pem := authority(t)
	line, err := network.Line(pem)
	must(t, err)
	keys := map[string]string{"aws.accessKeyId": "id", "aws.secretKey": "key", "ca_cert": pem}
	for name, c := range map[string]struct {
		mountPoint   string
		open, secret map[string]string
		want         []string
	}{
		"a Secret's": {
			"https://a.example.org/", nil,
			map[string]string{"ca_cert": pem, "HTTPS_PROXY": "http://me:secret@proxy:3128\n"},
			[]string{"ca_cert = " + line, "https_proxy = http://me:secret@proxy:3128"},
		},
		"open": {
			"https://a.example.org/",
			map[string]string{"ca_cert": pem, "NO_PROXY": ".svc,10.0.0.0/8", "http_proxy": "none"},
			nil,
			[]string{"ca_cert = " + line, "http_proxy = none", "no_proxy = .svc,10.0.0.0/8"},
		},
		"a bucket": {
			"s3a://data/2024",
			map[string]string{
				"alluxio.underfs.s3.endpoint":            "https://store:9000",
				"alluxio.underfs.s3.disable.dns.buckets": "true",
			},
			keys,
			[]string{
				"access_key_id = id", "ca_cert = " + line, "endpoint = https://store:9000",
				"force_path_style = true", "secret_access_key = key",
			},
		},
	} {
		plan, problems := Desired(withOptions(t, c.mountPoint, c.open, c.secret))
		if len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
			continue
		}
		if got := optionsOf(t, plan); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	plan, _ := Desired(withOptions(t, "s3a://data/2024", nil, keys))
	if source := plan.Mounts[0].Properties["millrace.source"]; source != "s3://data/2024" || !plan.Mounts[0].ReadOnly {
		t.Errorf("a bucket behind a gateway is shown as %q", source)
	}
}

// TestNetworkRefused has what is no authority and no proxy be a problem with its field, without its value.
func TestNetworkRefused(t *testing.T) {
	web := "https://a.example.org/"
	for name, c := range map[string]struct {
		open, secret map[string]string
		why          string
	}{
		"a path": {
			map[string]string{"ca_cert": "/x.pem"},
			nil,
			"the option ca_cert, which is no certificate in PEM",
		},
		"no PEM": {
			nil,
			map[string]string{"ca_cert": "-----BEGIN CERTIFICATE-----hunter2-----END CERTIFICATE-----"},
			"the option ca_cert, which has a",
		},
		"no proxy": {
			nil,
			map[string]string{"https_proxy": "http://me:hunter2@ proxy"},
			"the option https_proxy, which is no proxy",
		},
		"a scheme": {
			map[string]string{"HTTP_PROXY": "ftp://proxy:21"},
			nil,
			`the option http_proxy, which has the scheme "ftp"`,
		},
		"an open password": {
			map[string]string{"https_proxy": "http://me:hunter2@proxy:3128"},
			nil,
			"give it as one of encryptOptions",
		},
		"a key that is a path": {
			nil,
			map[string]string{"client_key": "/hunter2"},
			"the option client_key, which is no PEM",
		},
		"an open key": {map[string]string{"client_key": "-----BEGIN EC PRIVATE KEY-----aHVudGVyMg==-----END " +
			"EC PRIVATE KEY-----"}, nil, "is a secret"},
		"several lines of text": {nil, map[string]string{"no_proxy": "a\nb"}, "line break"},
	} {
		_, problems := Desired(withOptions(t, web, c.open, c.secret))
		if len(problems) != 1 || problems[0].Field != "Dataset.spec.mounts[0]" ||
			!strings.Contains(problems[0].Why, c.why) ||
			strings.Contains(problems[0].String(), "hunter2") {
			t.Errorf("%s: %v", name, problems)
		}
	}
	in := withOptions(t, web, nil, map[string]string{"ca_cert": authority(t)})
	delete(in.Secrets["net"].Data, "ca_cert")
	if _, problems := Desired(in); len(problems) == 0 ||
		problems[0].Field != "Dataset.spec.mounts[0].encryptOptions[0]" {
		t.Errorf("a key that is missing: %v", problems)
	}
	in = withOptions(t, web, nil, nil)
	in.Runtime.Spec.Worker.Env = map[string]string{"HTTPS_PROXY": "http://me:hunter2@ proxy"}
	_, problems := Desired(in)
	if len(problems) != 1 || problems[0].Field != "AlluxioRuntime.spec.worker.env[HTTPS_PROXY]" ||
		strings.Contains(problems[0].Why, "hunter2") {
		t.Errorf("a variable that is no proxy: %v", problems)
	}
}

// TestProxiesOfTheEnvironment has the variables of masters and workers reach their gateways, and Alluxio's own way to
// these stay direct.
func TestProxiesOfTheEnvironment(t *testing.T) {
	in := withOptions(t, "https://a.example.org/", nil, nil)
	env := map[string]string{
		"HTTPS_PROXY": "http://proxy:3128",
		"HTTP_PROXY":  "http://proxy:3128",
		"NO_PROXY":    ".svc",
		"OTHER":       "x",
	}
	in.Runtime.Spec.Worker.Env, in.Runtime.Spec.Master.Env = env, env
	plan, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	seen := 0
	for _, o := range plan.Objects {
		spec := podSpecOf(o)
		if spec == nil {
			continue
		}
		for i := range spec.Containers {
			c := &spec.Containers[i]
			got := map[string]string{}
			for _, e := range c.Env {
				got[e.Name] = e.Value
			}
			direct, other := ".svc,127.0.0.1,localhost", "x"
			if c.Name == gatewayContainer {
				direct, other = ".svc", ""
			}
			if got["HTTPS_PROXY"] != env["HTTPS_PROXY"] || got["NO_PROXY"] != direct || got["OTHER"] != other {
				t.Errorf("%s of %s has %v", c.Name, o.GetName(), got)
			}
			seen++
		}
	}
	if seen < 4 {
		t.Errorf("%d containers were looked at", seen)
	}
}

// TestOperatorsNetwork has the chart's settings reach every gateway by the Secret, and buckets have a gateway for them.
func TestOperatorsNetwork(t *testing.T) {
	pem := authority(t)
	in := withOptions(t, "s3://data/2024", nil, nil)
	in.Settings.Network = network.Settings{
		Authorities: pem,
		Proxies:     network.Proxies{HTTPS: "http://me:secret@proxy:3128", No: ".svc"},
	}
	plan, problems := Desired(in)
	if len(problems) > 0 || !NeedsGateway(in.Dataset, in.Settings) {
		t.Fatal(problems)
	}
	var lists [][]string
	must(t, json.Unmarshal(gatewaysIn(t, plan, "worker-gateways.json"), &lists))
	if len(lists) != 1 || lists[0][len(lists[0])-1] != "s3://data/2024" {
		t.Errorf("the gateways are %q", lists)
	}
	for key, want := range map[string]string{
		"ca.crt": pem, "HTTPS_PROXY": "http://me:secret@proxy:3128",
		"NO_PROXY": ".svc",
	} {
		if got := string(gatewaysIn(t, plan, key)); got != want {
			t.Errorf("%s is %q", key, got)
		}
	}
	for _, o := range plan.Objects {
		if _, is := o.(*corev1.Secret); !is &&
			strings.Contains(string(render(t, &Plan{Objects: []Object{o}})), "me:secret") {
			t.Errorf("%s has the proxy's password", o.GetName())
		}
	}
}

// TestNoMounts has a Dataset without mounts be one with nothing in it, whose first web server needs no other pod.
func TestNoMounts(t *testing.T) {
	in := withOptions(t, "https://a.example.org/", nil, nil)
	with, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	in.Dataset.Spec.Mounts = nil
	without, problems := Desired(in)
	if len(problems) > 0 || len(without.Mounts) != 0 || !NeedsGateway(in.Dataset, in.Settings) {
		t.Fatal(without, problems)
	}
	for i, o := range without.Objects {
		if before, after := podSpecOf(o), podSpecOf(with.Objects[i]); before != nil &&
			len(before.Containers) != len(after.Containers) {
			t.Errorf(
				"%s has %d containers without mounts, and %d with one",
				o.GetName(),
				len(before.Containers),
				len(after.Containers),
			)
		}
	}
}

// TestTakenAsInFluid has what Fluid takes be taken, and said where it has no effect.
func TestTakenAsInFluid(t *testing.T) {
	for _, source := range []string{"cephfs://mon:6789/data", "adl://lake/data", "kodo://bucket/data"} {
		if _, problems := Desired(withOptions(t, source, nil, nil)); len(problems) > 0 {
			t.Errorf("%s: %v", source, problems)
		}
	}
	in := withOptions(t, "https://a.example.org/", nil, nil)
	in.Dataset.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	plan, _ := Desired(in)
	if !slices.Contains(plan.Unsupported, "Dataset.spec.accessModes (the volume is read-only)") {
		t.Errorf("a mode that writes: %q", plan.Unsupported)
	}
	in.Dataset.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
	in.Settings.QualifiedVolumes = true
	if plan, _ = Desired(in); plan.Volume.Name != "default-hbase" || len(plan.Unsupported) > 0 ||
		plan.Claim.Spec.VolumeName != plan.Volume.Name {
		t.Errorf("the volume is %s, and %q has no effect", plan.Volume.Name, plan.Unsupported)
	}
	in.VolumeName = "hbase"
	if plan, _ = Desired(in); plan.Volume.Name != "hbase" || plan.Claim.Spec.VolumeName != "hbase" {
		t.Errorf("a volume that there was is %s now", plan.Volume.Name)
	}
}

// TestClaimsOfOnePod has one claim be one volume of a pod, however many mounts are of it, and a mount with another one
// below it be one that Alluxio mounts something below.
func TestClaimsOfOnePod(t *testing.T) {
	in := withOptions(t, "pvc://archive/2024", nil, nil)
	in.Dataset.Spec.Mounts = []v1alpha1.Mount{
		{MountPoint: "pvc://archive/2024", Path: "/"}, {
			MountPoint: "pvc://archive",
			Name:       "whole",
		}, {MountPoint: "pvc://other/", Name: "other"},
	}
	plan, problems := Desired(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, o := range plan.Objects {
		spec := podSpecOf(o)
		if spec == nil {
			continue
		}
		claims := map[string]string{}
		for _, v := range spec.Volumes {
			if c := v.PersistentVolumeClaim; c != nil {
				if claims[c.ClaimName] != "" {
					t.Errorf("%s names the claim %s twice", o.GetName(), c.ClaimName)
				}
				claims[c.ClaimName] = v.Name
			}
		}
		paths := map[string]bool{}
		for _, m := range spec.Containers[0].VolumeMounts {
			if m.Name == claims["archive"] {
				paths[m.SubPath] = true
			}
		}
		if len(claims) != 2 || !paths[""] || !paths["2024"] {
			t.Errorf("%s has the claims %v, and of one the paths %v", o.GetName(), claims, paths)
		}
	}
	for _, m := range plan.Mounts {
		if m.ReadOnly != (m.Path != "/hbase") {
			t.Errorf("the mount %s is read-only: %t", m.Path, m.ReadOnly)
		}
	}
}
