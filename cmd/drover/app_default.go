package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"drover"
	"drover/client"
)

// envApp names the app of commands that need one and are given none.
const envApp = "DROVER_APP"

// appFileName is the file that describes an app, in the directory that a command is run in.
const appFileName = "fly.toml"

// appDefaults is how help calls where the app is taken from.
const appDefaults = "DROVER_APP, else the app of ./fly.toml"

// defaultApp returns the app that is meant where none is given: that of the environment, else that of the fly.toml of this directory; empty if
// there is neither.
func (c *cli) defaultApp() (drover.AppName, error) {
	if name := c.getenv(envApp); name != "" {
		return drover.AppName(name), nil
	}
	data, err := os.ReadFile(appFileName)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", drover.Errorf(drover.Invalid, "cannot read %s: %w", appFileName, err)
	}
	var file struct {
		App string `toml:"app"`
	}
	if err := toml.Unmarshal(data, &file); err != nil {
		return "", drover.Errorf(drover.Invalid, "cannot tell the app by %s: %w", appFileName, err).WithHint("name the app with --app")
	}
	return drover.AppName(file.App), nil
}

// appOr returns the app that a flag names, else the default. Invalid when there is neither.
func (c *cli) appOr(flag string) (drover.AppName, error) {
	if flag != "" {
		return drover.AppName(flag), nil
	}
	name, err := c.defaultApp()
	if err == nil && name == "" {
		err = drover.Errorf(drover.Invalid, "no app is named").WithHint("name it with --app, or with %s, or be where its %s is; 'drover app list' shows the apps", envApp, appFileName)
	}
	return name, err
}

// addDefaultApp adds the flag --app of commands that need an app.
func addDefaultApp(cmd *cobra.Command, app *string) {
	cmd.Flags().StringVarP(app, "app", "a", "", "app (default "+appDefaults+")")
}

// inApp connects for a command about one app: the one of the flag, or the default.
func (c *cli) inApp(flag string) (*client.Client, drover.AppName, error) {
	name, err := c.appOr(flag)
	if err != nil {
		return nil, "", err
	}
	cl, err := c.connect()
	return cl, name, err
}

// needApp adds the flag --app of a command that is about one app: when none is given it becomes the default, before the command begins.
func (c *cli) needApp(cmd *cobra.Command, app *string, what string) {
	cmd.Flags().StringVarP(app, "app", "a", "", what+" (default "+appDefaults+")")
	args := cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if err := args(cmd, given); err != nil {
			return err
		}
		name, err := c.appOr(*app)
		*app = string(name)
		return err
	}
}
