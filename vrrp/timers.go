package vrrp

import "time"

// The times by which the versions differ are here, all of them.

// skewTime is Skew_Time of a backup with this priority behind an active router
// that sends every interval. The larger priority wakes up first.
func skewTime(version, priority int, interval time.Duration) time.Duration {
	if version == 2 {
		// RFC 3768 section 6.1: ((256 - Priority) / 256), in seconds.
		interval = time.Second
	}
	// RFC 9568 section 6.1: ((256 - Priority) * Active_Adver_Interval) / 256.
	return time.Duration(256-priority) * interval / 256
}

// activeDownInterval is Active_Down_Interval (RFC 9568 section 6.1): 3 *
// Active_Adver_Interval + Skew_Time. In RFC 3768 section 6.1 it is called
// Master_Down_Interval.
func activeDownInterval(version, priority int, interval time.Duration) time.Duration {
	return 3*interval + skewTime(version, priority, interval)
}

// learn makes interval what is expected of the active router. In version 2 that
// is this router's own one, whatever others say: RFC 3768 section 5.3.7 has the
// interval configured alike everywhere.
func (m *Machine) learn(interval time.Duration) {
	if m.cfg.Version == 2 {
		interval = m.cfg.AdvertInterval
	}
	m.backup.interval = interval
}

// skewTime is Skew_Time of this router as a backup.
func (m *Machine) skewTime() time.Duration {
	return skewTime(m.cfg.Version, m.Effective(), m.backup.interval)
}

// activeDownInterval is Active_Down_Interval of this router as a backup.
func (m *Machine) activeDownInterval() time.Duration {
	return activeDownInterval(m.cfg.Version, m.Effective(), m.backup.interval)
}
