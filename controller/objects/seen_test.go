package objects

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// TestTiersThatAgentsDoNotSee names the tier, what it costs, and the value of the chart that mends it.
func TestTiersThatAgentsDoNotSee(t *testing.T) {
	quota := resource.MustParse("2Gi")
	level := func(medium v1alpha1.MediumType, path string) v1alpha1.Level {
		return v1alpha1.Level{MediumType: medium, Path: path, Quota: &quota}
	}
	emptyDir := level(v1alpha1.Memory, "/dev/shm")
	emptyDir.VolumeType = v1alpha1.EmptyDir
	for name, tc := range map[string]struct {
		dirs   []string
		levels []v1alpha1.Level
		says   []string
	}{
		"seen":              {[]string{"/dev/shm"}, []v1alpha1.Level{level(v1alpha1.Memory, "/dev/shm")}, nil},
		"seen where unsaid": {[]string{"/dev/shm/"}, []v1alpha1.Level{level(v1alpha1.Memory, "")}, nil},
		"below":             {[]string{"/var/lib"}, []v1alpha1.Level{level(v1alpha1.SSD, "/var/lib/ssd0/cache")}, nil},
		"of the root":       {[]string{"/"}, []v1alpha1.Level{level(v1alpha1.SSD, "/var/lib/ssd0/cache")}, nil},
		"not known":         {nil, []v1alpha1.Level{level(v1alpha1.SSD, "/var/lib/ssd0/cache")}, nil},
		"a disk": {
			[]string{"/dev/shm"},
			[]v1alpha1.Level{level(v1alpha1.SSD, "/var/lib/ssd0/cache")},
			[]string{
				"levels[0] is in /var/lib/ssd0/cache", "many times slower",
				"tierDirs of the chart mends it: add /var/lib/ssd0/cache",
			},
		},
		"a name alike": {
			[]string{"/var/lib/ssd"},
			[]v1alpha1.Level{level(v1alpha1.SSD, "/var/lib/ssd0")},
			[]string{"add /var/lib/ssd0"},
		},
		"the second of two": {
			[]string{"/dev/shm", "/ssd0"},
			[]v1alpha1.Level{level(v1alpha1.SSD, "/ssd0,/ssd1"), level(v1alpha1.Memory, "/dev/shm")},
			[]string{"levels[0] is in /ssd1;", "add /ssd1"},
		},
		"the pod's own": {[]string{"/dev/shm"}, []v1alpha1.Level{emptyDir}, []string{"levels[0]", "emptyDir"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := read(t, "testdata/minimal.yaml")
			in.Settings.TierDirs, in.Runtime.Spec.TieredStore.Levels = tc.dirs, tc.levels
			plan, problems := Desired(in)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if (plan.Unseen == "") != (tc.says == nil) {
				t.Errorf("it says %q", plan.Unseen)
			}
			for _, text := range tc.says {
				if !strings.Contains(plan.Unseen, text) {
					t.Errorf("%q does not say %q", plan.Unseen, text)
				}
			}
		})
	}
}

// TestSources are what is asked: where, and whose keys they are.
func TestSources(t *testing.T) {
	plan, problems := Desired(read(t, "testdata/everything.yaml"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	gateways, secrets := map[int32]bool{}, 0
	for i := range plan.Sources {
		s := &plan.Sources[i]
		if s.Gateway {
			gateways[s.Health] = true
			if s.Secrets != "" && s.Options == "" {
				t.Errorf("%+v", s)
			}
		}
		if strings.Contains(s.Secrets, "web (") {
			secrets++
		}
		found := false
		for _, m := range plan.Mounts {
			found = found || m.Path == s.Path
		}
		if !found {
			t.Errorf("no mount is at %s", s.Path)
		}
	}
	if len(plan.Sources) != len(plan.Mounts) || len(gateways) == 0 || secrets == 0 || gateways[0] {
		t.Errorf("%+v", plan.Sources)
	}
}
