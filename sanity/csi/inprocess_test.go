package csi_test

import (
	"maps"
	"sync/atomic"
	"testing"

	"github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	"github.com/onsi/gomega"
)

// skips are the reasons with which tests of csi-test may be skipped, each a capability that a cache has no use for,
// and the number of tests. README.md says why.
var skips = map[string]int{
	// Attach.
	"Controller Publish, UnpublishVolume not supported": 2,
	"ControllerPublishVolume not supported":             7,
	"ControllerUnpublishVolume not supported":           1,
	// Snapshots, and groups of them.
	"CreateSnapshot not supported":         6,
	"DeleteSnapshot not supported":         3,
	"GetSnapshot not supported":            3,
	"GroupControllerService not supported": 6,
	"ListSnapshots not supported":          7,
	"Snapshot not supported":               2,
	// Expansion.
	"ControllerExpandVolume not supported": 3,
	"NodeExpandVolume not supported":       4,
	// Cloning.
	"Volume Cloning not supported": 2,
	// Modification.
	"ControllerModifyVolume not supported": 6,
	"Modify Volume not supported":          1,
	"Modify volume not supported":          1,
	// The health of a volume away from any node.
	"ControllerGetVolumeHealth not supported":  2,
	"ControllerListVolumeHealth not supported": 1,
}

// leastPassed is how many tests of csi-test v5.6.0 pass.
const leastPassed = 45

// checkReport holds what csi-test reports against what it may report.
func checkReport(t *testing.T, report types.Report) {
	t.Helper()
	passed, skipped := 0, make(map[string]int)
	for _, spec := range report.SpecReports {
		switch {
		case spec.LeafNodeType != types.NodeTypeIt:
		case spec.State == types.SpecStatePassed:
			passed++
		case spec.State == types.SpecStatePending:
			// Upstream's own: "XIt".
		case spec.State == types.SpecStateSkipped:
			skipped[spec.Failure.Message]++
		default:
			t.Errorf("%s: %s: %s", spec.FullText(), spec.State, spec.Failure.Message)
		}
	}
	t.Logf("%d specs passed", passed)
	if passed < leastPassed {
		t.Errorf("only %d specs passed, not %d", passed, leastPassed)
	}
	for why, n := range skipped {
		t.Logf("skipped %2d: %s", n, why)
	}
	if !maps.Equal(skipped, skips) {
		t.Errorf("skipped were %v, not %v", skipped, skips)
	}
}

// suiteRan says that TestSanityInProcess ran.
var suiteRan atomic.Bool

// TestSanityInProcess runs csi-test against a driver and an agent in this process.
func TestSanityInProcess(t *testing.T) {
	if suiteRan.Swap(true) {
		t.Skip("ginkgo runs a suite once in a process")
	}
	n := newNode(t)
	n.startInside()
	config := sanity.NewTestConfig()
	config.Address = n.csiSocket()
	config.TargetPath, config.StagingPath = n.at("mount"), n.at("staging")
	config.TestVolumeParameters = n.volumeContext()
	config.TestVolumeSize = 1 << 30

	var report types.Report
	ginkgo.ReportAfterSuite("what was skipped", func(r ginkgo.Report) { report = r })
	gomega.RegisterFailHandler(ginkgo.Fail)
	context := sanity.GinkgoTest(&config)
	ginkgo.RunSpecs(t, "csi-test in process")
	context.Finalize()
	checkReport(t, report)
}
