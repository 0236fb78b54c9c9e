#!/usr/bin/env bats
# The use of all nodes' blocks, as any node shows it: reported, out of date, and without the store.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "vni": 4210, "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24"}}'

setup() {
    local host
    start_cluster a b
    for host in a b; do
        add_container "$host" one
        cni "$host" ADD one eth0 "$NET"
    done
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# usage HOST NODE FIELD: prints what the host shows of the node.
usage() {
    weftctl "$1" --output json ipam show --network red | jq -r --arg node "$2" ".[0].nodes[] | select(.node == \$node) | .$3"
}

# shows HOST NODE FIELD VALUE: succeeds if it is so.
shows() {
    assert_equal "$(usage "$1" "$2" "$3")" "$4"
}

# report_of NODE: prints the index of the report's last write, and the report.
report_of() {
    in_machine underlay curl -sf "$(consul_url)/v1/kv/weft/v1/usage/$1" | jq -rc '.[0] | "\(.ModifyIndex) \(.Value | @base64d)"'
}

@test "each node shows the use of all nodes' blocks, kept and lent addresses too" {
    eventually 13 shows a b held 2
    shows a b free 14
    shows a b report current
    shows a a report own
    shows b a held 2

    # A kept address and a lent one.
    local conf
    conf=$(jq '.ipam.stickySeconds = 600 | .args.cni.sticky = "db"' <<<"$NET")
    add_container b db
    cni b ADD db eth0 "$conf"
    cni b DEL db eth0 "$conf"
    add_container a two
    CNI_ARGS=IP=10.9.0.20 cni a ADD two eth0 "$NET"
    eventually 13 shows a b lent 1
    eventually 13 shows a b kept 1
    shows a b held 2
    shows a b free 12
    shows a a borrowed 1
    shows b b kept 1
    run weftctl a ipam show --network red
    [[ $output == *"b     1       16         2     1     1     12    0         current   [##........] 25 %"* ]] || fail "$output"
    [[ $output == *"a     1       14         2     0     0     12    1         here "* ]] || fail "$output"
    run weftctl a network inspect red
    assert_json '.usage.nodes[] | select(.node == "b") | [.held, .kept, .lent, .free] | join(" ")' '2 1 1 12'
}

@test "a node reports at most once in ten seconds, and nothing while nothing changes" {
    eventually 13 shows a b held 2
    local before after started=$SECONDS
    while ((SECONDS - started < 12)); do
        cni b DEL one eth0 "$NET" >/dev/null
        cni b ADD one eth0 "$NET" >/dev/null
        report_of b >>"$WEFT_TEST_DIR/reports"
    done
    # The one from before, and two that are ten seconds apart.
    run sort -u "$WEFT_TEST_DIR/reports"
    ((${#lines[@]} <= 3)) || fail "in $((SECONDS - started)) s:" "$output"
    # After the last change it comes to rest.
    sleep 11
    before=$(report_of b)
    sleep 12
    after=$(report_of b)
    assert_equal "$after" "$before"
    # An agent that starts again has nothing to report.
    stop_weftd b
    start_weftd b
    eventually 5 shows a b report current
    sleep 2
    assert_equal "$(report_of b)" "$before"
}

@test "a report outlives its agent, is shown with its age, and goes with the node" {
    eventually 13 shows a b held 2
    stop_weftd b
    eventually 5 shows a b report stale
    shows a b held 2
    run weftctl a ipam show
    [[ $output =~ b\ +1\ +16\ +2\ +0\ +0\ +14\ +0\ +[0-9]+\ (s|min)\ ago\  ]] || fail "$output"
    # What others report is unknown if the report cannot be read or is missing.
    consul_cmd kv delete weft/v1/usage/b
    shows a b report missing
    shows a b held null
    run weftctl a ipam show
    [[ $output =~ b\ +1\ +16\ +–\ +–\ +0\ +–\ +0\ +–\ +– ]] || fail "$output"
    start_weftd b
    eventually 13 shows a b held 2
    stop_weftd b
    weftctl a node remove b
    run ! consul_cmd kv get weft/v1/usage/b
}

@test "without the store a node shows what its own files tell, and says so" {
    stop_consul
    run --separate-stderr weftctl b ipam show
    assert_equal "$status" 0
    # shellcheck disable=SC2154 # set by run
    [[ $stderr == *"cannot be used now"*"files of this node, b"* ]] || fail "$stderr"
    [[ $output == *"NETWORK red: 1 block of this node; the others are not known"* ]] || fail "$output"
    [[ $output == *"pool 0  10.9.0.0/24  253        –      –        –"* ]] || fail "$output"
    [[ $output == *"b     1       16         2     0     0     14    0         here "* ]] || fail "$output"
    run --separate-stderr weftctl b --output json ipam show --network red
    assert_equal "$status" 0
    assert_json '.[0].source' localFiles
    assert_json '.[0].owned' null
    assert_json '.[0].blocks | length' 1
    run --separate-stderr weftctl b ipam show --network blue
    assert_equal "$status" 1
    [[ $stderr == *"no files of network blue"* ]] || fail "$stderr"
    restart_consul
    run --separate-stderr weftctl b --output json ipam show
    assert_equal "$status" 0
    assert_json '.[0].source' cluster
}
