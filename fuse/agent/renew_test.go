package agent

import (
	"context"
	"errors"
	"io/fs"
	"sync/atomic"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/fuse/handover"
)

// renewed is a client that takes new secrets, but none that are wrong.
type renewed struct {
	cacheclient.Client
	pass atomic.Value
}

func (r *renewed) Renew(_ context.Context, v handover.Volume) error {
	if v.Secrets["pass"] == "wrong" {
		return fs.ErrPermission
	}
	r.pass.Store(v.Secrets["pass"])
	return nil
}

// TestRenew gives a session new secrets, once each, and nothing else; a holder that comes later is told of them.
func TestRenew(t *testing.T) {
	n := newNode(t)
	client := &renewed{}
	wrap := func(c cacheclient.Client) cacheclient.Client {
		client.Client = c
		return client
	}
	n.wrap.Store(&wrap)
	writeFile(t, n.base+"/source/f", 10)
	v, _, _ := n.attached(t, "a")
	with := func(pass string) handover.Volume {
		other := v
		other.Secrets = map[string]string{"pass": pass}
		return other
	}
	for _, pass := range []string{"two", "two", "three"} {
		if err := n.holder.Renew(t.Context(), with(pass)); err != nil || client.pass.Load() != pass {
			t.Errorf("%s: %v, the client has %q", pass, err, client.pass.Load())
		}
	}
	if err := n.holder.Renew(t.Context(), with("wrong")); err == nil || client.pass.Load() != "three" {
		t.Errorf("a wrong one: %v, the client has %q", err, client.pass.Load())
	}
	other := with("four")
	other.Source += "/elsewhere"
	code(t, n.holder.Renew(t.Context(), other), handover.CodeExists)
	other.ID = "none"
	code(t, n.holder.Renew(t.Context(), other), handover.CodeNotFound)
	got, device, state, err := n.holder.Take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(device.Close(), state.Close()); err != nil {
		t.Error(err)
	}
	if got.Secrets["pass"] != "three" {
		t.Errorf("another holder is told %q", got.Secrets["pass"])
	}
}

// TestRenewOfAnotherKind says that a source keeps the secrets that it began with, where that is so.
func TestRenewOfAnotherKind(t *testing.T) {
	n := newNode(t)
	writeFile(t, n.base+"/source/f", 10)
	v, _, _ := n.attached(t, "a")
	v.Secrets = map[string]string{"pass": "two"}
	code(t, n.holder.Renew(t.Context(), v), handover.CodeInvalid)
}
