package embedded

import (
	"errors"
	"strings"
	"testing"

	"millrace.io/millrace/cacheclient"
)

// TestAnEndlessListing is an error before it is larger than what is believed.
func TestAnEndlessListing(t *testing.T) {
	name := strings.Repeat("n", 1000)
	b := newListingBuilder(nil)
	b.size = mostListing - 1500
	if err := b.add(cacheclient.Info{Path: name}); err != nil {
		t.Error(err)
	}
	if err := b.add(cacheclient.Info{Path: name}); !errors.Is(err, cacheclient.ErrTooLarge) {
		t.Errorf("more than %d bytes: %v", mostListing, err)
	}
}
