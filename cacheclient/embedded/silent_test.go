package embedded_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
)

// TestSilenceIsNamed has a source say nothing to a question, and to one for a listing: the errors say so, and not that
// something was cancelled.
func TestSilenceIsNamed(t *testing.T) {
	under := &mute{Store: newFakeStore()}
	c, err := embedded.New(under, embedded.Config{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	defer under.shutUp()()
	_, statErr := c.Stat(t.Context(), "file")
	_, listErr := c.List(t.Context(), "", cacheclient.Cursor{}, 10, false)
	for what, err := range map[string]error{"stat": statErr, "list": listErr} {
		if !errors.Is(err, cacheclient.ErrUnavailable) || !strings.Contains(err.Error(), "told nothing for") ||
			strings.Contains(err.Error(), "canceled") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
