package embedded

import (
	"fmt"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

// TestNamesAreBoundedTogether has two caches remember names: the one that has more than its share makes room.
func TestNamesAreBoundedTogether(t *testing.T) {
	const each = recordBytes + 3
	all := &bound{most: 100 * each}
	one, err := newMetadata(time.Minute, time.Minute, all)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newMetadata(time.Minute, time.Minute, all)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(m *metadata, n int) {
		for i := range n {
			name := fmt.Sprintf("%03d", i)
			m.put(name, record{info: cacheclient.Info{Path: name, Size: 1}, at: time.Now()})
		}
	}
	fill(one, 1000)
	if one.lru.Len() != 100 || all.used.Load() != 100*each {
		t.Errorf("alone %d names, %d counted, want 100", one.lru.Len(), all.used.Load())
	}
	fill(other, 1000)
	if other.lru.Len() != 50 {
		t.Errorf("the second has %d names, want its share of 50", other.lru.Len())
	}
	fill(one, 200)
	if one.lru.Len() != 50 || all.used.Load() != 100*each {
		t.Errorf("then the first has %d names, %d counted, want 50 and 100", one.lru.Len(), all.used.Load())
	}
	one.close()
	other.close()
	if all.used.Load() != 0 || all.holders.Load() != 0 {
		t.Errorf("%d names of %d caches after all are closed", all.used.Load(), all.holders.Load())
	}
}
