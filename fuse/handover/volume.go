package handover

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"
)

// Volume describes a session: what it shows, and how. It is JSON on the wire and in the holder's state, so
// fields are added, and never renamed or given another meaning.
type Volume struct {
	// ID names the session, once in an agent; at most MaxID bytes.
	ID string `json:"id"`
	// Dir is where the mount is, as its holder sees it.
	Dir string `json:"dir"`
	// Source is a URL or the absolute path of a directory, without secrets.
	Source string `json:"source"`
	// Options are the options of the source by rclone's names, and Secrets those of them that none may
	// see.
	Options map[string]string `json:"options,omitempty"`
	Secrets map[string]string `json:"secrets,omitempty"`

	// TierDir is the directory below which the agent keeps what was read, one of those that its operator
	// allows; "" is the agent's first.
	TierDir string `json:"tierDir,omitempty"`
	// Quota bounds the tier in bytes, 0 for the agent's default. High and Low are the parts of it at which
	// eviction begins and ends, 0 for the default.
	Quota int64   `json:"quota,omitempty"`
	High  float64 `json:"high,omitempty"`
	Low   float64 `json:"low,omitempty"`

	// Connections bounds the requests to the source that run at once, 0 for the default.
	Connections int `json:"connections,omitempty"`
	// Timeout is how long a source may bring nothing before a request fails, and Revalidate the longest time
	// to open or list without asking the source again; 0 for the defaults.
	Timeout    time.Duration `json:"timeout,omitempty"`
	Revalidate time.Duration `json:"revalidate,omitempty"`

	// FileMode and DirMode are permission bits where the source tells none, 0 for the defaults.
	FileMode uint32 `json:"fileMode,omitempty"`
	DirMode  uint32 `json:"dirMode,omitempty"`
	// UID and GID own everything.
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// NoPassthrough has every file read by copying.
	NoPassthrough bool `json:"noPassthrough,omitempty"`
	// Inode32 gives inode numbers that fit 32 bits.
	Inode32 bool `json:"inode32,omitempty"`
}

// MaxID is the longest ID of a volume in bytes, which is CSI's limit for a volume_id.
const MaxID = 128

// Check tells what makes the description unusable, in one sentence that names the field.
func (v Volume) Check() error {
	switch {
	case v.ID == "" || len(v.ID) > MaxID:
		return fmt.Errorf("the volume's id has %d bytes, not 1 to %d", len(v.ID), MaxID)
	case strings.ContainsFunc(v.ID, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("the volume's id %q has control characters", v.ID)
	case !filepath.IsAbs(v.Dir):
		return fmt.Errorf("the volume's dir %q is not an absolute path", v.Dir)
	case v.Source == "":
		return errors.New("the volume's source is empty")
	case v.Quota < 0 || v.Connections < 0 || v.Timeout < 0 || v.Revalidate < 0:
		return errors.New("the volume has a negative quota, connections, timeout or revalidate")
	}
	return nil
}

// LogValue keeps secrets and options out of logs.
func (v Volume) LogValue() slog.Value {
	return slog.GroupValue(slog.String("id", v.ID), slog.String("dir", v.Dir), slog.String("source", v.Source))
}

// String is what errors show of the volume.
func (v Volume) String() string { return v.ID }

// GoString keeps secrets out of what %#v prints.
func (v Volume) GoString() string { return fmt.Sprintf("handover.Volume{ID: %q}", v.ID) }

// Stats is what the agent knows of a session.
type Stats struct {
	// Capacity and Used are of the volume's cache, in bytes.
	Capacity int64 `json:"capacity"`
	Used     int64 `json:"used"`
	// Files is the number of files and directories that the kernel knows of the mount.
	Files int64 `json:"files"`
	// Abnormal says that the session does not do what it should, and Message why, or that all is well.
	Abnormal bool   `json:"abnormal"`
	Message  string `json:"message"`
}

// Code says what kind of failure an error from the agent is.
type Code string

// The codes.
const (
	// CodeInvalid is a volume that can never be attached as described.
	CodeInvalid Code = "invalid"
	// CodeNotFound is a session that the agent does not have.
	CodeNotFound Code = "not-found"
	// CodeExists is a session of the same id and another description.
	CodeExists Code = "exists"
	// CodeState is a saved state that this agent cannot read, or a kernel that does not resend: the connection
	// cannot be taken over, and must be mounted anew.
	CodeState Code = "state"
	// CodeUnavailable is a source that does not answer, or refuses.
	CodeUnavailable Code = "unavailable"
	// CodeInternal is everything else.
	CodeInternal Code = "internal"
)

// Error is a failure that the agent reports.
type Error struct {
	Code    Code
	Message string
}

// Error is the agent's sentence.
func (e *Error) Error() string { return e.Message }

// CodeOf is the code of an error in err's chain, CodeInternal where there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// Errorf makes an Error. A %w in format is kept as text only.
func Errorf(code Code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Errorf(format, args...).Error()}
}
