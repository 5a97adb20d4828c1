package flytoml

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drover"
)

const whole = `app = "ledger"
primary_region = "ams"
kill_signal = "SIGTERM"
kill_timeout = 30

[build]
  image = "registry.example/ledger:1"

[env]
  LOG = "debug"
  PORT = 8080
  FAST = true

[deploy]
  strategy = "rolling"
  max_unavailable = "50%"
  wait_timeout = "2m"

[processes]
  web = "/bin/web --title 'two words'"
  worker = "/bin/work"

[mounts]
  source = "data"
  destination = "/data"
  initial_size = "2gb"
  processes = ["web"]

[http_service]
  internal_port = 8080
  force_https = true
  auto_stop_machines = "stop"
  min_machines_running = 1
  processes = ["web"]
  [[http_service.checks]]
    path = "/up"
    interval = "15s"

[[services]]
  internal_port = 9000
  processes = ["worker"]
  [[services.ports]]
    port = 9000
    handlers = ["tls"]
  [[services.tcp_checks]]
    timeout = "1s"

[checks.alive]
  type = "http"
  port = 8080
  path = "/alive"
  grace_period = "5s"
  processes = ["web"]

[[vm]]
  size = "shared-cpu-2x"
  memory = "1gb"

[[restart]]
  policy = "always"
  retries = 3
  processes = ["worker"]

[metrics]
  port = 9091
  path = "/metrics"
`

func TestAFileBecomesConfigs(t *testing.T) {
	f, unsupported, err := Read("fly.toml", []byte(whole))
	if err != nil || len(unsupported) > 0 {
		t.Fatal(err, unsupported)
	}
	if diff := cmp.Diff([]string{"web", "worker"}, f.Groups()); diff != "" {
		t.Error(diff)
	}
	web := `{"image":"registry.example/ledger:1","guest":{"cpu_kind":"shared","cpus":2,"memory_mb":1024},
		"env":{"FLY_PROCESS_GROUP":"web","PRIMARY_REGION":"ams","LOG":"debug","PORT":"8080","FAST":"true"},
		"init":{"cmd":["/bin/web","--title","two words"]},"restart":{},"stop_config":{"signal":"SIGTERM","timeout":"30s"},
		"metadata":{"fly_process_group":"web","fly_platform_version":"v2"},
		"checks":{"alive":{"type":"http","port":8080,"path":"/alive","grace_period":"5s"}},
		"services":[{"protocol":"tcp","internal_port":8080,"autostop":"stop","min_machines_running":1,
			"ports":[{"port":80,"handlers":["http"],"force_https":true},{"port":443,"handlers":["http","tls"]}],
			"checks":[{"type":"http","path":"/up","interval":"15s"}]}],
		"metrics":{"port":9091,"path":"/metrics","https":false}}`
	worker := `{"image":"other:2","guest":{"cpu_kind":"shared","cpus":2,"memory_mb":1024},
		"env":{"FLY_PROCESS_GROUP":"worker","PRIMARY_REGION":"ams","LOG":"debug","PORT":"8080","FAST":"true"},
		"init":{"cmd":["/bin/work"]},"restart":{"policy":"always","max_retries":3},"stop_config":{"signal":"SIGTERM","timeout":"30s"},
		"metadata":{"fly_process_group":"worker","fly_platform_version":"v2"},
		"services":[{"protocol":"tcp","internal_port":9000,"ports":[{"port":9000,"handlers":["tls"]}],"checks":[{"type":"tcp","timeout":"1s"}]}],
		"metrics":{"port":9091,"path":"/metrics","https":false}}`
	for group, c := range map[string]struct{ image, want string }{"web": {"", web}, "worker": {"other:2", worker}} {
		config, err := f.Config(group, c.image)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(plain(t, []byte(c.want)), plain(t, encode(t, config))); diff != "" {
			t.Errorf("%s: %s", group, diff)
		}
	}
	if diff := cmp.Diff([]Volume{{Name: "data", Path: "/data", Size: 2 * drover.GiB}}, f.Volumes("web")); diff != "" || f.Volumes("worker") != nil {
		t.Error(diff)
	}
	if got := f.Options(5); got.MaxUnavailable != 2 || got.Strategy != drover.StrategyRolling || waitText(got) != "2m0s" {
		t.Errorf("%+v", got)
	}
}

func TestAReleaseCommandHasAConfigOfItsOwn(t *testing.T) {
	f, unsupported, err := Read("fly.toml", []byte(whole+"[deploy.release_command_vm]\nsize = \"shared-cpu-1x\"\n"))
	if err != nil || len(unsupported) > 0 {
		t.Fatal(err, unsupported)
	}
	if c, _, err := f.ReleaseConfig(""); c != nil || err != nil {
		t.Errorf("without a command: %+v, %v", c, err)
	}
	f.Deploy.ReleaseCommand, f.Deploy.ReleaseCommandTimeout = "/bin/migrate --to 'the last'", "90s"
	const env = `"env":{"FLY_PROCESS_GROUP":"fly_app_release_command","PRIMARY_REGION":"ams","LOG":"debug","PORT":"8080","FAST":"true"},`
	own := f.Deploy.ReleaseCommandVM
	for size, want := range map[string]string{"its own": `{"cpu_kind":"shared","cpus":1,"memory_mb":256}`, "the largest": `{"cpu_kind":"shared","cpus":2,"memory_mb":1024}`} {
		if f.Deploy.ReleaseCommandVM = own; size == "the largest" {
			f.Deploy.ReleaseCommandVM = nil // then that of the largest machine
		}
		c, timeout, err := f.ReleaseConfig("other:2")
		if err != nil || waitText(drover.DeployOptions{WaitTimeout: timeout}) != "1m30s" {
			t.Fatal(timeout, err)
		}
		full := `{"image":"other:2","guest":` + want + `,` + env + `"init":{"cmd":["/bin/migrate","--to","the last"]},"restart":{},
			"stop_config":{"signal":"SIGTERM","timeout":"30s"},"metadata":{"fly_process_group":"fly_app_release_command","fly_platform_version":"v2"}}`
		if diff := cmp.Diff(plain(t, []byte(full)), plain(t, encode(t, c))); diff != "" {
			t.Errorf("%s: %s", size, diff)
		}
	}
}

func waitText(o drover.DeployOptions) string {
	b, _ := o.WaitTimeout.MarshalJSON()
	return strings.Trim(string(b), `"`)
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func plain(t *testing.T, data []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestWhatIsNotSupportedIsNamedWithItsLine(t *testing.T) {
	_, unsupported, err := Read("fly.toml", []byte(`app = "ledger"
swap_size_mb = 512
[build]
  dockerfile = "Dockerfile"
  image = "a"
[[statics]]
  guest_path = "/app"
  url_prefix = "/static"
[deploy]
  seed_command = "migrate"
[[mounts]]
  source = "data"
  destination = "/data"
  auto_extend_size_limit = "5gb"
[[vm]]
  gpu_kind = "a10"
[experimental]
  x = 1
  y = 2
`))
	if err != nil {
		t.Fatal(err)
	}
	want := `fly.toml:2: swap_size_mb is not supported: machines have no swap: give them memory by vm.memory
fly.toml:4: build.dockerfile is not supported: images are not built here: push one to a registry and name it by build.image or --image
fly.toml:6: [statics] is not supported: files are served by the app itself
fly.toml:10: deploy.seed_command is not supported: it is none of strategy, max_unavailable, wait_timeout, release_command, release_command_timeout and release_command_vm
fly.toml:14: mounts.auto_extend_size_limit is not supported: volumes have source, destination, initial_size, snapshot_retention and processes; 'drover volume extend' makes one larger
fly.toml:16: vm.gpu_kind is not supported: machines have a size, cpus, cpu_kind and memory
fly.toml:17: [experimental] is not supported: nothing of it is known`
	if got := Describe("fly.toml", unsupported); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWhatIsWrongIsNamedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"[http_service]\ninternal_port = 1\nauto_stop_machines = \"\"":                      `fly.toml:3: auto_stop_machines is ""; expected "off", "stop" or "suspend", or true or false`,
		"[http_service]\ninternal_port = 1\n[http_service.concurrency]\nhard_limit = \"x\"": `concurrency.hard_limit is a string; expected a whole number`,
		"[[services]]\ninternal_port = 1\n[[services.ports]]\nport = \"80\"":                `ports.port is a string; expected a whole number`,
		"app = \"ledger\"\nenv = 5\n":                                                       "fly.toml:2:7: env is 5; expected a table",
		"[[services]]\ninternal_port = \"x\"":                                               `fly.toml:2:17: services.internal_port is "x"; expected a whole number`,
		"[http_service]\nauto_start_machines = \"yes\"":                                     `http_service.auto_start_machines is "yes"; expected true or false`,
		"app = 7":                                                            "fly.toml:1:7: app is 7; expected a text in quotation marks",
		"[processes]\nweb = 5":                                               "processes.web is 5; expected a text in quotation marks",
		"[[vm]]\nprocesses = \"web\"":                                        `vm.processes is "web"; expected an array of texts`,
		"[[vm]]\ncpus = 1\n[[vm]]\ncpus = true":                              "fly.toml:4:8: vm.cpus is true; expected a whole number",
		"app = \"ledger\n":                                                   "fly.toml:1",
		"app = \"Led ger\"":                                                  `fly.toml:1: app is "Led ger"`,
		"[env]\nA = [1]":                                                     "fly.toml:2: A is not a text",
		"[deploy]\nstrategy = \"canary\"":                                    `fly.toml:2: strategy "canary" is not supported`,
		"[deploy]\n\nmax_unavailable = 1.5":                                  "fly.toml:3: max_unavailable is 1.5",
		"[[mounts]]\nsource = \"a\"\ndestination = \"data\"":                 `fly.toml:3: destination is "data"`,
		"[[mounts]]\ndestination = \"/data\"":                                `fly.toml:1: source is ""`,
		"[[vm]]\nsize=\"a\"\n[[vm]]\nsize = \"huge\"":                        `fly.toml:1: size is "a"`,
		"[http_service]\ninternal_port = 0":                                  "fly.toml:2: internal_port is 0",
		"[processes]\nweb = \"a\"\n[[vm]]\nprocesses = [\"app\"]":            `fly.toml:4: processes names "app"; the groups are web`,
		"[processes]\nweb = \"a 'b\"":                                        "fly.toml:2: web: ",
		"[checks.up]\ntype = \"udp\"\nport = 1":                              `fly.toml:2: type is "udp"`,
		"[checks.up]\ntype = \"tcp\"\nport = 1\ninterval = \"soon\"":         "fly.toml:4: interval is soon",
		"[[restart]]\npolicy = \"sometimes\"":                                `fly.toml:2: policy is "sometimes"`,
		"[deploy]\nrelease_command = \"a 'b\"":                               "fly.toml:2: release_command: ",
		"[deploy]\n\nrelease_command_timeout = \"long\"":                     "fly.toml:3: release_command_timeout is long",
		"[deploy.release_command_vm]\nsize = \"huge\"":                       `fly.toml:1: size is "huge"`,
		"kill_timeout = \"long\"":                                            "fly.toml:1: kill_timeout is long",
		"[[mounts]]\nsource=\"a\"\ndestination=\"/a\"\ninitial_size=\"big\"": "fly.toml:4: initial_size is big",
		"[[mounts]]\nsource=\"a\"\ndestination=\"/a\"\ninitial_size=\"9mb\"": "fly.toml:4: initial_size is 9mb",
	} {
		if _, _, err := Read("fly.toml", []byte(text)); !drover.Is(err, drover.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; expected %q", text, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(whole)
	f.Add("[mounts]\n[[vm]]\nsize=1")
	f.Fuzz(func(t *testing.T, text string) {
		file, _, err := Read("fly.toml", []byte(text))
		if err != nil {
			if !drover.Is(err, drover.Invalid) {
				t.Fatal(err)
			}
			return
		}
		for _, group := range file.Groups() {
			file.Volumes(group)
			if _, err := file.Config(group, "image"); err != nil {
				t.Fatalf("%q: a file that was let pass makes no config: %v", text, err)
			}
		}
		file.Options(3)
	})
}
