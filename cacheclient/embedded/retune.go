package embedded

import (
	"errors"
	"time"
)

// Tuning is what may change of a Config while the cache is in use: how long the source is believed, and how much is
// kept.
type Tuning struct {
	// TTL and NameTTL are those of Config.
	TTL, NameTTL time.Duration
	// Level has the quota and the watermarks of each level; its directory stays.
	Level LevelConfig
}

// Retune changes the settings. What is cached beyond a smaller quota leaves in the background.
func (c *Cache) Retune(t Tuning) error {
	cfg := t.Level.withDefaults()
	if err := errors.Join(cfg.check(), checkQuota(cfg)); err != nil {
		return err
	}
	c.meta.ttl.Store(int64(t.TTL))
	c.meta.nameTTL.Store(int64(t.NameTTL))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.levels {
		l.bound(cfg)
		if l.used > l.high {
			c.wakeEvictor()
		}
	}
	return nil
}

// wakeEvictor has the background eviction look at the levels.
func (c *Cache) wakeEvictor() {
	select {
	case c.evictor <- struct{}{}:
	default:
	}
}

// bound sets the level's quota and watermarks; Cache.mu is held once the level is in use.
func (l *level) bound(cfg LevelConfig) {
	l.quota = cfg.Quota
	l.high, l.low = int64(float64(cfg.Quota)*cfg.High), int64(float64(cfg.Quota)*cfg.Low)
}
