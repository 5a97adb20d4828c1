package main

import (
	"context"
	"fmt"

	"drover"
	"drover/apiv1"
	"drover/client"
	"drover/flytoml"
)

// plannedItem is one machine, with the volumes that it will have.
type plannedItem struct {
	apiv1.DeployItemRequest
	volumes []plannedVolume
}

// plannedVolume is there, or is made when it has no ID.
type plannedVolume struct {
	flytoml.Volume
	id drover.VolumeID
}

// request is what the fleet is asked.
func (i plannedItem) request() apiv1.DeployItemRequest {
	item := i.DeployItemRequest
	if item.Machine != "" {
		item.Name, item.Region = "", "" // it is named by its ID
	}
	return item
}

func (i plannedItem) volumeTexts() (with []string) {
	for _, v := range i.volumes {
		if v.id == "" {
			with = append(with, fmt.Sprintf("a new volume %s of %s", v.Name, sizeText(v.Size)))
		} else {
			with = append(with, fmt.Sprintf("volume %s (%s)", v.id, v.Name))
		}
	}
	return with
}

// makeVolumes makes the volumes of a new machine that are not there, and mounts all.
func (i *plannedItem) makeVolumes(ctx context.Context, c *cli, cl *client.Client, app drover.AppName) error {
	for _, v := range i.volumes {
		if v.id == "" {
			made, err := cl.CreateVolume(ctx, app, apiv1.CreateVolumeRequest{Name: v.Name, Region: string(i.Region), Size: v.Size, SnapshotRetention: v.SnapshotRetention})
			if err != nil {
				return err
			}
			v.id = made.ID
			fmt.Fprintf(c.stderr, "volume %s (%s) created\n", v.id, v.Name)
		}
		i.Config.Mounts = append(i.Config.Mounts, drover.Mount{Volume: v.id, Path: v.Path, Name: v.Name})
	}
	return nil
}

// freeVolume finds a volume of a name that no machine has, and that is not planned for one already; empty if there is none.
func freeVolume(volumes []apiv1.Volume, name, region string, planned []plannedItem, also plannedItem) drover.VolumeID {
	taken := map[drover.VolumeID]bool{}
	for _, i := range append([]plannedItem{also}, planned...) {
		for _, v := range i.volumes {
			taken[v.id] = true
		}
	}
	for _, v := range volumes {
		if v.Name == name && v.AttachedMachineID == "" && (region == "" || string(v.Region) == region) && !taken[v.ID] {
			return v.ID
		}
	}
	return ""
}
