package main

import "context"

// chart has helm package the chart, with the version of the release for both of its versions: its images are then the
// release's.
func (r *release) chart(ctx context.Context) error {
	_, err := output(ctx, []string{r.epoch()}, "go", "tool", "-modfile=.tools/helm/go.mod", "helm", "package",
		"deploy/chart",
		"--version", r.number(), "--app-version", r.number(), "--destination", r.dir)
	return err
}
