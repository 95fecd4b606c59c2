package driver

import (
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/fuse/handover"
)

func TestParseAttributes(t *testing.T) {
	got, err := parseAttributes(map[string]string{
		"source": "https://host/path/", "quota": "2Gi", "high": "0.9", "low": ".5", "tierDir": "/dev/shm/x",
		"connections": "8", "timeout": "5s", "revalidate": "0", "passthrough": "false", "fileMode": "0440",
		"dirMode":        "550",
		"option.no_head": "true", "csi.storage.k8s.io/pod.name": "p", ephemeralKey: "true",
		"storage.kubernetes.io/csiProvisionerIdentity": "x",
	})
	want := attributes{
		Source: "https://host/path/", Quota: 2 << 30, High: 0.9, Low: 0.5, TierDir: "/dev/shm/x", Connections: 8,
		Timeout: 5 * time.Second, Revalidate: 1, Passthrough: "false", FileMode: 0o440, DirMode: 0o550,
		Options: map[string]string{"no_head": "true"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	v, err := got.volume("id", "/staging", mountSettings{uid: 7, gid: 8, fileMode: 1, dirMode: 1},
		map[string]string{"pass": "hunter2"})
	if err != nil || !v.NoPassthrough || v.UID != 7 || v.GID != 8 || v.FileMode != 0o440 || v.DirMode != 0o550 ||
		v.Secrets["pass"] != "hunter2" {
		t.Errorf("%#v, %v", v, err)
	}
}

// TestNetworkOfAVolume gives an authority of one's own and proxies as Secrets have them, and as attributes.
func TestNetworkOfAVolume(t *testing.T) {
	authority := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
	a, err := parseAttributes(map[string]string{
		"source": "https://host/", "option.ca_cert": authority + "\n",
		"option.NO_PROXY": ".svc",
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := a.volume("id", "/staging", mountSettings{},
		map[string]string{"HTTPS_PROXY": "http://me:hunter2@proxy:3128\n", "source_ca_cert": authority})
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"ca_cert": authority, "no_proxy": ".svc"}; !maps.Equal(v.Options, want) {
		t.Errorf("%q", v.Options)
	}
	if want := map[string]string{
		"https_proxy":    "http://me:hunter2@proxy:3128",
		"source_ca_cert": authority,
	}; !maps.Equal(v.Secrets, want) {
		t.Error("the Secret's options are others")
	}
	if err := (handover.Policy{}).Check(v); err != nil {
		t.Error(err)
	}
}

func TestParseAttributesRefuses(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"quota", "2Qi", `quota "2Qi" is not accepted; accepted is a quantity`},
		{"quota", "0", "quantity of bytes above 0"},
		{"quota", "-1Gi", "quantity"},
		{"quota", "1e999999999", "quantity"},
		{"quota", "9223372036854775808", "quantity"},
		{"high", "1.5", "at most 1"},
		{"low", "0.95", "less than high"},
		{"connections", "0", "from 1 to 1024"},
		{"timeout", "0s", "above 0"},
		{"revalidate", "-1s", "accepted is 0, or a time"},
		{"passthrough", "yes", "true or false"},
		{"fileMode", "0888", "octal"},
		{"dirMode", "0", "octal"},
		{"tierDir", "relative", "absolute path"},
		{"Quota", "1Gi", `attribute "Quota" is not known; accepted are source, dataset`},
		{"dataset", "default/weather", "given both"},
		{"source", "https://user:hunter2@host/", "without user, password or query"},
		{"source", "https://host/?token=hunter2", "without user, password or query"},
		{"source", "relative/hunter2", "a URL such as"},
		{"option.UPPER", "x", "lower-case"},
		{"option.pass", "hunter2\nline", "one line"},
		{"option.https_proxy", "http://me:hunter2@proxy:3128", "option https_proxy has a user or a password"},
		{"option.HTTPS_PROXY", "http://me:hunter2@proxy:3128", "in the volume's Secret"},
	} {
		values := map[string]string{"source": "https://host/", "high": "0.9", c.key: c.value}
		_, err := parseAttributes(values)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%q: %v, want %q", c.key, c.value, err, c.want)
		}
		if err != nil && c.key != "source" && strings.Contains(err.Error(), "hunter2") ||
			err != nil && strings.Contains(c.value, "?token") && strings.Contains(err.Error(), "token") {
			t.Errorf("%s: a secret is repeated: %v", c.key, err)
		}
	}
	if _, err := parseAttributes(nil); err == nil || !strings.Contains(err.Error(), "needs source or dataset") {
		t.Error("no source:", err)
	}
	a := attributes{Source: "s3://b", Options: map[string]string{"pass": "x"}}
	if _, err := a.volume("id", "/d", mountSettings{}, map[string]string{"pass": "y"}); err == nil {
		t.Error("an option in the attributes and in the secret was accepted")
	}
}

// TestCheckClass: a class is refused for what a node would refuse later.
func TestCheckClass(t *testing.T) {
	for _, c := range []struct {
		key, value, option, want string
	}{
		{"quota", "2Gi", "umask=0027", ""},
		{"quota", "many", "ro", `attribute quota "many" is not accepted; accepted is a quantity`},
		{"dataset", "default/weather", "ro", "given both"},
		{"quota", "2Gi", "rw", `mount option "rw" is not accepted; accepted are ro`},
	} {
		err := CheckClass(map[string]string{"source": "https://host/", c.key: c.value}, []string{c.option})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s, %s: %v, want %q", c.key, c.value, c.option, err, c.want)
		}
	}
	if err := CheckClass(map[string]string{"dataset": "default/weather"}, nil); err == nil ||
		!strings.Contains(err.Error(), "accepted is source") {
		t.Error("a Dataset that no node mounts:", err)
	}
}

// FuzzAttributes: what is accepted comes back from its canonical text as the same, and is a volume that can be
// handed over.
func FuzzAttributes(f *testing.F) {
	for _, row := range table {
		f.Add(row.name, "1", "0.7")
	}
	f.Add("quota", "2Gi", "")
	f.Add("timeout", "1m30s", "1")
	f.Add("option.endpoint", "https://minio", "")
	f.Add("dataset", "default/weather", "")
	f.Fuzz(func(t *testing.T, key, value, high string) {
		values := map[string]string{key: value}
		if key != "source" && key != "dataset" {
			values["source"] = "s3://bucket/x"
		}
		if high != "" && key != "high" {
			values["high"] = high
		}
		first, err := parseAttributes(values)
		if err != nil {
			return
		}
		text := first.context()
		second, err := parseAttributes(text)
		if err != nil || !reflect.DeepEqual(first, second) || !maps.Equal(text, second.context()) {
			t.Fatalf("%v became %v, then %v: %+v, %+v", values, text, err, first, second)
		}
		if first.Source == "" {
			return
		}
		v, err := first.volume("id", "/staging", mountSettings{}, nil)
		if err != nil {
			t.Fatalf("%v: %v", values, err)
		}
		if v.Quota < 0 || v.High < 0 || v.High > 1 || v.FileMode > 0o777 || v.DirMode > 0o777 || v.Timeout < 0 {
			t.Fatalf("%v: %#v", values, v)
		}
	})
}

func TestParseMountOptions(t *testing.T) {
	for _, c := range []struct {
		flags []string
		group string
		want  mountSettings
		err   string
	}{
		{nil, "", mountSettings{}, ""},
		{[]string{"ro"}, "", mountSettings{}, ""},
		{nil, "2000", mountSettings{gid: 2000}, ""},
		{
			[]string{"uid=5", "gid=6", "umask=0027"},
			"",
			mountSettings{uid: 5, gid: 6, fileMode: 0o440, dirMode: 0o550},
			"",
		},
		{
			[]string{`context="system_u:object_r:container_file_t:s0:c1,c2"`},
			"",
			mountSettings{seLinuxContext: "system_u:object_r:container_file_t:s0:c1,c2"},
			"",
		},
		{[]string{"gid=6"}, "6", mountSettings{gid: 6}, ""},
		{[]string{"gid=6", "umask=0007"}, "7", mountSettings{gid: 6, fileMode: 0o440, dirMode: 0o550}, ""},
		{[]string{"gid=6", "gid=7"}, "", mountSettings{}, "contradicts"},
		{[]string{"rw"}, "", mountSettings{}, `mount option "rw" is not accepted; accepted are ro, uid=NUMBER`},
		{[]string{"ro=1"}, "", mountSettings{}, "not accepted"},
		{[]string{"uid=-1"}, "", mountSettings{}, "not accepted"},
		{[]string{"uid=4294967295"}, "", mountSettings{}, "not accepted"},
		{[]string{"umask=0888"}, "", mountSettings{}, "not accepted"},
		{[]string{"umask=0777"}, "", mountSettings{}, "nobody"},
		{[]string{`context=a:b:c",fd=3`}, "", mountSettings{}, "not accepted"},
		{[]string{"allow_other,suid"}, "", mountSettings{}, "not accepted"},
		{nil, "staff", mountSettings{}, "volume_mount_group"},
	} {
		got, err := parseMountOptions(c.flags, c.group)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q %q: %v, want %q", c.flags, c.group, err, c.err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%q %q: %+v, %v, want %+v", c.flags, c.group, got, err, c.want)
		}
	}
}

// FuzzMountOption: a label that is accepted cannot leave its quotes, and modes are permission bits without write.
func FuzzMountOption(f *testing.F) {
	for _, seed := range []string{
		"ro", "uid=1", "umask=022", `context="u:r:t:s0"`, "context=u:r:t:s0:c1,c2",
		`context=a:b:c"x`,
	} {
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, flag, group string) {
		m, err := parseMountOptions([]string{flag}, group)
		if err != nil {
			return
		}
		if strings.ContainsAny(m.seLinuxContext, "\"\\= \n\x00") || (m.fileMode|m.dirMode)&^0o555 != 0 {
			t.Fatalf("%q: %+v", flag, m)
		}
	})
}

func TestSameStage(t *testing.T) {
	v := handover.Volume{
		ID: "a", Dir: "/d", Source: "s3://b", Secrets: map[string]string{"k": "old"}, GID: 2000, FileMode: 0o440,
	}
	for what, c := range map[string]struct {
		change func(*handover.Volume)
		same   bool
	}{
		"nothing": {func(*handover.Volume) {}, true},
		"secrets": {func(v *handover.Volume) { v.Secrets = map[string]string{"k": "new"} }, true},
		"group":   {func(v *handover.Volume) { v.GID, v.FileMode = 3000, 0 }, true},
		"source":  {func(v *handover.Volume) { v.Source = "s3://c" }, false},
		"quota":   {func(v *handover.Volume) { v.Quota = 1 }, false},
		"dir":     {func(v *handover.Volume) { v.Dir = "/e" }, false},
	} {
		other := v
		c.change(&other)
		if err := sameStage(record{Volume: v}, record{Volume: other}); (err == nil) != c.same {
			t.Errorf("another %s: %v", what, err)
		}
	}
}
