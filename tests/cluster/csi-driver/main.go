// A stand-in for the EBS CSI driver: a volume's id is the name of a file, FOLDER/ID.img, which it mounts through a loop
// device. Registers with the kubelet as ebs.csi.aws.com. Runs inside a node of the test cluster:
//
//	csi FOLDER NODE ZONE
//
// The real csi-attacher and csi-snapshotter talk to its controller service, and csi-sanity judges all of it, for which
// it serves at a socket of its own and doesn't register: csi FOLDER NODE ZONE SOCKET. Who makes the files of volumes and
// snapshots of tests is the stand-in for EC2 (tests/ec2/standin).
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	name     = "ebs.csi.aws.com"
	zoneKey  = "topology.ebs.csi.aws.com/zone"
	socket   = "/var/lib/kubelet/plugins/ebs/csi.sock"
	registry = "/var/lib/kubelet/plugins_registry/ebs-reg.sock"
)

type driver struct {
	csi.UnimplementedControllerServer
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	folder, node, zone string
}

func run(command ...string) (string, error) {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	log.Printf("%v: %s", command, text)
	if err != nil {
		return text, status.Errorf(codes.Internal, "%v: %v: %s", command, err, text)
	}
	return text, nil
}

func (d *driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: name, VendorVersion: "0"}, nil
}

func (d *driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	var all []*csi.PluginCapability
	for _, one := range []csi.PluginCapability_Service_Type{
		csi.PluginCapability_Service_CONTROLLER_SERVICE, csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
	} {
		service := &csi.PluginCapability_Service{Type: one}
		all = append(all, &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: service}})
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: all}, nil
}

func (d *driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.node, MaxVolumesPerNode: 100,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{zoneKey: d.zone}}}, nil
}

func (d *driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	rpc := &csi.NodeServiceCapability_RPC{Type: csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME}
	stage := &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: rpc}}
	return &csi.NodeGetCapabilitiesResponse{Capabilities: []*csi.NodeServiceCapability{stage}}, nil
}

// device gives the loop device of a volume, if it has one.
func (d *driver) device(volume string) string {
	out, _ := exec.Command("losetup", "-j", d.file(volume)).Output()
	device, _, _ := strings.Cut(string(out), ":")
	return device
}

func (d *driver) file(volume string) string {
	return filepath.Join(d.folder, filepath.Base(volume)+".img")
}

func (d *driver) NodeStageVolume(_ context.Context, q *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if q.VolumeId == "" || q.StagingTargetPath == "" || q.VolumeCapability == nil {
		return nil, invalid("the volume's id, the path or the capability")
	}
	if !d.exists(q.VolumeId) {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", q.VolumeId)
	}
	device := d.device(q.VolumeId)
	if device == "" {
		var err error
		if device, err = run("losetup", "-f", "--show", d.file(q.VolumeId)); err != nil {
			return nil, err
		}
	}
	if _, err := run("blkid", device); err != nil {
		if _, err := run("mkfs.ext4", "-q", device); err != nil {
			return nil, err
		}
	}
	if _, err := run("mountpoint", "-q", q.StagingTargetPath); err == nil {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if err := os.MkdirAll(q.StagingTargetPath, 0o755); err != nil {
		return nil, err
	}
	_, err := run("mount", device, q.StagingTargetPath)
	return &csi.NodeStageVolumeResponse{}, err
}

func (d *driver) NodeUnstageVolume(_ context.Context, q *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if q.VolumeId == "" || q.StagingTargetPath == "" {
		return nil, invalid("the volume's id or the path")
	}
	run("umount", q.StagingTargetPath)
	if device := d.device(q.VolumeId); device != "" {
		run("losetup", "-d", device)
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *driver) NodePublishVolume(_ context.Context, q *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if q.VolumeId == "" || q.StagingTargetPath == "" || q.TargetPath == "" || q.VolumeCapability == nil {
		return nil, invalid("the volume's id, a path or the capability")
	}
	if !d.exists(q.VolumeId) {
		return nil, status.Errorf(codes.NotFound, "there is no volume %s", q.VolumeId)
	}
	if _, err := run("mountpoint", "-q", q.TargetPath); err == nil {
		return &csi.NodePublishVolumeResponse{}, nil
	}
	if err := os.MkdirAll(q.TargetPath, 0o755); err != nil {
		return nil, err
	}
	_, err := run("mount", "--bind", q.StagingTargetPath, q.TargetPath)
	return &csi.NodePublishVolumeResponse{}, err
}

func (d *driver) NodeUnpublishVolume(_ context.Context, q *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if q.VolumeId == "" || q.TargetPath == "" {
		return nil, invalid("the volume's id or the path")
	}
	run("umount", q.TargetPath)
	os.Remove(q.TargetPath)
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

type registrar struct {
	registration.UnimplementedRegistrationServer
}

func (registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: name, Endpoint: socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (registrar) NotifyRegistrationStatus(_ context.Context, q *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	log.Printf("registered: %v %s", q.PluginRegistered, q.Error)
	return &registration.RegistrationStatusResponse{}, nil
}

func listen(path string) net.Listener {
	os.MkdirAll(filepath.Dir(path), 0o755)
	os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func main() {
	if len(os.Args) != 4 && len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: csi FOLDER NODE ZONE [SOCKET]")
		os.Exit(2)
	}
	d := &driver{folder: os.Args[1], node: os.Args[2], zone: os.Args[3]}
	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, d)
	csi.RegisterControllerServer(server, d)
	csi.RegisterNodeServer(server, d)
	if len(os.Args) == 5 {
		log.Fatal(server.Serve(listen(os.Args[4])))
	}
	registering := grpc.NewServer()
	registration.RegisterRegistrationServer(registering, registrar{})
	go func() { log.Fatal(server.Serve(listen(socket))) }()
	log.Fatal(registering.Serve(listen(registry)))
}
