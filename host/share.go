package host

import "drover"

// share is what a machine's VM is to get of the host's CPUs. Somebody waits for one that boots, and for one whose memory is on its way: what others have less
// meanwhile, they get back by its end.
func (r *records) share(size drover.Guest) drover.VMShare {
	return drover.VMShare{CPUs: size.CPUs, Kind: size.CPUKind, Hurry: !r.Obs.VM.MainStarted || r.Obs.VM.Resuming || r.movesLive()}
}

// setShare gives the VM its share, if that is another one than before, or if this agent has not given it any yet.
func (m *machine) setShare() {
	r := m.rec.Load()
	spec, ok := r.spec()
	if m.vmFact != vmLive || m.vm == nil || !ok {
		return
	}
	share := r.share(spec.Config.WithDefaults().Guest)
	if m.shareOf == m.vm && m.share == share {
		return
	}
	if err := m.vm.SetShare(share); err != nil {
		m.log.Warn("the VM keeps another share of the CPUs than it should have", "err", err)
	}
	m.shareOf, m.share = m.vm, share
}
