package fuse

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readAheadFile is where the kernel keeps the read-ahead of a mount, in KiB. INIT can only
// lower it from its default of 128.
func readAheadFile(dev uint64) string {
	return fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
}

// raiseReadAhead sets the read-ahead of the mount with this device number, and returns what it
// is then; 0 where that cannot be found out. Only root may set it.
func raiseReadAhead(dev uint64, kb int) (int, error) {
	file := readAheadFile(dev)
	err := os.WriteFile(file, []byte(strconv.Itoa(kb)), 0)
	text, readErr := os.ReadFile(file)
	if readErr != nil {
		return 0, err
	}
	now, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return now, err
}
