package fleet

import (
	"context"
	"sync"
	"time"

	"drover"
)

// proofPrefix begins the keys of proofs: one record for each control host.
const proofPrefix = "proof."

// proof is up to when this control host certainly knows every revocation. What is measured are moments of this process, never the clocks of two hosts.
type proof struct {
	mu sync.Mutex
	at time.Time
	// next is closed and replaced at each proof.
	next chan struct{}
}

func newProof() *proof { return &proof{next: make(chan struct{})} }

func (p *proof) set(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
	close(p.next)
	p.next = make(chan struct{})
}

func (p *proof) get() (at time.Time, next <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at, p.next
}

// proofWait bounds how long a request waits for a proof that is late.
const proofWait = 1500 * time.Millisecond

// await returns when there is a proof that is younger than the bound; Unavailable when none comes.
func (p *proof) await(ctx context.Context, bound time.Duration) error {
	var late <-chan time.Time
	for {
		at, next := p.get()
		if time.Since(at) < bound {
			return nil
		}
		if late == nil {
			late = time.After(proofWait)
		}
		select {
		case <-next:
			continue
		case <-late:
		case <-ctx.Done():
		}
		return drover.Errorf(drover.Unavailable, "this control host cannot tell whether the token was revoked: it has heard nothing from the store for %s",
			sinceText(at)).WithHint("ask another control host, or again in a moment; the operator's token of this control host works meanwhile")
	}
}

func sinceText(at time.Time) string {
	if at.IsZero() {
		return "as long as it runs"
	}
	return time.Since(at).Round(time.Second).String()
}

// proveTokens proves again and again, until ctx ends, that this control host hears of every change of tokens: it writes into their bucket and waits
// until the write comes back by the watch, which tells in order. So what was revoked before the write began is known here then.
func (f *Fleet) proveTokens(ctx context.Context) {
	key := proofPrefix + string(f.cfg.Host)
	for ctx.Err() == nil {
		f.prove(ctx, key)
		f.openRoots(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(f.timing.TokenProof):
		}
	}
}

// prove makes one proof. What cannot be written is tried again at the next turn; who needs a proof is told meanwhile.
func (f *Fleet) prove(ctx context.Context, key string) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, f.timing.TokenBound)
	defer cancel()
	rev, err := f.state.tokens.bucket.Put(ctx, key, tokenRecord{Proof: f.now().UTC()})
	if err != nil {
		f.trouble(ctx, "proof of tokens of control host", string(f.cfg.Host), err)
		return
	}
	for {
		next := f.state.tokens.next(key)
		if f.state.tokens.heard() >= rev {
			f.proof.set(begun)
			return
		}
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
