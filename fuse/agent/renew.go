package agent

import (
	"context"

	"millrace.io/millrace/fuse/handover"
)

// Renewer is a client that goes on with other secrets.
type Renewer interface {
	// Renew reads the source with the secrets of v from now on. It returns an error, and changes nothing, where the
	// source refuses them.
	Renew(ctx context.Context, v handover.Volume) error
}

// described is the volume as it is now; Sessions.mu is held.
func (h *hosted) described() handover.Volume {
	v := h.volume
	if h.renewed != nil {
		v.Secrets = h.renewed
	}
	return v
}

// described is the volume of a session as it is now.
func (s *Sessions) described(h *hosted) handover.Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.described()
}

// renew has a session read its source with the secrets that the volume has now: they are rotated while pods read, and
// those of the beginning end. Volumes that share the session's cache came with the same secrets, and go on with the
// same.
func (s *Sessions) renew(ctx context.Context, v *handover.Volume) error {
	if v == nil {
		return handover.Errorf(handover.CodeInvalid, "renew needs a volume")
	}
	h, err := s.find(v.ID)
	if err != nil {
		return err
	}
	now, asked := s.described(h), *v
	if same(now, asked) {
		return nil
	}
	now.Secrets, asked.Secrets = nil, nil
	if !same(now, asked) {
		return handover.Errorf(handover.CodeExists,
			"volume %s is served with another description, of which only secrets may change", v.ID)
	}
	client, ok := h.client.client.(Renewer)
	if !ok {
		return handover.Errorf(handover.CodeInvalid,
			"volume %s: a source of this kind keeps its secrets until the volume is mounted anew", v.ID)
	}
	if err := client.Renew(ctx, *v); err != nil {
		return asHandover(err)
	}
	s.mu.Lock()
	h.renewed = v.Secrets
	s.mu.Unlock()
	s.log.Info("a volume's secrets were renewed", "volume", h.volume)
	return nil
}
