package heartbeat

import "testing"

func TestPart(t *testing.T) {
	var p Part
	if got := p.After("building"); got != "building" {
		t.Error(got)
	}
	p.Say("%d of %d", 1, 2)
	if got := p.After("building"); got != "building: 1 of 2" {
		t.Error(got)
	}
}
