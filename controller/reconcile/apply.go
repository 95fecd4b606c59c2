package reconcile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/controller/objects"
)

const (
	// FieldOwner is the name by which the API server says that we have set a field.
	FieldOwner = "millrace"
	// desiredAnnotation is the hash of what an object was applied from. With it a controller that starts anew knows
	// without asking that an object is what it would apply.
	desiredAnnotation = "millrace.io/desired"
)

// taken says that an object of that name is another's.
type taken struct{ what string }

func (e *taken) Error() string {
	return e.what + " is there already and was not made for this Dataset; delete it, or give the Dataset another name"
}

// apply sends the objects that differ from what there is to the API server.
// D-072 says why.
func (r *Reconciler) apply(ctx context.Context, key types.NamespacedName, wanted []objects.Object) error {
	for _, o := range wanted {
		kind := o.GetObjectKind().GroupVersionKind().Kind
		want, err := plain(o)
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, o.GetName(), err)
		}
		live, err := r.live(ctx, o)
		if err != nil {
			return err
		}
		if live != nil && !ownedBy(live, key) {
			return &taken{kind + " " + o.GetName()}
		}
		if live != nil && same(want, live) {
			continue
		}
		options := []client.ApplyOption{client.FieldOwner(FieldOwner)}
		if live != nil {
			// It is ours: what another has set is set back. What is not known to be ours must not be taken over.
			options = append(options, client.ForceOwnership)
		}
		err = r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(want), options...)
		if live == nil && apierrors.IsConflict(err) {
			return &taken{kind + " " + o.GetName()}
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", kind, o.GetName(), err)
		}
		if s, ok := o.(*corev1.Secret); ok {
			r.secrets.put(client.ObjectKeyFromObject(s), withAnnotation(s, want))
		}
		r.Log.Debug("applied", "kind", kind, "name", o.GetName(), "dataset", key)
	}
	return nil
}

// live is the object as it is, nil if there is none. Secrets are not in a cache of client-go's.
func (r *Reconciler) live(ctx context.Context, o objects.Object) (client.Object, error) {
	if s, ok := o.(*corev1.Secret); ok {
		secret, err := r.secrets.get(ctx, r.Live, client.ObjectKeyFromObject(s), time.Hour)
		if secret == nil || err != nil {
			return nil, err
		}
		return secret, nil
	}
	live, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
	if !ok {
		return nil, errors.New("no Kubernetes object")
	}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(o), live)
	if apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // There is none, and that is no error.
	}
	return live, err
}

// withAnnotation is the Secret as it was applied.
func withAnnotation(s *corev1.Secret, applied *unstructured.Unstructured) *corev1.Secret {
	s = s.DeepCopy()
	s.Annotations = applied.GetAnnotations()
	return s
}

// plain is the object as it is applied: what it says, without a status and without nulls, and with its hash.
func plain(o objects.Object) (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	delete(content, "status")
	dropNulls(content)
	text, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	u := &unstructured.Unstructured{Object: content}
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[desiredAnnotation] = hex.EncodeToString(sum[:12])
	u.SetAnnotations(annotations)
	return u, nil
}

func dropNulls(v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if value == nil {
				delete(v, key)
				continue
			}
			dropNulls(value)
		}
	case []any:
		for _, value := range v {
			dropNulls(value)
		}
	}
}

// same reports whether applying want would change nothing: it was made from the same, and no other client has changed
// what it says since.
func same(want *unstructured.Unstructured, live client.Object) bool {
	if live.GetAnnotations()[desiredAnnotation] != want.GetAnnotations()[desiredAnnotation] {
		return false
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return false
	}
	for key, value := range want.Object {
		// Objects from a cache do not tell what they are.
		if key != "apiVersion" && key != "kind" && !within(value, content[key]) {
			return false
		}
	}
	return true
}

// within reports whether all that want says is in have. The elements of lists that have names are found by them.
func within(want, have any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			return len(want) == 0 && have == nil
		}
		for key, value := range want {
			if there, ok := have[key]; !ok && !empty(value) || ok && !within(value, there) {
				return false
			}
		}
		return true
	case []any:
		have, ok := have.([]any)
		if !ok || len(have) < len(want) {
			return len(want) == 0
		}
		for i, value := range want {
			if !within(value, counterpart(value, have, i)) {
				return false
			}
		}
		return named(want) || len(have) == len(want)
	}
	return reflect.DeepEqual(want, have)
}

// empty reports whether a value says nothing.
func empty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return v == nil
}

func named(list []any) bool {
	return len(list) > 0 && nameOf(list[0]) != ""
}

func nameOf(v any) string {
	m, _ := v.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

// counterpart is the element of have that is to be compared with the i-th of the wanted.
func counterpart(want any, have []any, i int) any {
	name := nameOf(want)
	if name == "" {
		return have[i]
	}
	for _, candidate := range have {
		if nameOf(candidate) == name {
			return candidate
		}
	}
	return nil
}
