package reconcile

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/api/v1alpha1"
	"millrace.io/millrace/controller/objects"
)

// encrypted are options whose values are in the Secret web.
func encrypted(names ...string) []v1alpha1.EncryptOption {
	var all []v1alpha1.EncryptOption
	for _, name := range names {
		ref := v1alpha1.SecretKeySelector{Name: "web", Key: name}
		all = append(all, v1alpha1.EncryptOption{Name: name, ValueFrom: v1alpha1.EncryptOptionSource{SecretKeyRef: ref}})
	}
	return all
}

// newSecret is the Secret web.
func newSecret(pass string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "web"},
		Data:       map[string][]byte{"pass": []byte(pass), "user": []byte("reader")},
	}
}

// TestRotatedSecret brings a new value to the gateways' Secret and to the pods with a gateway, once; no pod is
// replaced.
func TestRotatedSecret(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	d.Spec.Mounts[0].EncryptOptions = encrypted("user", "pass")
	g := newRig(t, d, o, newSecret("first"), newPod(objects.RoleMaster, 0), newPod(objects.RoleWorker, 0))
	g.settle()
	told := func() string {
		pod := &corev1.Pod{}
		g.there(pod, key.Namespace, "hbase-master-0")
		hash, _, _ := strings.Cut(pod.Annotations[objects.SourcesHash], ".")
		return hash
	}
	before := told()
	secret := newSecret("second")
	g.must(g.Update(t.Context(), secret))
	did := strings.Join(g.look(), ", ")
	if want := "apply Secret hbase-gateway, apply Secret hbase-node, patch Pod hbase-master-0, " +
		"patch Pod hbase-worker-0"; did != want {
		t.Errorf("written were %q, want %q", did, want)
	}
	if after := told(); before == "" || after == before {
		t.Errorf("the pods were told %q, and then %q", before, after)
	}
	made := &corev1.Secret{}
	if !g.there(made, key.Namespace, "hbase-gateway") {
		t.Fatal("the gateways have no Secret")
	}
	for name, value := range made.Data {
		if strings.Contains(string(value), "first") {
			t.Errorf("%s has the old value still", name)
		}
	}
	g.quiet()
}

// TestSecretThatGoes keeps what runs as it is when the Secret of a mount is deleted, and says which field names it. It
// goes on when the Secret is back.
func TestSecretThatGoes(t *testing.T) {
	d, o := newDataset("https://mirror.example.org/a/")
	d.Spec.Mounts[0].EncryptOptions = encrypted("pass")
	secret := newSecret("first")
	g := newRig(t, d, o, secret)
	g.settle()
	g.must(g.Delete(t.Context(), secret))
	if did := g.look(); kinds(did, "apply")+kinds(did, "delete") != "" {
		t.Errorf("written were %q", did)
	}
	g.says("Valid", "=False InvalidSpec: Dataset.spec.mounts[0].encryptOptions[0]", `"web"`)
	g.quiet()
	g.must(g.Create(t.Context(), newSecret("first")))
	g.look()
	g.says("Valid", "=True Accepted: ")
	g.quiet()
}

// countingReader counts what is read of Secrets.
type countingReader struct {
	client.Reader
	read int
	err  error
}

func (r *countingReader) Get(
	ctx context.Context, k client.ObjectKey, o client.Object, opts ...client.GetOption,
) error {
	r.read++
	if r.err != nil {
		return r.err
	}
	return r.Reader.Get(ctx, k, o, opts...)
}

// TestSecretsAreBelieved reads a Secret again only when it is older than it may be, and one that was not there sooner.
// A failure is not taken for its absence.
func TestSecretsAreBelieved(t *testing.T) {
	g := newRig(t, newSecret("first"))
	live := &countingReader{Reader: g.Client}
	web := types.NamespacedName{Namespace: key.Namespace, Name: "web"}
	none := types.NamespacedName{Namespace: key.Namespace, Name: "none"}
	var c secretCache
	past := func(k types.NamespacedName, by time.Duration) {
		known := c.known[k]
		known.at = known.at.Add(-by)
		c.known[k] = known
	}
	for _, step := range []struct {
		name  string
		key   types.NamespacedName
		age   time.Duration
		do    func()
		there bool
		read  int
	}{
		{"never read", web, time.Hour, func() {}, true, 1},
		{"just read", web, time.Hour, func() {}, true, 0},
		{"read long ago", web, time.Hour, func() { past(web, 2*time.Hour) }, true, 1},
		{"to be read anew", web, 0, func() {}, true, 1},
		{"not there", none, time.Hour, func() {}, false, 1},
		{"not there just now", none, time.Hour, func() {}, false, 0},
		{"not there a while ago", none, time.Hour, func() { past(none, absentAge) }, false, 1},
		{"forgotten", web, time.Hour, func() { c.forget(web) }, true, 1},
	} {
		step.do()
		live.read = 0
		secret, err := c.get(t.Context(), live, step.key, step.age)
		if err != nil || (secret != nil) != step.there || live.read != step.read {
			t.Errorf("%s: %v, %v, read %d times", step.name, secret, err, live.read)
		}
	}
	live.err = errors.New("no answer")
	if _, err := c.get(t.Context(), live, web, 0); !errors.Is(err, live.err) {
		t.Errorf("a failure became %v", err)
	}
	live.err = nil
	if secret, err := c.get(t.Context(), live, web, time.Hour); secret == nil || err != nil {
		t.Errorf("after a failure it is %v, %v", secret, err)
	}
}

// TestKeysStay signs requests to gateways by the same keys for as long as they are not stored, and then by those.
func TestKeysStay(t *testing.T) {
	g := newRig(t)
	name := types.NamespacedName{Namespace: key.Namespace, Name: objects.GatewaySecretName(key.Name)}
	var c secretCache
	first, err := c.keys(t.Context(), g.Client, name)
	again, err2 := c.keys(t.Context(), g.Client, name)
	if err != nil || err2 != nil || first.AccessKeyID == "" || first != again {
		t.Errorf("%v and %v, %v, %v", first.AccessKeyID, again.AccessKeyID, err, err2)
	}
	d, o := newDataset("https://mirror.example.org/a/")
	g = newRig(t, d, o)
	g.settle()
	stored, err := new(secretCache).keys(t.Context(), g.Client, name)
	if err != nil || stored.AccessKeyID == "" {
		t.Fatal(err)
	}
	// Another controller has them from the Secret.
	other, err := new(secretCache).keys(t.Context(), g.Client, name)
	if err != nil || other != stored {
		t.Errorf("they became others: %v", err)
	}
}
