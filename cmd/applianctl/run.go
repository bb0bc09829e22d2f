package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"appliance/internal/appliance"
	"appliance/internal/config"
)

// defaultConfig is where the configuration file is looked for.
const defaultConfig = "/etc/appliance/appliance.toml"

func newRunCommand(o *options) *cobra.Command {
	var level, format, events string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the appliance until SIGTERM",
		Long: `run is the appliance. SIGHUP reads the file again, SIGUSR1 opens the access logs
anew. SIGTERM and SIGINT give the virtual addresses to the other node, let
connections end for the file's drain time, and stop; a second one ends that time.`,
		Example: `  applianctl run
  applianctl run --config ./appliance.toml --node lb01 --socket ./lb01.sock --log-level debug`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := newLogger(c.ErrOrStderr(), level, format)
			if err != nil {
				return err
			}
			return appliance.Run(c.Context(), appliance.Options{
				ConfigPath: o.config,
				Node:       o.node,
				Socket:     o.socket,
				Events:     events,
				Version:    version,
				Log:        log,
				Guard:      guardCommand,
			})
		},
	}
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "", "text or json (default: text on a terminal, else json)")
	c.Flags().StringVar(&events, "events", "", "file that keeps the event history (default: the file's admin.events)")
	return c
}

// guardCommand returns the command of the guard process: this program again, in
// a process group of its own, so that a Ctrl-C meant for the appliance does not
// end it too early. It ends with the appliance, a moment later.
func guardCommand() *exec.Cmd {
	c := exec.Command("/proc/self/exe", "guard")
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

func newGuardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard",
		Short:  "Sweep up after an appliance that is killed; run starts it",
		Hidden: true,
		Args:   usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			// A service manager may signal all processes of a service: the
			// guard ends when its appliance has, not before.
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1)
			return appliance.Guard(os.Stdin)
		},
	}
}

// newLogger returns a logger that writes to w.
func newLogger(w io.Writer, level, format string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil || level == "" {
		return zerolog.Nop(), fmt.Errorf("%w: unknown log level %q; known: debug, info, warn, error", errUsage, level)
	}
	if format == "" {
		format = "json"
		if isTerminal(w) {
			format = "text"
		}
	}
	switch format {
	case "json":
	case "text":
		w = zerolog.ConsoleWriter{Out: w, NoColor: !isTerminal(w), TimeFormat: "15:04:05.000"}
	default:
		return zerolog.Nop(), fmt.Errorf("%w: unknown log format %q; known: text, json", errUsage, format)
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger(), nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func newCheckCommand(o *options) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the file and print every problem in it",
		Long: `check reads the file as run would on this node and prints every problem with its
file, line, column and key; the exit code is 1 then. Elsewhere than on a node, say
which is meant with --node. Notes are about what is right and seldom meant, and
about what of this machine does not fit. Of services that ask for the kernel path
it says what would carry them here, with the rights of whoever runs it.`,
		Example: `  applianctl check
  applianctl check --config ./appliance.toml --node lb02 --json`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return check(c.OutOrStdout(), o, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON, as docs/status.md describes it")
	return c
}

// checked is the JSON of check.
type checked struct {
	File     string           `json:"file"`
	Node     string           `json:"node,omitempty"`
	Problems []checkedProblem `json:"problems"`
	Notes    []string         `json:"notes"`
}

type checkedProblem struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Key     string `json:"key"`
	Message string `json:"message"`
}

func check(out io.Writer, o *options, asJSON bool) error {
	result := checked{File: o.config, Problems: []checkedProblem{}, Notes: []string{}}
	file, err := config.Load(o.config)
	if problems, ok := errors.AsType[config.Problems](err); ok && asJSON {
		for _, p := range problems {
			result.Problems = append(result.Problems, checkedProblem{p.Line, p.Column, p.Key, p.Message})
		}
		return errors.Join(writeJSON(out, result), exitError{exitFailed})
	}
	if err != nil {
		return err
	}
	node, err := file.ForNode(o.node)
	if err != nil {
		return err
	}
	result.Node = node.Name
	result.Notes = append(result.Notes, appliance.Notes(node)...)
	result.Notes = append(result.Notes, places(node)...)
	if asJSON {
		return writeJSON(out, result)
	}
	fmt.Fprintf(out, "%s is right: node %s, %s, %s, %s\n", file.Path, node.Name, count(len(node.VRRP), "virtual router"),
		count(len(node.L4)+len(node.L7), "service"), count(len(node.Pools), "pool"))
	for _, note := range result.Notes {
		fmt.Fprintf(out, "note: %s\n", note)
	}
	return nil
}

// count returns a number of things in words: 1 pool, 2 pools.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// places says what would carry the services that ask for the kernel path.
func places(node *config.Node) (notes []string) {
	for _, p := range appliance.Places(node) {
		if p.Kernel {
			notes = append(notes, fmt.Sprintf("service %s: would be carried by the kernel path (%s, %s)", p.Service, p.Forward, p.Attach))
		} else {
			notes = append(notes, fmt.Sprintf("service %s: would be carried by the proxy: %s", p.Service, p.Reason))
		}
		if p.Kernel && node.Peer == nil {
			notes = append(notes, fmt.Sprintf("service %s: without [peer] its connections end with the node that carries them", p.Service))
		}
	}
	return notes
}
