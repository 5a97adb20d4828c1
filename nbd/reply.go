package nbd

// keep adds a reply of the reading goroutine to those to be written. It writes when enough has come together; else readRequests
// does before it would wait.
func (t *transmission) keep(r *request) {
	t.mu.Lock()
	t.unsent = append(t.unsent, r)
	full := r.cost > 0 && len(t.unsent)*r.cost >= maxUnsent || len(t.unsent) >= maxInFlight/2
	t.mu.Unlock()
	if full {
		t.flush()
	}
}

// complete adds a reply of a worker and writes it, unless somebody is writing who will take it along.
func (t *transmission) complete(r *request) {
	t.mu.Lock()
	t.unsent = append(t.unsent, r)
	t.mu.Unlock()
	t.flush()
}

// flush writes what there is to be written, or leaves it to whoever is writing.
func (t *transmission) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.writing {
		return
	}
	t.writing = true
	t.drainLocked()
}

// drainLocked writes until there is nothing left, and ends the writing.
func (t *transmission) drainLocked() {
	for len(t.unsent) > 0 {
		batch := t.unsent
		t.unsent, t.spare = t.spare[:0], nil
		t.mu.Unlock()
		err := t.write(batch)
		bytes := t.recycle(batch)
		t.mu.Lock()
		t.releaseLocked(len(batch), bytes)
		t.spare = batch[:0]
		if err != nil {
			// The client cannot be told anything any more. What is still executing ends by its context; its reply
			// comes here too, and fails at once on the closed socket.
			t.conn.end(err)
		}
	}
	t.writing = false
}

// write sends the replies, those that may still be sent.
func (t *transmission) write(batch []*request) error {
	parts := t.parts[:0]
	for _, r := range batch {
		parts = append(parts, r.reply...)
	}
	t.parts = parts
	if len(parts) == 0 {
		return nil
	}
	return t.conn.out.send(parts)
}

// recycle keeps requests and buffers for later ones, and returns how much data they held.
func (t *transmission) recycle(batch []*request) int {
	bytes := 0
	for i, r := range batch {
		bytes += r.cost
		if r.data != nil {
			t.srv.buffers.put(r.data)
			r.data = nil
		}
		if r.packed != nil {
			t.srv.buffers.put(r.packed)
			r.packed = nil
		}
		r.reply = nil
		clear(r.parts[:])
		t.srv.requests.Put(r)
		batch[i] = nil
	}
	return bytes
}

// releaseLocked makes room.
func (t *transmission) releaseLocked(requests, bytes int) {
	t.flying -= requests
	t.bytes -= bytes
	if !t.waiting {
		return
	}
	t.waiting = false
	select {
	case t.freed <- struct{}{}:
	default:
	}
}
