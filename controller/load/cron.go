package load

import (
	"strconv"
	"strings"

	"github.com/netresearch/go-cron"
)

// fiveFields reads schedules as Kubernetes' CronJobs and Fluid do: where days of the month and of the week are both
// given, either is enough.
var fiveFields = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor | cron.DowOrDom)

// ranges are the first and the last value of each of the five fields.
var ranges = [5][2]int{{0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

// parseSchedule reads a schedule of five fields, which a time zone may precede, or a descriptor.
func parseSchedule(schedule string) (cron.Schedule, error) {
	fields := strings.Fields(schedule)
	before := len(fields) - len(ranges)
	if before < 0 {
		return fiveFields.Parse(schedule)
	}
	for i, r := range ranges {
		fields[before+i] = withoutLongSteps(fields[before+i], r[0], r[1])
	}
	return fiveFields.Parse(strings.Join(fields, " "))
}

// withoutLongSteps has a step to past the end of the field mean its first value, as it does to CronJobs: */24 hours is
// hour 0. The parser takes it for a mistake.
func withoutLongSteps(field string, first, last int) string {
	parts := strings.Split(field, ",")
	for i, part := range parts {
		all, step, stepped := strings.Cut(part, "/")
		if n, err := strconv.Atoi(step); stepped && err == nil && (all == "*" || all == "?") && n > last-first {
			parts[i] = strconv.Itoa(first)
		}
	}
	return strings.Join(parts, ",")
}
