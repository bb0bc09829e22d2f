package appliance

import (
	"appliance/internal/config"
	"appliance/internal/control"
	"appliance/internal/metrics"
)

// stageWeb returns the door for watchers that a configuration wants, nil for none:
// the one that there is, if it is at the right place.
func (a *Appliance) stageWeb(admin config.Admin) (*control.Web, error) {
	switch {
	case !admin.Listen.IsValid():
		return nil, nil
	case a.web != nil && a.web.Address() == admin.Listen:
		return a.web, nil
	}
	return control.ListenWeb(admin.Listen, a.backend(), metrics.Handler(a.status), a.log)
}

// discardWeb gives up what stageWeb returned.
func (a *Appliance) discardWeb(w *control.Web) {
	if w != nil && w != a.web {
		w.Close()
	}
}

// commitWeb puts what stageWeb returned in force.
func (a *Appliance) commitWeb(w *control.Web, admin config.Admin) {
	if w != nil {
		w.Allow(admin.Allow)
	}
	if w == a.web {
		return
	}
	if a.web != nil {
		a.web.Close()
	}
	if a.web = w; w != nil {
		w.Serve()
	}
}
