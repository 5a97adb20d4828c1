package vhostuser

// maxIdleWorkers bounds the goroutines that wait for work.
const maxIdleWorkers = 32

// hand gives a request to a worker. There are never more workers than requests under way, beside the idle ones.
func (d *Device) hand(r *request) {
	select {
	case d.work <- r:
	default:
		d.workers.Add(1)
		go d.worker(r)
	}
}

// worker does requests until there are enough others that are idle.
func (d *Device) worker(r *request) {
	defer d.workers.Done()
	for {
		q := r.q
		q.complete(r, r.do(d.ctx), true)
		if d.idle.Add(1) > maxIdleWorkers {
			d.idle.Add(-1)
			return
		}
		select {
		case r = <-d.work:
			d.idle.Add(-1)
		case <-d.ctx.Done():
			d.idle.Add(-1)
			return
		}
	}
}
