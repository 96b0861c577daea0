package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// the tag by which the real driver's IAM policy knows the volumes that it may attach
	ours        = "ebs.csi.aws.com/cluster=true"
	defaultSize = 1 << 30
	mostBytes   = 1 << 44
)

func invalid(what string) error { return status.Errorf(codes.InvalidArgument, "%s is missing", what) }

func newID(prefix, name string) string {
	return fmt.Sprintf("%s-0%.16x", prefix, sha256.Sum256([]byte(name)))
}

func (d *driver) exists(id string) bool {
	_, err := os.Stat(d.file(id))
	return err == nil
}

// beside is a file that belongs to a volume or snapshot.
func (d *driver) beside(id, what string) string {
	return filepath.Join(d.folder, filepath.Base(id)+"."+what)
}

func (d *driver) zoned() []*csi.Topology {
	return []*csi.Topology{{Segments: map[string]string{zoneKey: d.zone}}}
}

func (d *driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	var all []*csi.ControllerServiceCapability
	for _, one := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
	} {
		rpc := &csi.ControllerServiceCapability_RPC{Type: one}
		all = append(all, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{Rpc: rpc}})
	}
	return &csi.ControllerGetCapabilitiesResponse{Capabilities: all}, nil
}

func supported(capabilities []*csi.VolumeCapability) bool {
	for _, one := range capabilities {
		mode := one.GetAccessMode().GetMode()
		if one.GetMount() == nil || mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER {
			return false
		}
	}
	return true
}

// size chooses the least that was asked for.
func size(asked *csi.CapacityRange) (int64, error) {
	bytes := asked.GetRequiredBytes()
	if bytes == 0 {
		bytes = defaultSize
		if most := asked.GetLimitBytes(); most > 0 && most < bytes {
			bytes = most
		}
	}
	if bytes < 0 || bytes > mostBytes || (asked.GetLimitBytes() > 0 && bytes > asked.GetLimitBytes()) {
		return 0, status.Errorf(codes.OutOfRange, "no volume can have %v", asked)
	}
	return bytes, nil
}

func (d *driver) CreateVolume(_ context.Context, q *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if q.Name == "" {
		return nil, invalid("the name")
	}
	if len(q.VolumeCapabilities) == 0 || !supported(q.VolumeCapabilities) {
		return nil, invalid("a capability that is supported")
	}
	bytes, err := size(q.CapacityRange)
	if err != nil {
		return nil, err
	}
	id := newID("vol", q.Name)
	volume := &csi.Volume{VolumeId: id, CapacityBytes: bytes, AccessibleTopology: d.zoned(), ContentSource: q.VolumeContentSource}
	if there, err := os.Stat(d.file(id)); err == nil {
		if there.Size() != bytes {
			return nil, status.Errorf(codes.AlreadyExists, "%s has %d bytes", id, there.Size())
		}
		return &csi.CreateVolumeResponse{Volume: volume}, nil
	}
	if q.VolumeContentSource != nil {
		from := q.VolumeContentSource.GetSnapshot().GetSnapshotId()
		if from == "" || !d.exists(from) {
			return nil, status.Errorf(codes.NotFound, "there is no snapshot %q", from)
		}
		if _, err := os.Stat(d.beside(from, "denied")); err == nil {
			return nil, status.Errorf(codes.Internal, "CreateVolume: UnauthorizedOperation: the role may not use %s", from)
		}
		if _, err := run("cp", "--reflink=auto", "--sparse=always", d.file(from), d.file(id)); err != nil {
			return nil, err
		}
	}
	if _, err := run("truncate", "-s", strconv.FormatInt(bytes, 10), d.file(id)); err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: volume}, os.WriteFile(d.beside(id, "tags"), []byte(ours+"\n"), 0o644)
}

func (d *driver) DeleteVolume(_ context.Context, q *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if q.VolumeId == "" {
		return nil, invalid("the volume's id")
	}
	if _, err := os.Stat(d.beside(q.VolumeId, "attached")); err == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "VolumeInUse: %s is attached", q.VolumeId)
	}
	os.Remove(d.file(q.VolumeId))
	os.Remove(d.beside(q.VolumeId, "tags"))
	return &csi.DeleteVolumeResponse{}, nil
}

func (d *driver) ValidateVolumeCapabilities(_ context.Context, q *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if q.VolumeId == "" || len(q.VolumeCapabilities) == 0 {
		return nil, invalid("the volume's id or its capabilities")
	}
	if !d.exists(q.VolumeId) {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", q.VolumeId)
	}
	answer := &csi.ValidateVolumeCapabilitiesResponse{}
	if supported(q.VolumeCapabilities) {
		answer.Confirmed = &csi.ValidateVolumeCapabilitiesResponse_Confirmed{VolumeCapabilities: q.VolumeCapabilities}
	}
	return answer, nil
}

// ControllerPublishVolume attaches a volume, as long as it has the tag that the driver's IAM policy asks for. The stand-in
// for EC2 reads from the file which volumes are attached.
func (d *driver) ControllerPublishVolume(_ context.Context, q *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	if q.VolumeId == "" || q.NodeId == "" || q.VolumeCapability == nil {
		return nil, invalid("the volume's id, the node's or the capability")
	}
	if !d.exists(q.VolumeId) {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", q.VolumeId)
	}
	if q.NodeId != d.node {
		return nil, status.Errorf(codes.NotFound, "there is no machine %s", q.NodeId)
	}
	tags, _ := os.ReadFile(d.beside(q.VolumeId, "tags"))
	if !bytes.Contains(append([]byte("\n"), tags...), []byte("\n"+ours+"\n")) {
		return nil, status.Errorf(codes.Internal, "AttachVolume: UnauthorizedOperation: %s is not tagged %s", q.VolumeId, ours)
	}
	err := os.WriteFile(d.beside(q.VolumeId, "attached"), []byte(q.NodeId), 0o644)
	return &csi.ControllerPublishVolumeResponse{PublishContext: map[string]string{"devicePath": "/dev/xvd-" + q.VolumeId}}, err
}

func (d *driver) ControllerUnpublishVolume(_ context.Context, q *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if q.VolumeId == "" {
		return nil, invalid("the volume's id")
	}
	os.Remove(d.beside(q.VolumeId, "attached"))
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// of is what is noted of a snapshot that the driver has made.
type of struct {
	Volume string
	Taken  time.Time
}

func (d *driver) snapshot(id string) *csi.Snapshot {
	there, err := os.Stat(d.file(id))
	if _, hidden := os.Stat(d.beside(id, "hidden")); err != nil || hidden == nil {
		return nil
	}
	noted := of{Taken: there.ModTime()}
	if text, err := os.ReadFile(d.beside(id, "json")); err == nil {
		json.Unmarshal(text, &noted)
	}
	return &csi.Snapshot{SnapshotId: id, SourceVolumeId: noted.Volume, SizeBytes: there.Size(), CreationTime: timestamppb.New(noted.Taken), ReadyToUse: true}
}

func (d *driver) CreateSnapshot(_ context.Context, q *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if q.Name == "" || q.SourceVolumeId == "" {
		return nil, invalid("the name or the volume's id")
	}
	id := newID("snap", q.Name)
	if there := d.snapshot(id); there != nil {
		if there.SourceVolumeId != q.SourceVolumeId {
			return nil, status.Errorf(codes.AlreadyExists, "%s is of %s", id, there.SourceVolumeId)
		}
		return &csi.CreateSnapshotResponse{Snapshot: there}, nil
	}
	if !d.exists(q.SourceVolumeId) {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", q.SourceVolumeId)
	}
	noted, _ := json.Marshal(of{Volume: q.SourceVolumeId, Taken: time.Now()})
	if err := os.WriteFile(d.beside(id, "json"), noted, 0o644); err != nil {
		return nil, err
	}
	if _, err := run("cp", "--reflink=auto", "--sparse=always", d.file(q.SourceVolumeId), d.file(id)); err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: d.snapshot(id)}, nil
}

func (d *driver) DeleteSnapshot(_ context.Context, q *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if q.SnapshotId == "" {
		return nil, invalid("the snapshot's id")
	}
	os.Remove(d.file(q.SnapshotId))
	os.Remove(d.beside(q.SnapshotId, "json"))
	return &csi.DeleteSnapshotResponse{}, nil
}

func (d *driver) ListSnapshots(_ context.Context, q *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	files, _ := filepath.Glob(filepath.Join(d.folder, "snap-*.img"))
	sort.Strings(files)
	var all []*csi.ListSnapshotsResponse_Entry
	for _, file := range files {
		one := d.snapshot(strings.TrimSuffix(filepath.Base(file), ".img"))
		wanted := one != nil && (q.SnapshotId == "" || q.SnapshotId == one.SnapshotId)
		if wanted && (q.SourceVolumeId == "" || q.SourceVolumeId == one.SourceVolumeId) {
			all = append(all, &csi.ListSnapshotsResponse_Entry{Snapshot: one})
		}
	}
	from := 0
	if q.StartingToken != "" {
		var err error
		if from, err = strconv.Atoi(q.StartingToken); err != nil || from > len(all) {
			return nil, status.Errorf(codes.Aborted, "%q is no token", q.StartingToken)
		}
	}
	answer := &csi.ListSnapshotsResponse{Entries: all[from:]}
	if most := int(q.MaxEntries); most > 0 && most < len(answer.Entries) {
		answer.Entries = answer.Entries[:most]
		answer.NextToken = strconv.Itoa(from + most)
	}
	return answer, nil
}
