package host

import (
	"encoding/base64"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"drover"
	"drover/guest"
)

// guestInput is all that a guest's config is made of.
type guestInput struct {
	apply   drover.ApplyRequest
	root    diskRecord
	volumes []diskRecord
	// userNet: the guest has the VMM's user networking.
	userNet bool
	// mtu and dns are those of the private network, which a guest with the VMM's networking has none of.
	mtu  int
	dns  []string
	boot time.Duration
	// secrets are the values of the app's secrets, by name.
	secrets map[string]string
}

// defaultFileMode is that of a file whose config says nothing.
const defaultFileMode = 0o644

// guestConfig resolves what the guest is to be from the machine's config and the image's. Precondition, naming the field, when a secret that the
// config needs is not set.
func guestConfig(in guestInput) (guest.Config, error) {
	d := in.apply
	c, image := d.Machine.Config.WithDefaults(), in.image()
	signal, timeout := stopOf(&records{Desired: &d})
	files, err := in.files()
	if err != nil {
		return guest.Config{}, err
	}
	cfg := guest.Config{Hostname: string(d.Machine.ID), Argv: in.argv(drover.MachineProcess{}), Env: in.env(), WorkDir: image.WorkDir, User: in.user(""),
		TTY: c.Init.TTY, Swap: drover.Bytes(c.Init.SwapSizeMB) * drover.MiB, Files: files,
		Network: guest.Network{Address: d.Machine.Address, User: in.userNet}, Checks: c.AllChecks(),
		Stop: drover.StopConfig{Signal: signal, Timeout: drover.Duration(timeout)}, BootDeadline: drover.Duration(in.boot)}
	if !in.userNet {
		cfg.Network.MTU, cfg.DNS = in.mtu, in.dns
	}
	for i, mount := range c.Mounts {
		if i < len(in.volumes) {
			cfg.Volumes = append(cfg.Volumes, guest.Volume{Name: string(mount.Volume), Path: path.Clean(mount.Path), MkFS: !in.volumes[i].Used})
		}
	}
	if cfg.Processes, err = in.processes(); err != nil {
		return guest.Config{}, err
	}
	return cfg, nil
}

// image returns what the image says of itself.
func (in guestInput) image() drover.ImageConfig {
	if in.root.Image == nil {
		return drover.ImageConfig{}
	}
	return in.root.Image.Run
}

// argv returns what a process runs: its exec, else entrypoint and cmd, each its own, else init's, else the image's. An own entrypoint takes the
// cmd that was meant for another one away.
func (in guestInput) argv(p drover.MachineProcess) []string {
	image, init := in.image(), in.apply.Machine.Config.Init
	if len(p.Exec) > 0 {
		return p.Exec
	}
	if len(init.Exec) > 0 && len(p.Entrypoint) == 0 && len(p.Cmd) == 0 {
		return init.Exec
	}
	entrypoint, cmd := image.Entrypoint, image.Cmd
	for _, over := range []struct{ entrypoint, cmd []string }{{init.Entrypoint, init.Cmd}, {p.Entrypoint, p.Cmd}} {
		if len(over.entrypoint) > 0 {
			entrypoint, cmd = over.entrypoint, nil
		}
		if len(over.cmd) > 0 {
			cmd = over.cmd
		}
	}
	return slices.Concat(entrypoint, cmd)
}

// user returns who a process runs as: its own user, else init's, else the image's.
func (in guestInput) user(own string) string {
	for _, user := range []string{own, in.apply.Machine.Config.Init.User} {
		if user != "" {
			return user
		}
	}
	return in.image().User
}

// env returns the machine's environment, where a later value wins: that of the image, the config's, the app's secrets, and what tells a program
// where it is.
func (in guestInput) env() []string { return in.environment(in.secrets, nil) }

func (in guestInput) environment(secrets, own map[string]string) []string {
	env := slices.Clone(in.image().Env)
	for _, values := range []map[string]string{in.apply.Machine.Config.Env, secrets, own} {
		for _, name := range slices.Sorted(maps.Keys(values)) {
			env = append(env, name+"="+values[name])
		}
	}
	return append(env, placeEnv(in.apply.Machine)...)
}

// placeEnv returns the variables that tell a program where it runs. Programs depend on the names: those that begin with FLY_ are what clients of
// the Machines API find on Fly.io.
func placeEnv(m drover.Machine) []string {
	c := m.Config.WithDefaults()
	group := c.Metadata["fly_process_group"]
	if group == "" {
		group = c.Metadata["process_group"]
	}
	env := []string{
		"DROVER_APP_NAME=" + string(m.App), "DROVER_MACHINE_ID=" + string(m.ID), "DROVER_REGION=" + string(m.Region), "DROVER_PRIVATE_IP=" + m.Address,
		"FLY_APP_NAME=" + string(m.App), "FLY_MACHINE_ID=" + string(m.ID), "FLY_ALLOC_ID=" + string(m.ID), "FLY_REGION=" + string(m.Region),
		"FLY_PRIVATE_IP=" + m.Address, "FLY_IMAGE_REF=" + imageName(m), "FLY_MACHINE_VERSION=" + string(m.Instance),
		"FLY_VM_MEMORY_MB=" + strconv.Itoa(c.Guest.MemoryMB),
	}
	if group != "" {
		env = append(env, "FLY_PROCESS_GROUP="+group)
	}
	return env
}

// imageName writes the image that a machine runs as one text.
func imageName(m drover.Machine) string {
	ref := m.Image
	if ref.Repository == "" {
		return m.Config.Image
	}
	name := ref.Repository
	if ref.Registry != "" {
		name = ref.Registry + "/" + name
	}
	if ref.Tag != "" {
		name += ":" + ref.Tag
	}
	if ref.Digest != "" {
		name += "@" + ref.Digest
	}
	return name
}

// files returns the contents of the config's files.
func (in guestInput) files() ([]guest.File, error) {
	var out []guest.File
	for i, f := range in.apply.Machine.Config.Files {
		field := "config.files[" + strconv.Itoa(i) + "]"
		text, field := f.RawValue, field+".raw_value"
		if f.SecretName != "" {
			var err error
			if text, err = in.secret(f.SecretName, strings.TrimSuffix(field, "raw_value")+"secret_name"); err != nil {
				return nil, err
			}
		}
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
		if err != nil {
			what := "raw_value"
			if f.SecretName != "" {
				what = "the value of the secret " + strconv.Quote(f.SecretName)
			}
			return nil, drover.Errorf(drover.Invalid, "the file %s cannot be written: %s is not base64", f.GuestPath, what).WithField(field)
		}
		mode := f.Mode
		if mode == 0 {
			mode = defaultFileMode
		}
		out = append(out, guest.File{Path: path.Clean(f.GuestPath), Data: data, Mode: mode})
	}
	return out, nil
}

func (in guestInput) secret(name, field string) (string, error) {
	value, ok := in.secrets[name]
	if !ok {
		return "", drover.Errorf(drover.Precondition, "machine %q needs the secret %q, which app %q does not have", in.apply.Machine.ID, name, in.apply.Machine.App).
			WithField(field).WithHint("set the secret, then start the machine")
	}
	return value, nil
}

// processes returns what runs side by side; none where the config has one main process.
func (in guestInput) processes() ([]guest.Process, error) {
	var out []guest.Process
	names := map[string]int{}
	for i, p := range in.apply.Machine.Config.Processes {
		field := "config.processes[" + strconv.Itoa(i) + "]"
		argv := in.argv(p)
		if len(argv) == 0 {
			return nil, drover.Errorf(drover.Invalid, "process %d of machine %q has nothing to run: the image has no entrypoint or cmd", i, in.apply.Machine.ID).
				WithField(field + ".cmd")
		}
		secrets := in.secrets
		if p.IgnoreAppSecrets || len(p.Secrets) > 0 {
			secrets = map[string]string{}
		}
		for j, s := range p.Secrets {
			name := s.Name
			if name == "" {
				name = s.EnvVar
			}
			value, err := in.secret(name, field+".secrets["+strconv.Itoa(j)+"]")
			if err != nil {
				return nil, err
			}
			secrets[s.EnvVar] = value
		}
		own := maps.Clone(p.Env)
		for _, from := range p.EnvFrom {
			if own == nil {
				own = map[string]string{}
			}
			own[from.EnvVar] = machineField(in.apply.Machine, from.FieldRef)
		}
		name := path.Base(argv[0])
		if names[name]++; names[name] > 1 {
			name += "." + strconv.Itoa(names[name])
		}
		out = append(out, guest.Process{Name: name, Argv: argv, Env: in.environment(secrets, own), User: in.user(p.User)})
	}
	return out, nil
}

// machineField returns a field of the machine that a variable may be made of.
func machineField(m drover.Machine, name string) string {
	switch name {
	case "id":
		return string(m.ID)
	case "version":
		return string(m.Instance)
	case "app_name":
		return string(m.App)
	case "private_ip":
		return m.Address
	case "region":
		return string(m.Region)
	case "image":
		return imageName(m)
	}
	return "" // refused when the config came
}

// kernelArgs are the words for the kernel's command line.
func kernelArgs(c drover.MachineConfig) []string {
	return slices.Concat(c.Init.KernelArgs, c.Guest.KernelArgs)
}

// firstChecks is what is known of health checks while nobody asks.
func firstChecks(c drover.MachineConfig, at time.Time, why string) []drover.CheckStatus {
	checks := c.AllChecks()
	out := make([]drover.CheckStatus, 0, len(checks))
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		out = append(out, drover.CheckStatus{Name: name, Status: "critical", Output: why, UpdatedAt: at})
	}
	return out
}
