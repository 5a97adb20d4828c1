// Package s3server runs a real S3 server (versitygw over a directory), which script/bootstrap installs, for tests and benchmarks.
package s3server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The account of the server.
const (
	AccessKey = "drover-test"
	SecretKey = "0123456789abcdef-secret"
	// Bucket is there from the beginning.
	Bucket = "fleet"
)

// startTimeout bounds how long the server may take to listen.
const startTimeout = 20 * time.Second

// Server is a running server.
type Server struct {
	// Endpoint is its address.
	Endpoint string
	// Root is the directory with a directory per bucket.
	Root string
	// CredentialsFile has the account.
	CredentialsFile string

	port string
	args []string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

// Find returns the program, or where it was expected: build/tools of the source tree that the process is in.
func Find() (string, error) {
	top, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := top; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			top = dir
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	path := filepath.Join(top, "build", "tools", "versitygw")
	_, err = os.Stat(path)
	return path, err
}

// New prepares a server in an empty directory. With certificate files it speaks TLS.
func New(dir, certFile, keyFile string) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err := errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	s := &Server{Endpoint: "http://127.0.0.1:" + port, Root: filepath.Join(dir, "buckets"), CredentialsFile: filepath.Join(dir, "credentials"), port: port}
	s.args = []string{"--port", "127.0.0.1:" + port, "--access", AccessKey, "--secret", SecretKey, "--quiet"}
	if certFile != "" {
		s.Endpoint = "https://127.0.0.1:" + port
		s.args = append(s.args, "--cert", certFile, "--key", keyFile)
	}
	s.args = append(s.args, "posix", "--nometa", s.Root)
	if err := os.MkdirAll(filepath.Join(s.Root, Bucket), 0o700); err != nil {
		return nil, err
	}
	return s, writeFile(s.CredentialsFile, fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", AccessKey, SecretKey))
}

func writeFile(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Start runs the server until Stop.
func (s *Server) Start(ctx context.Context) error {
	program, err := Find()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(program, s.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		c, err := net.Dial("tcp", "127.0.0.1:"+s.port)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the S3 server does not listen: %w", err), s.Stop(), errors.New(s.log.String()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop kills the server.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed
	return nil
}
