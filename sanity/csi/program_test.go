package csi_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/onsi/ginkgo/v2/types"

	"millrace.io/millrace/sanity/session"
)

// TestSanityProgram runs upstream's csi-sanity against the two halves of the program, over the socket, as an
// outsider does.
func TestSanityProgram(t *testing.T) {
	n := newNode(t)
	n.startAgent()
	n.startPlugin()
	n.waitReady()
	parameters := "source: " + n.url + "\ntierDir: " + n.at("tier") + "\nquota: 64Mi\n"
	n.must("writing the parameters", os.WriteFile(n.at("parameters.yaml"), []byte(parameters), 0o600))
	out, err := session.Run(t.Context(), 5*time.Minute, sanityBin,
		"-csi.endpoint", "unix://"+n.csiSocket(), "-csi.mountdir", n.at("mount"), "-csi.stagingdir", n.at("staging"),
		"-csi.testvolumeparameters", n.at("parameters.yaml"), "-csi.testvolumesize", "1073741824",
		"-ginkgo.json-report", n.at("report.json"), "-ginkgo.no-color")
	if err != nil {
		t.Errorf("csi-sanity: %v\n%s", err, out.Stdout)
	}
	text, err := os.ReadFile(n.at("report.json"))
	n.must("reading the report", err)
	var reports []types.Report
	n.must("the report", json.Unmarshal(text, &reports))
	if len(reports) != 1 {
		t.Fatalf("%d reports", len(reports))
	}
	checkReport(t, reports[0])
}
