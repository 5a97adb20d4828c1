package fleet

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"drover"
)

// Limits of what a machine runs.
const (
	maxFiles      = 100
	maxProcesses  = 16
	maxSwapMB     = 16 << 10
	maxKernelArgs = 32
	maxStandsFor  = 8
)

// checkRun checks what a machine runs, and when.
func checkRun(p *problems, c drover.MachineConfig) {
	checkFiles(p, c.Files)
	checkProcesses(p, c)
	switch c.Schedule {
	case "", drover.Hourly, drover.Daily, drover.Weekly, drover.Monthly:
	default:
		p.add("config.schedule", "%q is unknown: use hourly, daily, weekly or monthly", c.Schedule)
	}
	checkStandbys(p, c)
	if g := bytes.TrimSpace(c.Extra("containers")); len(g) > 0 && !slices.Contains([]string{"null", "[]"}, string(g)) {
		p.add("config.containers", "a machine has one image here: run several programs of it with processes, or several machines")
	}
}

// checkStandbys checks the machines that this one stands in for.
func checkStandbys(p *problems, c drover.MachineConfig) {
	if len(c.Standbys) > maxStandsFor {
		p.add("config.standbys", "%d are too many: at most %d", len(c.Standbys), maxStandsFor)
	}
	for i, id := range c.Standbys {
		if !drover.ValidMachineID(string(id)) {
			p.add(fmt.Sprintf("config.standbys[%d]", i), "%q is not the ID of a machine such as 0123456789abcd", id)
		}
	}
	if len(c.Standbys) > 0 && c.Schedule != "" {
		p.add("config.standbys", "a machine that stands in for others has no schedule: leave one of them out")
	}
}

func checkFiles(p *problems, files []drover.File) {
	if len(files) > maxFiles {
		p.add("config.files", "%d are too many: at most %d", len(files), maxFiles)
	}
	paths := map[string]int{}
	for i, f := range files {
		at := fmt.Sprintf("config.files[%d]", i)
		checkFilePath(p, at+".guest_path", f.GuestPath, paths, i)
		switch {
		case f.RawValue != "" && f.SecretName != "":
			p.add(at+".secret_name", "the file has a raw_value already: give one of them")
		case f.RawValue == "" && f.SecretName == "":
			p.add(at+".raw_value", "is empty: give the content in base64, or a secret_name")
		}
		if _, err := base64.StdEncoding.DecodeString(f.RawValue); err != nil {
			p.add(at+".raw_value", "is not base64: %s", err)
		}
		if f.Mode > 0o7777 {
			p.add(at+".mode", "%d is out of range: 0 to 4095, which is 7777 in octal", f.Mode)
		}
	}
}

// systemPaths are those of the kernel.
var systemPaths = []string{"/proc", "/sys", "/dev"}

func checkFilePath(p *problems, at, name string, paths map[string]int, i int) {
	clean := path.Clean(name)
	first, twice := paths[clean]
	paths[clean] = i
	switch {
	case !path.IsAbs(name) || strings.HasSuffix(name, "/") || strings.ContainsRune(name, 0):
		p.add(at, "%q is not the absolute path of a file such as /etc/app.conf", name)
	case slices.ContainsFunc(systemPaths, func(dir string) bool { return clean == dir || strings.HasPrefix(clean, dir+"/") }):
		p.add(at, "%q is below /proc, /sys or /dev, where no files can be written", name)
	case twice:
		p.add(at, "%q is the path of files[%d] already", name, first)
	}
}

func checkProcesses(p *problems, c drover.MachineConfig) {
	if len(c.Processes) > maxProcesses {
		p.add("config.processes", "%d are too many: at most %d", len(c.Processes), maxProcesses)
	}
	if len(c.Processes) > 0 && c.Init.TTY {
		p.add("config.init.tty", "several processes cannot share a terminal: leave out init.tty or processes")
	}
	for i, proc := range c.Processes {
		at := fmt.Sprintf("config.processes[%d]", i)
		checkWords(p, at, proc.Exec, proc.Entrypoint, proc.Cmd)
		checkEnv(p, at+".env", proc.Env)
		for j, from := range proc.EnvFrom {
			if !envName.MatchString(from.EnvVar) {
				p.add(fmt.Sprintf("%s.env_from[%d].env_var", at, j), "%q cannot be the name of a variable", from.EnvVar)
			}
			if !slices.Contains([]string{"id", "version", "app_name", "private_ip", "region", "image"}, from.FieldRef) {
				p.add(fmt.Sprintf("%s.env_from[%d].field_ref", at, j), "%q is unknown: use id, version, app_name, private_ip, region or image", from.FieldRef)
			}
		}
		for j, s := range proc.Secrets {
			if !envName.MatchString(s.EnvVar) {
				p.add(fmt.Sprintf("%s.secrets[%d].env_var", at, j), "%q cannot be the name of a variable", s.EnvVar)
			}
		}
	}
}

// checkWords checks what is to be run: exec, entrypoint and cmd.
func checkWords(p *problems, at string, exec, entrypoint, cmd []string) {
	for _, list := range []struct {
		field string
		words []string
	}{{"exec", exec}, {"entrypoint", entrypoint}, {"cmd", cmd}} {
		if slices.ContainsFunc(list.words, func(w string) bool { return strings.ContainsRune(w, 0) }) {
			p.add(at+"."+list.field, "contains a NUL character")
		}
	}
	if len(exec) > 0 && exec[0] == "" {
		p.add(at+".exec", "its first word, the program, is empty")
	}
}

func checkEnv(p *problems, field string, env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !envName.MatchString(name) {
			p.add(field, "%q cannot be the name of a variable: letters, digits and underscores, not beginning with a digit", name)
		}
		if strings.ContainsRune(env[name], 0) {
			p.add(field, "the value of %q contains a NUL character", name)
		}
	}
}

// ownKernelArgs are the words of the kernel's command line that a guest cannot do without as they are.
var ownKernelArgs = []string{"console", "panic", "reboot", "pci", "init", "rdinit", "root", "initrd", "noinitrd", "maxcpus", "mem"}

func checkKernelArgs(p *problems, field string, words []string) {
	if len(words) > maxKernelArgs {
		p.add(field, "%d are too many: at most %d", len(words), maxKernelArgs)
	}
	for i, w := range words {
		name, _, _ := strings.Cut(w, "=")
		odd := strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\'' })
		switch at := fmt.Sprintf("%s[%d]", field, i); {
		case name == "" || odd || name == "--" || len(w) > 200:
			p.add(at, "%q is not one word such as net.ifnames=0", w)
		case slices.Contains(ownKernelArgs, name):
			p.add(at, "%s= cannot be changed: the guest would not start or end as it should", name)
		}
	}
}
