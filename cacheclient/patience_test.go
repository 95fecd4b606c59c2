package cacheclient_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// TestPatient hears something for longer than the patience, and then nothing.
func TestPatient(t *testing.T) {
	patience := pace.Limit(200 * time.Millisecond)
	ctx, cancel := cacheclient.Patient(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(patience / 8)
	defer tick.Stop()
	for range 16 {
		select {
		case <-tick.C:
			cacheclient.Heard(ctx)
		case <-ctx.Done():
			t.Fatal("it ended while something came")
		}
	}
	child, end := context.WithTimeout(ctx, time.Hour)
	defer end()
	<-child.Done()
	if cause := context.Cause(child); !errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("the cause is %v", cause)
	}
	cacheclient.Heard(ctx)
	cacheclient.Heard(t.Context())
	early, stop := cacheclient.Patient(t.Context(), time.Hour)
	stop()
	if cause := context.Cause(early); !errors.Is(cause, context.Canceled) {
		t.Errorf("the cause is %v", cause)
	}
}
