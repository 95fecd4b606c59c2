package heartbeat

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestStart counts the lines of a step of 25 seconds, and looks for more after its end.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		stop := Start(&out, Interval, func() string { return "building" })
		time.Sleep(25 * time.Second)
		stop()
		stop()
		time.Sleep(time.Minute)
		if want := "building ... 8 s\nbuilding ... 16 s\nbuilding ... 24 s\n"; out.String() != want {
			t.Errorf("it says %q, want %q", out.String(), want)
		}
		if strings.Count(out.String(), "\n") != 3 {
			t.Errorf("it goes on after its end: %q", out.String())
		}
	})
}
