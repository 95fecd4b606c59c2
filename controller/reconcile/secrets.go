package reconcile

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"millrace.io/millrace/cacheclient/gateway"
	"millrace.io/millrace/controller/objects"
)

// secretCache remembers Secrets for a while. Watching them would need the right to list all Secrets there are.
// D-080 says why.
type secretCache struct {
	// mu guards the rest.
	mu sync.Mutex
	// known are Secrets that were read, and those that were not there (nil).
	known map[types.NamespacedName]readSecret
	// made are keys that were made and are perhaps not stored yet.
	made map[types.NamespacedName]gateway.Keys
}

type readSecret struct {
	secret *corev1.Secret
	at     time.Time
}

// get returns a Secret, nil if there is none. It may be as old as age.
func (c *secretCache) get(
	ctx context.Context, live client.Reader, key types.NamespacedName, age time.Duration,
) (*corev1.Secret, error) {
	c.mu.Lock()
	known, ok := c.known[key]
	c.mu.Unlock()
	if known.secret == nil {
		// It may be made at any moment.
		age = min(age, absentAge)
	}
	if ok && time.Since(known.at) < age {
		return known.secret, nil
	}
	secret := &corev1.Secret{}
	err := live.Get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		secret, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	c.put(key, secret)
	return secret, nil
}

// put remembers a Secret as it is now.
func (c *secretCache) put(key types.NamespacedName, secret *corev1.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[types.NamespacedName]readSecret)
	}
	c.known[key] = readSecret{secret, time.Now()}
}

// forget drops what is known of the Secrets of these names.
func (c *secretCache) forget(keys ...types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		delete(c.known, key)
		delete(c.made, key)
	}
}

// named are the Secrets of a Dataset's options, without those that do not exist.
func (c *secretCache) named(
	ctx context.Context, live client.Reader, namespace string, names []string, age time.Duration,
) (map[string]*corev1.Secret, error) {
	found := make(map[string]*corev1.Secret, len(names))
	for _, name := range names {
		secret, err := c.get(ctx, live, types.NamespacedName{Namespace: namespace, Name: name}, age)
		if err != nil {
			return nil, err
		}
		if secret != nil {
			found[name] = secret
		}
	}
	return found, nil
}

// keys are those of a Dataset's gateways: the stored ones, else new ones, the same until they are stored.
func (c *secretCache) keys(ctx context.Context, live client.Reader, key types.NamespacedName) (gateway.Keys, error) {
	secret, err := c.get(ctx, live, key, time.Hour)
	if err != nil {
		return gateway.Keys{}, err
	}
	if keys := objects.ReadKeys(secret); keys.AccessKeyID != "" {
		return keys, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		c.made = make(map[types.NamespacedName]gateway.Keys)
	}
	if _, ok := c.made[key]; !ok {
		c.made[key] = gateway.NewKeys()
	}
	return c.made[key], nil
}
