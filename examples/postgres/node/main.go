package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pgnode:", err)
		os.Exit(1)
	}
}

// run is the main process, or, with a word, an order to it.
func run(ctx context.Context, args []string) error {
	cfg, err := readConfig()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return newNode(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))).run(ctx)
	}
	switch args[0] {
	case "handover", "follow":
		return order(ctx, cfg, args[0])
	case "promote":
		return insist(ctx, cfg)
	}
	return fmt.Errorf("%q is no order: use handover, promote or follow", args[0])
}

// insist repeats the order to promote, since voters may come back later, and repmgrd does not ask again. Nobody is granted while there is a primary.
func insist(ctx context.Context, cfg config) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	for {
		err := order(ctx, cfg, "promote")
		if err == nil || ctx.Err() != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "pgnode:", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(2 * time.Second):
		}
	}
}

// order asks the main process of this machine for something.
func order(ctx context.Context, cfg config, what string) error {
	text, err := post(ctx, cfg, cfg.self.Address, what, nil)
	if err != nil {
		return err
	}
	fmt.Println(strings.TrimSpace(text))
	return nil
}

// post gives an order to a member, and returns what it says.
func post(ctx context.Context, cfg config, address, what string, body io.Reader) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, memberURL(address, what), body)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+cfg.token())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() // it was only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s", strings.TrimSpace(string(text)))
	}
	return string(text), nil
}
