package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/kith-im/kith/internal/obs"
)

// description begins the help of the program.
const description = "Kith: a decentralised communication platform, one binary without a central server. " +
	"Every command takes --json and --help; the help of each command has an example."

// grammar is the command line. A command is a struct in a file of its own, with
// the method Run(context.Context, *App) error and a method Help() string that
// holds at least one example.
type grammar struct {
	Globals

	Serve   serveCmds  `cmd:"" help:"Serve others."`
	Dht     dhtCmds    `cmd:"" help:"Use a DHT."`
	Sim     simCmd     `cmd:"" help:"Simulate a DHT of thousands of nodes."`
	Version versionCmd `cmd:"" help:"Print the version, or the parts list of this binary."`
}

// Globals are the flags that every command takes.
type Globals struct {
	Home    string `placeholder:"DIR" help:"Folder of the node (default: $$KITH_HOME, else the platform's data folder)."`
	JSON    bool   `name:"json" help:"Print results as JSON, and errors and logs as JSON lines."`
	Log     string `placeholder:"LEVELS" help:"Log levels on stderr, such as \"info\" or \"warn,dht=debug\" (default: warn)."`
	Verbose bool   `short:"v" help:"Log at level debug; the same as --log debug."`
}

// App is what a command gets: the world, the global flags and a logger.
type App struct {
	Env
	Globals
	Logger *slog.Logger
	Levels *obs.Levels
}

// Main runs one command line, without the program's name, and returns the exit
// code (see [Kind]). It prints the error itself. The command ends early when ctx
// does.
func Main(ctx context.Context, env Env, args []string) int {
	err := run(ctx, env, args)
	if err == nil {
		return 0
	}
	return report(env.Stderr, err, wantsJSON(args))
}

func run(ctx context.Context, env Env, args []string) error {
	if len(args) > 0 && args[0] == "--version" { // what every program has
		args = append([]string{"version"}, args[1:]...)
	}
	var g grammar
	helped := false
	parser, err := kong.New(&g,
		kong.Name("kith"),
		kong.Description(description),
		kong.Writers(env.Stdout, env.Stderr),
		kong.Exit(func(int) { helped = true }), // kong exits only after --help
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return fmt.Errorf("set up the command line: %w", err)
	}
	command, err := parser.Parse(args)
	if helped {
		return nil
	}
	if err != nil {
		return usage(err)
	}
	app, err := newApp(env, g.Globals)
	if err != nil {
		return err
	}
	command.BindTo(ctx, (*context.Context)(nil))
	return command.Run(app)
}

func newApp(env Env, globals Globals) (*App, error) {
	o := obs.Options{Level: slog.LevelWarn}
	if globals.JSON {
		o.Format = obs.FormatJSON
	}
	if globals.Verbose {
		o.Level = slog.LevelDebug
	}
	logger, levels := obs.NewLogger(env.Stderr, o)
	if err := levels.Set(globals.Log); err != nil {
		return nil, Fail(KindUsage, err, "correct --log")
	}
	return &App{Env: env, Globals: globals, Logger: logger, Levels: levels}, nil
}

// usage turns an error of the parser into one that shows the way to the help.
func usage(err error) error {
	help := "kith --help"
	if perr, ok := errors.AsType[*kong.ParseError](err); ok {
		if node := perr.Context.Selected(); node != nil {
			help = node.FullPath() + " --help"
		}
	}
	text := err.Error()
	for _, plain := range [...]struct{ from, to string }{
		{"expected one of ", "a command is missing: "},
		{"expected \"<", "an argument is missing: \"<"},
		{"expected a valid ", "write a "},
		{"expected duration but", "write a time like 30s, but"},
		{" bit uint", "-bit number"},
		{" bit int", "-bit number"},
	} {
		text = strings.Replace(text, plain.from, plain.to, 1)
	}
	return Fail(KindUsage, errors.New(text), "see "+help)
}

// wantsJSON finds --json in arguments that need not make sense otherwise.
func wantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(arg string) bool {
		return arg == "--json" || strings.HasPrefix(arg, "--json=") && arg != "--json=false"
	})
}
