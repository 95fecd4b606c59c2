package main

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"
)

// TestGuards checks the package below testdata, whose comments say what is to be reported.
func TestGuards(t *testing.T) { analysistest.Run(t, analysistest.TestData(), guards, "a") }
