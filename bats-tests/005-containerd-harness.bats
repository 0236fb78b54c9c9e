#!/usr/bin/env bats
# A whole containerd inside a test host, proved with the reference plugins: what differs for weft is
# the network configuration alone.

load helpers

BRIDGE='[{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
    "ipam": {"type": "host-local", "subnet": "10.7.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}]'

setup_file() {
    setup_underlay
    add_host a
    write_cni_conflist a ref "$BRIDGE"
    start_containerd a
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

@test "ctr runs a container on a CNI network" {
    run ctr_run a once ip -4 address show eth0
    [[ $status == 0 && $output == *"inet 10.7.0."*"/24"* ]]
}

@test "a container reaches the outside through its host" {
    ctr_run a outward ping -c 1 -W 2 "$WEFT_OUTSIDE_IP"
}

@test "two containers reach each other, and their addresses are free after they stopped" {
    ctr_start a one
    ctr_start a two
    local ip
    ip=$(ctr_exec a one ip -4 -o address show eth0 | grep -o '10\.7\.0\.[0-9]*' | head -n 1)
    ctr_exec a two ping -c 1 -W 2 "$ip"
    ctr_stop a one
    ctr_stop a two
    run in_host a find /var/lib/cni/networks/ref -name '10.7.*'
    assert_equal "$output" ""
}

@test "containerd serves CRI" {
    run ctr a plugins list
    [[ $(grep -E 'grpc\.v1.* cri ' <<<"$output") == *ok* ]]
}

@test "containers outlive a killed containerd" {
    ctr_start a survivor
    stop_daemon a containerd KILL
    start_containerd a
    ctr_exec a survivor true
    ctr a task kill --signal KILL survivor
}

@test "a host that dies with running containers leaves no process and no control group" {
    local dir=$WEFT_TEST_DIR
    setup_underlay
    add_host x
    write_cni_conflist x ref "$BRIDGE"
    start_containerd x
    ctr_start x doomed
    run find /sys/fs/cgroup -path "*${WEFT_TEST_DIR##*/}/x/doomed"
    [[ -n $output ]]
    local name=${WEFT_TEST_DIR##*/}
    teardown_underlay
    run find /sys/fs/cgroup -path "*$name*"
    assert_equal "$output" ""
    run ! pgrep -f "$name"
    [[ -d $dir ]]
}

@test "containerd 2, unpacked from Debian sid, runs a container on a CNI network" {
    [[ -d $WEFT_TEST_CACHE/sid ]] || skip "scripts/setup --with-sid makes it available"
    add_host b
    write_cni_conflist b ref "$BRIDGE"
    start_containerd b "$WEFT_TEST_CACHE/sid"
    run ctr b version
    [[ $output == *"Version:  2."* ]]
    run ctr_run b once ip -4 address show eth0
    [[ $status == 0 && $output == *"inet 10.7.0."*"/24"* ]]
    stop_containerd b
}
