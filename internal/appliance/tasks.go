package appliance

import (
	"fmt"
	"sync"
)

// tasks are the goroutines that live as long as the appliance.
type tasks struct {
	running sync.WaitGroup
	// failed gets the first error of a task.
	failed chan error
}

func newTasks() *tasks { return &tasks{failed: make(chan error, 1)} }

// start runs a task. One that returns an error brings the appliance down.
func (t *tasks) start(name string, run func() error) {
	t.running.Go(func() {
		if err := run(); err != nil {
			select {
			case t.failed <- fmt.Errorf("%s: %w", name, err):
			default:
			}
		}
	})
}

// wait waits for all tasks and returns the error that nobody has taken yet.
func (t *tasks) wait() error {
	t.running.Wait()
	select {
	case err := <-t.failed:
		return err
	default:
		return nil
	}
}
