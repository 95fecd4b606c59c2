package fakealluxio_test

import (
	"context"

	"millrace.io/millrace/cacheclient"
)

// listAll reads all of a directory.
func listAll(ctx context.Context, c cacheclient.Client, dir string) (names []string, err error) {
	for from := (cacheclient.Cursor{}); ; {
		page, err := c.List(ctx, dir, from, 100, true)
		if err != nil {
			return names, err
		}
		for _, e := range page.Entries {
			names = append(names, e.Name())
		}
		if from = page.Next; page.End {
			return names, nil
		}
	}
}
