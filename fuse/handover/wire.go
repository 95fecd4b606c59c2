package handover

import (
	"net"
	"os"
	"time"
)

// version is the first byte of each message of this package.
const version = 0

// Op is a kind of request.
type Op string

// The requests.
const (
	OpAttach Op = "attach"
	OpList   Op = "list"
	OpTake   Op = "take"
	OpDetach Op = "detach"
	OpStats  Op = "stats"
	OpWatch  Op = "watch"
	// OpRenew gives a session the secrets that its volume has now.
	OpRenew Op = "renew"
	// OpLost tells the agent which pods have to be restarted, all of them, in place of what it was told before.
	OpLost Op = "lost"
)

// Request is what the holder asks. Files are the device and, where there is one, the state.
type Request struct {
	Op     Op         `json:"op"`
	ID     string     `json:"id,omitempty"`
	Volume *Volume    `json:"volume,omitempty"`
	Lost   []LostPod  `json:"lost,omitempty"`
	Files  []*os.File `json:"-"`
}

// LostPod is a pod that began with a mount that no process serves any more. It is also an element of what the agent
// answers about them (fuse/agent), hence an ABI.
type LostPod struct {
	// Volume is the volume's id.
	Volume string `json:"volume"`
	// Namespace, Name and UID are the pod's.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Since is when that was found.
	Since time.Time `json:"since"`
}

// Reply is the agent's answer. Files are the device and the state (take), or the state (attach).
type Reply struct {
	Code   Code       `json:"code,omitempty"`
	Error  string     `json:"error,omitempty"`
	IDs    []string   `json:"ids,omitempty"`
	Volume *Volume    `json:"volume,omitempty"`
	Stats  *Stats     `json:"stats,omitempty"`
	Files  []*os.File `json:"-"`
}

// Receive reads one request. Its files belong to the caller.
func Receive(c *net.UnixConn) (Request, error) {
	var r Request
	files, err := ReceiveMessage(c, version, &r)
	r.Files = files
	return r, err
}

// Answer sends the answer; its files stay the caller's.
func Answer(c *net.UnixConn, r Reply) error { return SendMessage(c, version, r, r.Files) }

// Refuse sends an error as the answer.
func Refuse(c *net.UnixConn, err error) error {
	return Answer(c, Reply{Code: CodeOf(err), Error: err.Error()})
}
