# containerd on a host, at its usual paths (they are private to the host), and `ctr run --cni` against it.

WEFT_IMAGE=localhost/busybox:1

# start_containerd HOST [ROOT]: starts it and imports an image. ROOT is where a package was unpacked whose
# containerd, ctr and reference plugins are to be used instead of the installed ones.
start_containerd() {
    local host=$1 root=${2:-}
    echo "$root/usr/bin" >"$WEFT_TEST_DIR/machines/$host/containerd.path"
    in_machine "$host" tee /etc/containerd-test.toml >/dev/null <<'TOML'
version = 2
# Overlayfs takes no upper directory on an overlay, which is what /var is on a test machine.
root = "/run/containerd-root"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
# CI machines often lack CAP_SYS_RESOURCE, and lowering a score takes it.
restrict_oom_score_adj = true
sandbox_image = "localhost/busybox:1"

[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = "/etc/cni/net.d"
bin_dir = "/opt/cni/bin"
TOML
    [[ -z $root ]] || in_machine "$host" sh -c "ln -sf $root/usr/lib/cni/* /opt/cni/bin/"
    # containerd finds its shim by PATH.
    with_containerd_path "$host" start_daemon "$host" containerd containerd --config /etc/containerd-test.toml
    eventually 20 ctr "$host" version
    import_image "$host"
}

stop_containerd() {
    stop_daemon "$1" containerd
}

# import_image HOST: into the namespaces of ctr and of CRI.
import_image() {
    local host=$1 image=$WEFT_TEST_DIR/busybox.tar namespace
    [[ -e $image ]] || "$WEFT_REPO/scripts/lib/busybox-image" "$image" --name "$WEFT_IMAGE"
    for namespace in default k8s.io; do
        ctr "$host" --namespace "$namespace" image import "$image"
    done
}

# ctr HOST ARGS...
ctr() {
    local host=$1
    shift
    with_containerd_path "$host" in_machine "$host" ctr "$@"
}

with_containerd_path() {
    local host=$1
    shift
    PATH=$(<"$WEFT_TEST_DIR/machines/$host/containerd.path"):$PATH "$@"
}

# write_cni_conflist HOST NAME PLUGINS-JSON: the network that `ctr run --cni` and CRI will use.
# A file of its own for each would not do: ctr takes the first one only.
write_cni_conflist() {
    jq --null-input --arg name "$2" --argjson plugins "$3" '{cniVersion: "1.0.0", $name, $plugins}' |
        in_machine "$1" tee /etc/cni/net.d/10-test.conflist >/dev/null
}

# cgroup_of HOST NAME: prints the path of a container's control group. All machines share one tree of them;
# below this directory they do not collide, and teardown finds them.
cgroup_of() {
    echo "/${WEFT_TEST_DIR##*/}/$1/$2"
}

# ctr_run HOST NAME CMD...: runs a container with CNI to its end and prints its output.
ctr_run() {
    local host=$1 name=$2
    shift 2
    ctr "$host" run --rm --cni --cgroup "$(cgroup_of "$host" "$name")" "$WEFT_IMAGE" "$name" "$@"
}

# ctr_start HOST NAME: leaves a container running.
# Not by `ctr run --detach`: such containers never see a DEL.
ctr_start() {
    with_containerd_path "$1" start_daemon "$1" "ctr.$2" \
        ctr run --rm --cni --cgroup "$(cgroup_of "$1" "$2")" "$WEFT_IMAGE" "$2" sleep infinity
    eventually 10 ctr_exec "$1" "$2" true
}

# ctr_exec HOST NAME CMD...
ctr_exec() {
    local host=$1 name=$2
    shift 2
    ctr "$host" task exec --exec-id "exec-$RANDOM$RANDOM" "$name" "$@"
}

# ctr_stop HOST NAME: ends the container and waits for ctr, which calls DEL before it goes.
ctr_stop() {
    ctr "$1" task kill --signal KILL "$2"
    eventually 10 daemon_stopped "$1" "ctr.$2"
}
