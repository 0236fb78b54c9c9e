#!/usr/bin/env bats
# A node that was removed from the cluster while it was cut off, and whose own address went to another node.

load helpers

setup() {
    start_cluster a b
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

CONF='{"cniVersion": "1.1.0", "name": "red", "type": "weft",
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/28", "blockBits": 2}}'

# attach HOST CONTAINER
attach() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$CONF"
}

# addresses_of HOST: prints the addresses of the network that the host has, without the gateway.
addresses_of() {
    in_host "$1" ip --json address show dev "wb$(consul_cmd kv get weft/v1/networks/red | jq .vni)" |
        jq -r '.[].addr_info[] | select(.family == "inet" and .local != "10.9.0.1") | .local'
}

has_no_address() {
    [[ -z $(addresses_of "$1") ]] || fail "$(addresses_of "$1")"
}

has_address() {
    [[ -n $(addresses_of "$1") ]]
}

# cut_off HOST: the agent stands still, its session ends, and the node is removed.
cut_off() {
    pause_daemon "$1" weftd
    local session
    for session in $(consul_cmd kv get -detailed "weft/v1/alive/$1" | awk '$1 == "Session" {print $2}'); do
        in_machine underlay curl --silent -X PUT "$(consul_url)/v1/session/destroy/$session"
    done
    weftctl a node remove "$1"
}

@test "a host gives an address up that is another node's, although there is no other, and takes one later" {
    attach b c
    attach a c
    local lost i
    lost=$(addresses_of b)
    [[ -n $lost ]]
    cut_off b
    for i in {1..11}; do
        attach a "f$i" || true
    done
    in_host a grep -rlF "\"$lost\"" /run/weft/networks/red/reservations
    resume_daemon b weftd
    eventually 15 has_no_address b
    # Packets to the address leave the host.
    run -0 in_host b ip route get "$lost"
    [[ $output != local* ]]
    cni b DEL c eth0 "$CONF"
    run ! cni b STATUS c eth0 "$CONF"
    assert_json .code 51
    run weftctl b ipam check --output json
    assert_json 'any(.[]; .kind == "hostAddress")' true
    sleep 5
    assert_equal "$(grep -c 'there is no address for this host' "$WEFT_TEST_DIR/logs/b.weftd.log")" 1 "number of reports"
    weftctl a network extend red --subnet 10.8.0.0/28 --block-bits 2
    eventually 75 has_address b
    cni b STATUS c eth0 "$CONF"
}
