package deploy_test

import (
	"os"
	"strings"
	"testing"

	"millrace.io/millrace/deploy"
)

// TestImages compares the images with those in the manifests that are rendered from the chart.
func TestImages(t *testing.T) {
	millrace, keeper, alluxio, err := deploy.Images()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile("kustomize/base/controller.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"image: " + millrace + "\n", "--millrace-image=" + millrace + "\n",
		"--alluxio-image=" + alluxio + "\n",
	} {
		if !strings.Contains(string(manifest), want) {
			t.Errorf("no %q in kustomize/base/controller.yaml", want)
		}
	}
	manifest, err = os.ReadFile("kustomize/base/keeper.yaml")
	if err != nil || !strings.Contains(string(manifest), "image: "+keeper+"\n") {
		t.Errorf("kustomize/base/keeper.yaml runs another image than %s: %v", keeper, err)
	}
}
