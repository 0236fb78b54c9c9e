#!/usr/bin/env bats
# What ADD does when there is nothing left to prepare: start the IPAM plugin and talk to the kernel.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "vni": 4301, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}'

setup_file() {
    setup_underlay
    start_consul
    add_host a
    write_node_config a
    start_weftd a
    add_container a first
    cni a ADD first eth0 "$NET"
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# traced VERB CONTAINER: the call under strace; its programs and connections go to trace.log.
traced() {
    CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_IFNAME=eth0 CNI_NETNS=/run/netns/$2 CNI_PATH=/opt/cni/bin \
        WEFT_CONFIG=$(node_config a) in_machine a strace -f -qq -e trace=execve,connect,socket \
        -o "$WEFT_TEST_DIR/trace.log" /opt/cni/bin/weft <<<"$NET"
}

@test "ADD starts no program but the IPAM plugin and makes no connection" {
    add_container a second
    traced ADD second
    run grep -c 'execve(.* = 0$' "$WEFT_TEST_DIR/trace.log"
    assert_equal "$output" 2 "number of programs started, weft itself included, in: $(<"$WEFT_TEST_DIR/trace.log")"
    grep -q 'execve("/opt/cni/bin/weft-ipam"' "$WEFT_TEST_DIR/trace.log"
    run ! grep -E 'connect\(|AF_INET|AF_UNIX|nft' "$WEFT_TEST_DIR/trace.log"
}

@test "DEL starts no program but the IPAM plugin and makes no connection" {
    add_container a third
    cni a ADD third eth0 "$NET"
    traced DEL third
    run grep -c 'execve(.* = 0$' "$WEFT_TEST_DIR/trace.log"
    assert_equal "$output" 2 "number of programs started, weft itself included"
    run ! grep -E 'connect\(|AF_INET|AF_UNIX|nft' "$WEFT_TEST_DIR/trace.log"
}
