// Package fluid does what Fluid's users do: each of Fluid's sample documents that is about Alluxio, and each of Fluid's
// own tests, is followed on a real Kubernetes, step by step, with its own YAML but for images, addresses and what the
// table names. `make fluid` runs it; without MILLRACE_FLUID its tests are skipped. Nothing of Fluid's is copied: steps
// and promises are told again.
//
// A document is a list of steps (steps_test.go): objects are applied, and what kubectl then shows is waited for.
// Documents that begin alike are a scene: they are followed one after the other in one namespace, which stands for
// `default`, and on two nodes that no other scene has meanwhile. Scenes run side by side. What a document cannot have
// here is said in its row, and the sentence that a user sees then is a step as well.
//
// Of one document: go test -run 'TestFluid//data_warmup' ./sanity/fluid. The rows are docs/fluid.md, which a test
// compares.
package fluid
