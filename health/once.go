package health

import (
	"context"
	"errors"
)

// Once checks a target once, whatever the schedule of its check says, and returns
// Up, Down, or Unknown where this node cannot tell. ctx bounds it.
func Once(ctx context.Context, target Target) State {
	_, err := prepare(target).once(ctx)
	var waits *unfinished
	if errors.As(err, &waits) {
		waits.finish(ctx)
	}
	switch {
	case err == nil:
		return Up
	case isOurs(err):
		return Unknown
	}
	return Down
}
