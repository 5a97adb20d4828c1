package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"drover"
	"drover/apiv1"
)

func newVolumeShowCommand(c *cli) *cobra.Command {
	var app string
	cmd := &cobra.Command{
		Use:     "show ID",
		Short:   "Show a volume, or one that was destroyed and can be brought back",
		Example: "  drover volume show data\n  drover volume show vol_6f1c0a53e9b2d784 --json",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, v, err := c.volumeOf(cmd.Context(), app, args[0])
			if drover.Is(err, drover.NotFound) {
				var gone error
				if v, gone = client.FindDestroyedVolume(cmd.Context(), drover.AppName(app), args[0]); gone == nil {
					err = nil
				}
			}
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(v)
			}
			if err := c.printFields(c.volumeFields(v)...); err != nil {
				return err
			}
			return c.printConditions(v.Conditions)
		},
	}
	addApp(cmd, &app)
	return cmd
}

func (c *cli) volumeFields(v apiv1.Volume) [][2]string {
	size := sizeText(v.Size)
	if v.BytesUsed != nil {
		size += fmt.Sprintf(", %s of it on the host's disk", sizeText(*v.BytesUsed))
	}
	encryption := "none"
	if v.Cipher != nil {
		encryption = fmt.Sprintf("%s, key %s", v.Cipher.Algorithm, v.Cipher.Key)
	}
	origin := ""
	switch {
	case v.SnapshotID != "":
		origin = "snapshot " + string(v.SnapshotID)
	case v.SourceVolumeID != "":
		origin = "volume " + string(v.SourceVolumeID)
	}
	hydration := ""
	if v.Hydration != nil {
		hydration = hydrationText(&v.Hydration.Hydration)
	}
	return [][2]string{{"ID", string(v.ID)}, {"Name", v.Name}, {"App", string(v.App)}, {"State", volumeStateText(v)}, {"Trouble", v.Trouble},
		{"Size", size}, {"Host", string(v.Host)}, {"Region", string(v.Region)}, {"Machine", string(v.AttachedMachineID)}, {"Made of", origin},
		{"Encryption", encryption}, {"Limits", limitsText(v.Limits)}, {"Snapshots", scheduleText(v)}, {"Hydration", hydration},
		{"Verified", c.verificationText(v.Verification)}, {"Created", c.moment(v.CreatedAt)}, {"Destroyed", c.moment(v.DestroyedAt)},
		{"Wiped", c.deadline(v.WipeAt)}}
}

// scheduleText says when snapshots are taken and how long they are kept.
func scheduleText(v apiv1.Volume) string {
	kept := fmt.Sprintf("kept %d days", v.SnapshotRetention)
	if !v.AutoBackupEnabled {
		return "by hand only, " + kept
	}
	return fmt.Sprintf("every %s, %s", intervalText(v.SnapshotInterval), kept)
}

// verificationText says how a comparison ended, or how far it is.
func (c *cli) verificationText(v *drover.Verification) string {
	if v == nil {
		return ""
	}
	text := "against " + v.Against + ": "
	switch {
	case v.Problem != "" && len(v.Damaged) > 0:
		return text + damageText(*v) + "; " + v.Problem
	case v.Problem != "":
		return text + "not finished, " + v.Problem
	case !v.Done && v.Total == 0:
		return text + "when the copy is complete"
	case !v.Done:
		return text + fmt.Sprintf("%s of %s", sizeText(v.Checked), sizeText(v.Total))
	case len(v.Damaged) > 0:
		text += damageText(*v)
	default:
		text += fmt.Sprintf("%s checked, nothing damaged", sizeText(v.Checked))
	}
	if v.Repaired > 0 {
		text += fmt.Sprintf(", %s repaired", sizeText(v.Repaired))
	}
	return fmt.Sprintf("%s, %s ago", text, c.age(v.DoneAt))
}

// damageText counts what is damaged.
func damageText(v drover.Verification) string {
	var all drover.Bytes
	for _, r := range v.Damaged {
		all += r.Length
	}
	at := "DAMAGED"
	if len(v.Damaged) >= drover.MaxDamaged {
		at += " in at least"
	} else {
		at += " in"
	}
	return fmt.Sprintf("%s %s, %s", at, count(len(v.Damaged), "place"), sizeText(all))
}

// count writes a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
