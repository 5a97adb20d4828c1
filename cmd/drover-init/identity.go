package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// identity is who the main process runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// credential returns the identity in the form in which a process is started with it.
func (i identity) credential() *syscall.Credential {
	return &syscall.Credential{Uid: i.uid, Gid: i.gid, Groups: i.groups}
}

// findIdentity looks up "user", "user:group", "uid" or "uid:gid" in the image's /etc/passwd and /etc/group, with the meaning that
// container runtimes give them. "" is root.
func findIdentity(text string) (identity, error) {
	passwd, err := readTable("/etc/passwd")
	if err != nil {
		return identity{}, err
	}
	group, err := readTable("/etc/group")
	if err != nil {
		return identity{}, err
	}
	return parseIdentity(text, passwd, group)
}

// readTable reads a file of lines with fields separated by colons. An image without the file has no entries.
func readTable(path string) ([][]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	var rows [][]string
	for line := range strings.Lines(string(data)) {
		rows = append(rows, strings.Split(strings.TrimSpace(line), ":"))
	}
	return rows, nil
}

func parseIdentity(text string, passwd, group [][]string) (identity, error) {
	userText, groupText, hasGroup := strings.Cut(text, ":")
	if userText == "" {
		userText = "0"
	}
	id, name, err := findUser(userText, passwd)
	if err != nil {
		return id, err
	}
	if hasGroup && groupText != "" {
		id.gid, err = findGroup(groupText, group)
		return id, err
	}
	for _, row := range group {
		if len(row) < 4 || name == "" || !slices.Contains(strings.Split(row[3], ","), name) {
			continue
		}
		if gid, err := strconv.ParseUint(row[2], 10, 32); err == nil {
			id.groups = append(id.groups, uint32(gid))
		}
	}
	return id, nil
}

// findUser finds a user by name, or by number: a number need not be in the table.
func findUser(text string, passwd [][]string) (id identity, name string, err error) {
	number, numberErr := strconv.ParseUint(text, 10, 32)
	for _, row := range passwd {
		if len(row) < 6 || (row[0] != text && (numberErr != nil || row[2] != text)) {
			continue
		}
		uid, err := strconv.ParseUint(row[2], 10, 32)
		if err != nil {
			return id, "", fmt.Errorf("/etc/passwd of the image has no number for user %q", row[0])
		}
		gid, err := strconv.ParseUint(row[3], 10, 32)
		if err != nil {
			return id, "", fmt.Errorf("/etc/passwd of the image has no group number for user %q", row[0])
		}
		return identity{uid: uint32(uid), gid: uint32(gid), home: row[5]}, row[0], nil
	}
	if numberErr != nil {
		return id, "", fmt.Errorf("the image has no user %q in /etc/passwd", text)
	}
	id = identity{uid: uint32(number), home: "/"}
	if number == 0 {
		id.home = "/root"
	}
	return id, "", nil
}

func findGroup(text string, group [][]string) (uint32, error) {
	for _, row := range group {
		if len(row) >= 3 && row[0] == text {
			gid, err := strconv.ParseUint(row[2], 10, 32)
			return uint32(gid), err
		}
	}
	gid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("the image has no group %q in /etc/group", text)
	}
	return uint32(gid), nil
}
