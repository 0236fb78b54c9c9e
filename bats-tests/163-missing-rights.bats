#!/usr/bin/env bats
# A token that lacks one right: what does not need the right goes on.

load helpers

ROOT_TOKEN=1f0f6e7a-43a1-4d3a-9b8e-4d9e7a0c5b21

setup() {
    setup_underlay
    # Without a token, everything is allowed.
    CONSUL_HCL="acl { enabled = true, default_policy = \"allow\", tokens { master = \"$ROOT_TOKEN\" } }" start_consul
    eventually 20 as_root acl token list
    local host
    for host in a b; do
        add_host "$host"
        write_node_config "$host"
    done
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

CONF='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/16"}}'

# as_root ARGS...: the consul command line with the token that may do everything.
as_root() {
    CONSUL_HTTP_TOKEN=$ROOT_TOKEN consul_cmd "$@"
}

# deny HOST RULE...: gives the host a token with these rules, and all other rights.
deny() {
    local host=$1
    shift
    as_root acl policy create -name "of-$host-$BATS_TEST_NUMBER" -rules "$*" >/dev/null
    write_node_config "$host"
    printf 'token = "%s"\n' "$(as_root acl token create -policy-name "of-$host-$BATS_TEST_NUMBER" -format json |
        jq -r .SecretID)" >>"$(node_config "$host")"
}

# attach HOST CONTAINER
attach() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$CONF"
}

# knows_peers HOST
knows_peers() {
    [[ -n $(in_host "$1" ip neigh show dev "$(in_host "$1" sh -c 'ls /sys/class/net' | grep '^wb')" nud permanent) ]]
}

@test "an agent that may not see one shard of the revisions programs the peers of its networks" {
    attach a c
    attach b c
    local shard shards
    shards=$(consul_cmd kv get -keys weft/v1/revisions/ && consul_cmd kv get -keys -separator= weft/v1/revisions/)
    shard=$(grep -o '/[0-9a-f]/red' <<<"$shards" | head -1 | cut -c2)
    [[ -n $shard ]]
    deny a "key_prefix \"weft/v1/revisions/$shard/\" { policy = \"deny\" }"
    # shellcheck disable=SC2016
    in_host a sh -c 'ip neigh flush dev $(ls /sys/class/net | grep ^wb) nud permanent'
    run ! knows_peers a
    start_weftd a
    eventually 10 knows_peers a
    grep -q "watching revisions/$shard/: .*denies read" "$WEFT_TEST_DIR/logs/a.weftd.log"
    # What it is not told of it looks for.
    add_host d
    write_node_config d
    attach d c
    eventually 45 ping_from a c "$(cni_ip d c)"
}

@test "an agent that may not write its heartbeat leaves no sessions behind" {
    deny a 'key "weft/v1/alive/a" { policy = "read" }'
    start_weftd a
    sleep 5
    grep -q 'registering node a: .*denies write' "$WEFT_TEST_DIR/logs/a.weftd.log"
    run -0 in_machine underlay curl --silent "$(consul_url)/v1/session/list"
    local sessions
    sessions=$(jq length <<<"$output")
    ((sessions <= 1)) || fail "$sessions sessions"
}

@test "a removal that is cut short gives the name of a node with a damaged record to no other machine" {
    start_weftd b
    attach b c
    stop_weftd b
    consul_cmd kv put weft/v1/nodes/b '{}'
    deny a 'key_prefix "weft/v1/requests/" { policy = "deny" }'
    run ! weftctl a node remove b
    [[ $output == *denies* ]]
    start_weftd b
    attach b d
    daemon_runs b weftd
    local machine
    machine=$(in_host b cat /etc/machine-id)
    assert_equal "$(consul_cmd kv get weft/v1/nodes/b | jq -r .machineId)" "$machine"
    stop_weftd b
    consul_cmd kv put weft/v1/nodes/b '{}'
    write_node_config a
    weftctl a node remove b
    run ! consul_cmd kv get weft/v1/nodes/b
}
