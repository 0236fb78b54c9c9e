#!/usr/bin/env bats
# ADD and DEL when there is nothing left to prepare: one process, which talks to the kernel and to no other program.

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

setup() {
    use_ipam a link
}

# traced VERB CONTAINER: the call under strace; its programs and connections go to trace.log.
traced() {
    CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_IFNAME=eth0 CNI_NETNS=/run/netns/$2 CNI_PATH=/opt/cni/bin \
        WEFT_CONFIG=$(node_config a) in_machine a strace -f -qq -e trace=execve,connect,socket \
        -o "$WEFT_TEST_DIR/trace.log" /opt/cni/bin/weft <<<"$NET"
}

# programs: prints how many programs a traced call started, itself included.
programs() {
    # One that was interrupted by another process's line ends in a line of its own.
    grep -cE 'execve(\(| resumed>).* = 0$' "$WEFT_TEST_DIR/trace.log"
}

# connects_to_nothing: a traced call opened no socket but netlink's.
connects_to_nothing() {
    run ! grep -E 'connect\(|AF_INET|AF_UNIX|nft' "$WEFT_TEST_DIR/trace.log"
}

@test "ADD is one process and makes no connection" {
    add_container a second
    traced ADD second
    assert_equal "$(programs)" 1 "number of programs in: $(<"$WEFT_TEST_DIR/trace.log")"
    connects_to_nothing
}

@test "DEL is one process and makes no connection" {
    add_container a third
    cni a ADD third eth0 "$NET"
    traced DEL third
    assert_equal "$(programs)" 1 "number of programs in: $(<"$WEFT_TEST_DIR/trace.log")"
    connects_to_nothing
}

@test "a copy of the program as weft-ipam is started as any IPAM plugin, and is the only other process" {
    use_ipam a exec
    add_container a fourth
    traced ADD fourth
    assert_equal "$(programs)" 2 "number of programs in: $(<"$WEFT_TEST_DIR/trace.log")"
    grep -q 'execve("/opt/cni/bin/weft-ipam"' "$WEFT_TEST_DIR/trace.log"
    connects_to_nothing
    traced DEL fourth
    assert_equal "$(programs)" 2 "number of programs in: $(<"$WEFT_TEST_DIR/trace.log")"
    connects_to_nothing
}

@test "a hard link is the same program as well, and another name of it is weft" {
    local linked=$WEFT_TEST_DIR/linked
    mkdir "$linked"
    cp "$WEFT_BIN_DIR/weft" "$linked/weft"
    ln "$linked/weft" "$linked/weft-ipam"
    ln "$linked/weft" "$linked/other"
    add_container a fifth
    CNI_COMMAND=ADD CNI_CONTAINERID=fifth CNI_IFNAME=eth0 CNI_NETNS=/run/netns/fifth CNI_PATH=$linked \
        WEFT_CONFIG=$(node_config a) in_machine a strace -f -qq -e trace=execve,connect,socket \
        -o "$WEFT_TEST_DIR/trace.log" "$linked/weft" <<<"$NET"
    assert_equal "$(programs)" 1 "number of programs in: $(<"$WEFT_TEST_DIR/trace.log")"
    run in_machine a "$linked/weft-ipam"
    [[ $output == *"plugin weft-ipam v"* ]]
    run in_machine a "$linked/other"
    [[ $output == *"plugin weft v"* ]]
}
