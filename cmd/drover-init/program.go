package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The exit codes of a main process that cannot be executed, as in a shell.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
)

// defaultPath is what PATH is when neither image nor config say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// notRunnable says why a command cannot be executed, and the code that stands for it.
type notRunnable struct {
	code int
	err  error
}

// Error returns the reason.
func (n *notRunnable) Error() string { return n.err.Error() }

// Unwrap returns the reason.
func (n *notRunnable) Unwrap() error { return n.err }

// environment returns the machine's environment: each name once, the last value, with PATH, HOME and HOSTNAME.
func environment(own []string, hostname string, user identity) []string {
	home := user.home
	if home == "" {
		home = "/"
	}
	all := []string{"PATH=" + defaultPath, "HOME=" + home, "HOSTNAME=" + hostname}
	return mergeEnv(append(all, own...))
}

// mergeEnv keeps the last value of each name, at the place of the first.
func mergeEnv(all []string) []string {
	at := map[string]int{}
	var env []string
	for _, entry := range all {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			continue // not an environment variable
		}
		if i, there := at[name]; there {
			env[i] = entry
			continue
		}
		at[name] = len(env)
		env = append(env, entry)
	}
	return env
}

// findProgram looks a program up as a shell does: a name with a slash is a path from dir, any other is searched in the
// environment's PATH.
func findProgram(name, dir string, env []string) (string, error) {
	if name == "" {
		return "", &notRunnable{exitNotFound, errors.New("the command's name is empty")}
	}
	if strings.Contains(name, "/") {
		file := name
		if !path.IsAbs(file) {
			file = path.Join(dir, file)
		}
		return file, checkProgram(name, file)
	}
	search := ""
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			search = value
		}
	}
	var denied error
	for _, place := range strings.Split(search, ":") {
		if !path.IsAbs(place) {
			place = path.Join(dir, place)
		}
		file := path.Join(place, name)
		err := checkProgram(name, file)
		if err == nil {
			return file, nil
		}
		if n := (*notRunnable)(nil); errors.As(err, &n) && n.code == exitNotExecutable && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &notRunnable{exitNotFound, fmt.Errorf("%q is not in PATH (%s)", name, search)}
}

// checkProgram tells whether file may be executed; name is what the user called it.
func checkProgram(name, file string) error {
	st, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		return &notRunnable{exitNotFound, fmt.Errorf("%q does not exist", name)}
	case err != nil:
		return &notRunnable{exitNotExecutable, fmt.Errorf("%q cannot be looked at: %w", name, err)}
	case st.IsDir():
		return &notRunnable{exitNotExecutable, fmt.Errorf("%q is a directory", name)}
	case st.Mode()&0o111 == 0:
		return &notRunnable{exitNotExecutable, fmt.Errorf("%q is not executable (mode %v)", name, st.Mode())}
	}
	return nil
}

// explainExec turns the error of exec itself into words.
func explainExec(name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		err = fmt.Errorf("%q is no program for this CPU, and has no #! line", name)
	case errors.Is(err, unix.ENOENT):
		// The file is there, it was looked at: its interpreter or dynamic loader is not.
		return &notRunnable{exitNotFound, fmt.Errorf("%q needs an interpreter or a dynamic loader that is not in the image", name)}
	case errors.Is(err, unix.EACCES):
		err = fmt.Errorf("%q, its directory, its interpreter or the working directory may not be used by the machine's user", name)
	default:
		err = fmt.Errorf("%q cannot be executed: %w", name, err)
	}
	return &notRunnable{exitNotExecutable, err}
}

// exitCodeOf returns the exit code that stands for an error of findProgram or explainExec.
func exitCodeOf(err error) int {
	var n *notRunnable
	if errors.As(err, &n) {
		return n.code
	}
	return exitNotExecutable
}
