package session

import (
	"encoding/json"
	"fmt"
	"time"
)

// Status is the part of an element of `millrace status -o json` that is looked at here; sizes
// are in bytes.
type Status struct {
	Dir      string `json:"dir"`
	Source   string `json:"source"`
	State    string `json:"state"`
	PID      int    `json:"pid"`
	Counters struct {
		FilesKnown     int64 `json:"filesKnown"`
		BytesKnown     int64 `json:"bytesKnown"`
		Hits           int64 `json:"hits"`
		Misses         int64 `json:"misses"`
		BytesSource    int64 `json:"bytesSource"`
		SourceRequests int64 `json:"sourceRequests"`
	} `json:"counters"`
	Capacity struct {
		Quota int64 `json:"quota"`
		Used  int64 `json:"used"`
	} `json:"capacity"`
}

// Status asks the program for what it says of the mount on the directory.
func (m Millrace) Status(dir string) (Status, error) {
	out, err := m.Run(20*time.Second, "status", "-o", "json")
	if err != nil {
		return Status{}, err
	}
	var mounts []Status
	if err := json.Unmarshal([]byte(out.Stdout), &mounts); err != nil {
		return Status{}, fmt.Errorf("millrace status -o json: %w", err)
	}
	for _, st := range mounts {
		if st.Dir == dir {
			return st, nil
		}
	}
	return Status{}, fmt.Errorf("millrace status does not show %s", dir)
}
