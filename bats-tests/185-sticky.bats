#!/usr/bin/env bats
# Addresses that an identity keeps, on one node and across nodes.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "stickySeconds": 3600}}'

setup_file() {
    local host
    NODE_TOML='[agent]\nsweep_grace = 2\n' start_cluster a b
    for host in a b; do
        add_container "$host" plain
        cni "$host" ADD plain eth0 "$NET"
    done
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# known_as IDENTITY [SECONDS]: the configuration for a container with a stable identity.
known_as() {
    jq --arg id "$1" --argjson keep "${2:-3600}" '.args.cni.sticky = $id | .ipam.stickySeconds = $keep' <<<"$NET"
}

add() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$3"
}

@test "an identity gets its address back on the same node, also while Consul is gone" {
    local ip
    add a first "$(known_as db-0)"
    ip=$(cni_ip a first)
    cni a DEL first eth0 "$(known_as db-0)"
    add a other "$NET"
    [[ $(cni_ip a other) != "$ip" ]]
    stop_consul
    add a second "$(known_as db-0)"
    assert_equal "$(cni_ip a second)" "$ip"
    cni a DEL second eth0 "$(known_as db-0)"
    restart_consul
}

@test "an identity takes its address along to another node, and back" {
    local ip
    add a web1 "$(known_as web-0)"
    ip=$(cni_ip a web1)
    cni a DEL web1 eth0 "$(known_as web-0)"
    add b web2 "$(known_as web-0)"
    assert_equal "$(cni_ip b web2)" "$ip"
    eventually 3 ping_from a plain "$ip"
    cni b DEL web2 eth0 "$(known_as web-0)"
    add_container a web3
    eventually 5 cni a ADD web3 eth0 "$(known_as web-0)"
    assert_equal "$(cni_ip a web3)" "$ip"
    eventually 3 ping_from b plain "$ip"
}

@test "while the address is in use, the identity is asked to wait" {
    local ip
    add a old "$(known_as cache-0)"
    ip=$(cni_ip a old)
    run add a new "$(known_as cache-0)"
    [[ $status != 0 ]]
    assert_json .code 11
    assert_json '.msg | contains("cache-0") and contains("'"$ip"'") and contains("old/eth0")' true
    run add b new "$(known_as cache-0)"
    [[ $status != 0 ]]
    assert_json .code 11
    cni a DEL old eth0 "$(known_as cache-0)"
    cni a ADD new eth0 "$(known_as cache-0)"
    assert_equal "$(cni_ip a new)" "$ip"
}

# shellcheck disable=SC2030
@test "a pod keeps its address by its namespace and name" {
    local conf ip
    conf=$(jq '.ipam.sticky = "pod"' <<<"$NET")
    export CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_INFRA_CONTAINER_ID=x'
    add a pod1 "$conf"
    ip=$(cni_ip a pod1)
    cni a DEL pod1 eth0 "$conf"
    add b pod2 "$conf"
    assert_equal "$(cni_ip b pod2)" "$ip"
}

# fail_add HOST CONTAINER CONF: an ADD that fails after its address was reserved: a route's next hop is out of reach.
fail_add() {
    # shellcheck disable=SC2030,SC2031
    run cni "$1" ADD "$2" eth0 "$(jq -c '.ipam.routes = [{dst: "1.0.0.0/8", gw: "9.9.9.9"}]' <<<"$3")"
    # shellcheck disable=SC2031
    [[ $status != 0 ]] || fail "the ADD went through"
    # shellcheck disable=SC2031
    [[ $output == *1.0.0.0/8* ]] || fail "$output"
}

@test "a failed ADD keeps no address for an identity that had none" {
    local before ip ipam
    add_container a failing
    for ipam in link exec; do
        use_ipam a "$ipam"
        before=$(in_host a ls /run/weft/networks/red/reservations)
        fail_add a failing "$(known_as "new-$ipam")"
        assert_equal "$(in_host a ls /run/weft/networks/red/reservations)" "$before"
        run -0 consul_cmd kv get -recurse weft/v1/
        [[ $output != *"new-$ipam"* ]] || fail "$output"
    done
    use_ipam a "$WEFT_TEST_IPAM"
    # One that had one before keeps it, here and on a node that only the store tells of it.
    cni a ADD failing eth0 "$(known_as steady)"
    ip=$(cni_ip a failing)
    cni a DEL failing eth0 "$(known_as steady)"
    fail_add a failing "$(known_as steady)"
    cni a ADD failing eth0 "$(known_as steady)"
    assert_equal "$(cni_ip a failing)" "$ip"
    cni a DEL failing eth0 "$(known_as steady)"
    add_container b failing
    fail_add b failing "$(known_as steady)"
    eventually 5 cni a ADD failing eth0 "$(known_as steady)"
    assert_equal "$(cni_ip a failing)" "$ip"
}

@test "an address is kept only for so long" {
    local ip
    add a brief "$(known_as job-0 1)"
    cni a DEL brief eth0 "$(known_as job-0 1)"
    forgotten() { ! in_host a sh -c 'grep -l job-0 /run/weft/networks/red/reservations/*'; }
    eventually 15 forgotten
    no_record() { ! consul_cmd kv get -recurse weft/v1/sticky/ | grep job-0; }
    eventually 5 no_record
}

@test "a reboot loses no identity's address" {
    local ip
    add a before "$(known_as mail-0)"
    ip=$(cni_ip a before)
    cni a DEL before eth0 "$(known_as mail-0)"
    stop_weftd a KILL
    # No container outlives a reboot, nor does its interface.
    # shellcheck disable=SC2016
    in_host a sh -c 'for end in /sys/class/net/wv*; do ip link delete "${end##*/}"; done'
    # shellcheck disable=SC2016
    in_host a sh -c 'rm -rf /run/weft/networks; ip link delete "wb$1"; ip link delete "wx$1"' sh "$(vni_of red)"
    start_weftd a
    for i in 1 2 3 4; do
        add a "filler$i" "$NET"
        [[ $(cni_ip a "filler$i") != "$ip" ]]
    done
    add a after "$(known_as mail-0)"
    assert_equal "$(cni_ip a after)" "$ip"
}
