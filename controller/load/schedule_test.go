package load

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"millrace.io/millrace/controller/api/v1alpha1"
)

// scheduled is a load with a schedule, made when the clocks of Berlin were about to go forward.
func scheduled(schedule string) (*v1alpha1.DataLoad, time.Time) {
	made := time.Date(2026, time.March, 28, 22, 30, 0, 0, time.UTC) // A Saturday.
	l := &v1alpha1.DataLoad{Spec: v1alpha1.DataLoadSpec{Policy: v1alpha1.Cron, Schedule: schedule}}
	l.CreationTimestamp = metav1.NewTime(made)
	return l, made
}

// TestSchedulesAreThoseOfCronJobs looks at when loads are due for the first time.
func TestSchedulesAreThoseOfCronJobs(t *testing.T) {
	for schedule, want := range map[string]time.Duration{
		"* * * * *":       time.Minute,
		"*/15 * * * *":    15 * time.Minute,
		"0 3 * * *":       4*time.Hour + 30*time.Minute,
		"30 8-10/2 * * *": 10 * time.Hour,
		"0 0 1 * *":       3*24*time.Hour + 90*time.Minute,
		"0 0 * * 0":       90 * time.Minute,
		"0 0 * * SUN":     90 * time.Minute,
		"0 0 ? APR ?":     3*24*time.Hour + 90*time.Minute,
		// The first of the month, or a Monday.
		"0 0 1 * MON": 24*time.Hour + 90*time.Minute,
		"0 0 31 * 5":  2*24*time.Hour + 90*time.Minute,
		// A step to past the end is the first value.
		"0 */24 * * *":   90 * time.Minute,
		"*/60 * * * *":   30 * time.Minute,
		"0 0 */31 * *":   3*24*time.Hour + 90*time.Minute,
		"0 0 * */12 */7": 280*24*time.Hour + 90*time.Minute,
		"@every 1h5m":    time.Hour + 5*time.Minute,
		"@hourly":        30 * time.Minute,
		"@daily":         90 * time.Minute,
		"@midnight":      90 * time.Minute,
		"@weekly":        90 * time.Minute,
		"@monthly":       3*24*time.Hour + 90*time.Minute,
		// Midnight in Berlin was at 23:00 UTC; the next day there has 23 hours.
		"CRON_TZ=Europe/Berlin 0 0 * * *": 30 * time.Minute,
		"TZ=Europe/Berlin 0 4 * * *":      3*time.Hour + 30*time.Minute,
		"TZ=Asia/Tokyo 0 9 * * *":         90 * time.Minute,
	} {
		l, made := scheduled(schedule)
		l.Namespace = "n"
		if why := check(l); why != "" {
			t.Errorf("%s: %s", schedule, why)
		}
		if got := untilDue(l, made); got != want {
			t.Errorf("%s is due after %v, want %v", schedule, got, want)
		}
	}
}

// TestWrongSchedulesAreTold has each refused in a sentence with the field and the value; nothing ends the controller.
func TestWrongSchedulesAreTold(t *testing.T) {
	for _, schedule := range []string{
		"", " ", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "0 0 0 * *", "a b c d e", "*/0 * * * *",
		"@sometimes", "@every", "@every x",
		"TZ=", "TZ=UTC", "CRON_TZ=", "CRON_TZ=UTC", "TZ= * * * * *", "TZ=No/Where * * * * *",
		"TZ=../../etc/passwd * * * * *",
		"0 0 31 2 *", "0 0 30 FEB ?",
	} {
		l, _ := scheduled(schedule)
		if why := check(l); !strings.HasPrefix(why, "spec.schedule \""+schedule+"\" is n") {
			t.Errorf("%q: %q", schedule, why)
		}
	}
}

// TestNextAfterTheLast counts from the last time, and owes what was missed.
func TestNextAfterTheLast(t *testing.T) {
	l, made := scheduled("0 * * * *")
	last := metav1.NewTime(made.Add(30 * time.Minute))
	l.Status.LastScheduleTime = &last
	if got := untilDue(l, made.Add(45*time.Minute)); got != 45*time.Minute {
		t.Errorf("due after %v", got)
	}
	if got := untilDue(l, made.Add(5*time.Hour)); got != 0 {
		t.Errorf("a load that was missed is due after %v", got)
	}
}

func FuzzSchedule(f *testing.F) {
	for _, s := range []string{
		"* * * * *", "TZ=", "TZ=UTC", "@every 1s", "0 0 1-7 * MON",
		"CRON_TZ=Asia/Tokyo 0 9 * * *", "@every -1h", "0 0 29 2 *",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, schedule string) {
		l, made := scheduled(schedule)
		if check(l) == "" && untilDue(l, made) <= 0 {
			t.Errorf("%q is accepted, and due at once", schedule)
		}
	})
}
