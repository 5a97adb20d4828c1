package api

import (
	"cmp"
	"time"

	"drover"
	"drover/apiv1"
	"drover/fleet"
)

func volumeForm(v fleet.VolumeView) apiv1.Volume {
	vol := v.Volume
	form := apiv1.Volume{
		ID:                vol.ID,
		Name:              vol.Name,
		App:               vol.App,
		State:             vol.State,
		Region:            vol.Region,
		SizeGB:            int((vol.Size + drover.GiB - 1) / drover.GiB),
		Size:              vol.Size,
		Zone:              string(vol.Host),
		Host:              vol.Host,
		AttachedMachineID: vol.Machine,
		CreatedAt:         vol.CreatedAt,
		HostStatus:        hostStatus(v.HostStatus),
		FSType:            "ext4",
		BlockSize:         int(drover.BlockSize),
		Blocks:            int64(vol.Size / drover.BlockSize),
		BytesTotal:        vol.Size,
		Epoch:             vol.Epoch,
		Encrypted:         vol.Cipher != nil,
		Cipher:            vol.Cipher,
		Limits:            vol.Limits,
		AutoBackupEnabled: vol.AutoBackup,
		SnapshotInterval:  cmp.Or(vol.SnapshotInterval, drover.DefaultSnapshotInterval),
		SnapshotRetention: cmp.Or(vol.RetentionDays, drover.DefaultRetentionDays),
		DestroyedAt:       vol.DestroyedAt,
		WipeAt:            vol.WipeAt,
		Hydration:         hydrationForm(v.Hydration),
		Conditions:        v.Conditions,
	}
	if vol.From != nil {
		form.SourceVolumeID = vol.From.Volume
		if vol.From.Snapshot != nil {
			form.SnapshotID = vol.From.Snapshot.Snapshot
		}
	}
	if vol.Compute != nil {
		form.Compute, form.ReservedUntil, form.HostDedicationID = vol.Compute, vol.ReservedUntil, vol.Compute.HostDedicationID
	}
	if v.Layer != nil {
		form.BytesUsed, form.Verification, form.Trouble = &v.Layer.Allocated, v.Layer.Verification, v.Layer.Trouble
		if form.Hydration == nil && v.Layer.Hydration != nil && !v.Layer.Hydration.Done {
			form.Hydration = hydrationForm(v.Layer.Hydration)
		}
	}
	return form
}

func volumeForms(views []fleet.VolumeView) []apiv1.Volume {
	forms := []apiv1.Volume{}
	for _, v := range views {
		forms = append(forms, volumeForm(v))
	}
	return forms
}

// hydrationForm adds the time that is left at the present rate, where the rate and what is left are known.
func hydrationForm(h *drover.Hydration) *apiv1.VolumeHydration {
	if h == nil {
		return nil
	}
	form := &apiv1.VolumeHydration{Hydration: *h}
	if h.TotalKnown && h.BytesPerSecond > 0 && !h.Done && !h.Paused {
		left := int64(max(0, h.Total-h.Copied-h.Skipped) / h.BytesPerSecond)
		form.SecondsLeft = &left
	}
	return form
}

func snapshotForm(s drover.Snapshot) apiv1.Snapshot {
	form := apiv1.Snapshot{
		ID:            s.ID,
		Status:        s.State,
		Size:          s.Data,
		Stored:        s.Stored,
		VolumeSize:    s.Size,
		Digest:        s.Manifest,
		CreatedAt:     s.CreatedAt,
		TakenAt:       s.TakenAt,
		DoneAt:        s.DoneAt,
		RetentionDays: s.RetentionDays,
		VolumeID:      s.Volume,
		VolumeName:    s.Name,
		App:           s.App,
		Encrypted:     s.Cipher != nil,
		Scheduled:     s.Scheduled,
		Quiesced:      s.Quiesced,
		Full:          s.Full,
		Problem:       s.Problem,
	}
	taken := s.TakenAt
	if taken.IsZero() {
		taken = s.CreatedAt
	}
	form.ExpiresAt = taken.Add(time.Duration(s.RetentionDays) * 24 * time.Hour)
	if s.State == drover.SnapshotCreating {
		form.Host, form.Progress = s.Host, s.Upload
	}
	return form
}

func snapshotForms(snapshots []drover.Snapshot) []apiv1.Snapshot {
	forms := []apiv1.Snapshot{}
	for _, s := range snapshots {
		forms = append(forms, snapshotForm(s))
	}
	return forms
}

// oldestFirst orders volumes.
func oldestFirst(a, b fleet.VolumeView) int {
	return cmp.Or(a.Volume.CreatedAt.Compare(b.Volume.CreatedAt), cmp.Compare(a.Volume.ID, b.Volume.ID))
}
