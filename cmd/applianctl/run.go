package main

import (
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
		Long: `run is the appliance. SIGHUP reads the file again, SIGUSR1 opens the
access logs anew. SIGTERM and SIGINT give the
virtual addresses to the other node, let connections end for the file's drain
time, and stop.`,
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
	return &cobra.Command{
		Use:   "check",
		Short: "Check the file and print every problem in it",
		Long: `check reads the file as run would on this node and prints every problem with its
file, line, column and key. Elsewhere than on a node, say which is meant with
--node. Of services that ask for the kernel path it says what would carry them on
this machine, with the rights of whoever runs it.`,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := config.Load(o.config)
			if err != nil {
				return err
			}
			node, err := file.ForNode(o.node)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s is right: node %s, %d virtual routers, %d services, %d pools\n",
				file.Path, node.Name, len(node.VRRP), len(node.L4)+len(node.L7), len(node.Pools))
			for _, note := range appliance.Notes(node) {
				fmt.Fprintf(c.OutOrStdout(), "note: %s\n", note)
			}
			for _, p := range appliance.Places(node) {
				if p.Kernel {
					fmt.Fprintf(c.OutOrStdout(), "service %s: would be carried by the kernel path (%s, %s)\n", p.Service, p.Forward, p.Attach)
				} else {
					fmt.Fprintf(c.OutOrStdout(), "service %s: would be carried by the proxy: %s\n", p.Service, p.Reason)
				}
				if p.Kernel && node.Peer == nil {
					fmt.Fprintf(c.OutOrStdout(), "service %s: without [peer] its connections end with the node that carries them\n", p.Service)
				}
			}
			return err
		},
	}
}
