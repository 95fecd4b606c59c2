package keeping

import (
	"fmt"
	"strings"

	"millrace.io/millrace/fuse/handover"
)

// version is the first byte of each message.
const version = 1

const (
	// maxMount is the longest name of a mount in bytes.
	maxMount = 64
	// handles are the descriptors of a session: its device and its state.
	handles = 2
)

// The requests.
const (
	opPut   = "put"
	opGet   = "get"
	opDrop  = "drop"
	opList  = "list"
	opWatch = "watch"
	opLeave = "leave"
)

// request is what the driver asks.
type request struct {
	Op    string `json:"op"`
	ID    string `json:"id,omitempty"`
	Mount string `json:"mount,omitempty"`
}

// reply is the keeper's answer.
type reply struct {
	Code  handover.Code `json:"code,omitempty"`
	Error string        `json:"error,omitempty"`
	Mount string        `json:"mount,omitempty"`
	Kept  []Kept        `json:"kept,omitempty"`
}

// Kept is a session that is kept.
type Kept struct {
	// ID is the volume's, Mount the name that the driver gave to this mount of it.
	ID    string `json:"id"`
	Mount string `json:"mount"`
}

// check tells what makes the request unusable. mount says that it has to name one.
func (r request) check(mount bool) error {
	for _, f := range []struct {
		name, value string
		most        int
		needed      bool
	}{
		{"id", r.ID, handover.MaxID, true},
		{"mount", r.Mount, maxMount, mount},
	} {
		if len(f.value) > f.most || f.needed && f.value == "" {
			return fmt.Errorf("the %s has %d bytes, not 1 to %d", f.name, len(f.value), f.most)
		}
		if strings.ContainsFunc(f.value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return fmt.Errorf("the %s %q has control characters", f.name, f.value)
		}
	}
	return nil
}
