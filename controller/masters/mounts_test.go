package masters

import (
	"errors"
	"strings"
	"testing"
)

// TestModuleMissing has Alluxio's error for a source that its image cannot read become a sentence of what mends it.
func TestModuleMissing(t *testing.T) {
	none := errors.New("No Under File System Factory found for: cephfs://mon:6789/")
	err := moduleMissing("cephfs://mon:6789/", none)
	if !errors.Is(err, none) ||
		!strings.Contains(err.Error(), "the image of Alluxio has no module for cephfs://; name one") {
		t.Error(err)
	}
	if other := errors.New("another"); !errors.Is(moduleMissing("s3://b/", other), other) {
		t.Error("another error is taken for it")
	}
}
