#!/usr/bin/env bats
# Every file of conf-examples/ does what the documentation says of it, when it is used as it is.

load helpers

EXAMPLES=$WEFT_REPO/conf-examples
# The token that may do everything on the Consul that has ACLs.
ROOT_TOKEN=11111111-1111-1111-1111-111111111111

setup() {
    setup_underlay
    add_host a
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# plugin_conf CONFLIST INDEX [JQ]: prints what a runtime makes of a plugin's entry, changed by a jq filter.
plugin_conf() {
    jq --argjson index "$2" '{cniVersion, name} + .plugins[$index] | del(.capabilities) | '"${3:-.}" "$EXAMPLES/$1"
}

# reservations NETWORK: prints who holds an address on host a.
reservations() {
    in_host a find "/run/weft/networks/$1/reservations" -type f -not -name "@*" -printf '%f\n'
}

# add_and_delete CONFLIST: ADD gives an address of the file's first subnet, CHECK agrees, DEL gives it back.
add_and_delete() {
    local conf name
    conf=$(plugin_conf "$1" 0)
    name=$(jq -r .name <<<"$conf")
    add_container a box
    run cni a ADD box eth0 "$conf"
    [[ $status == 0 ]] || fail "$output" || return 1
    assert_equal "$(reservations "$name")" box@eth0
    cni a CHECK box eth0 "$(with_prev_result a box eth0 "$conf")"
    cni a DEL box eth0 "$(with_prev_result a box eth0 "$conf")"
    assert_equal "$(reservations "$name")" ""
    run ! in_container a box ip link show eth0
}

# use_node_config EXAMPLE: makes it the configuration of host a.
use_node_config() {
    cp "$EXAMPLES/$1" "$(node_config a)"
}

@test "ovnet1.conflist: gives an address and a way out, and leaves nothing afterwards" {
    add_and_delete ovnet1.conflist
    cni a ADD box eth0 "$(plugin_conf ovnet1.conflist 0)"
    [[ $(cni_ip a box) == 10.9.* ]]
    ping_from a box "$WEFT_OUTSIDE_IP"
}

@test "dual-stack.conflist: gives an address of each family, both with a gateway" {
    local conf six
    add_and_delete dual-stack.conflist
    conf=$(plugin_conf dual-stack.conflist 0)
    run cni a ADD box eth0 "$conf"
    assert_json '[.ips[].gateway] | sort | join(" ")' "10.10.0.1 fd00:10::1"
    six=$(jq -r '.ips[1].address | sub("/.*"; "")' <<<"$output")
    ping_from a box 10.10.0.1
    eventually 5 in_container a box busybox ping -6 -c 1 -W 1 fd00:10::1
    add_container a second
    cni a ADD second eth0 "$conf"
    eventually 5 in_container a second busybox ping -6 -c 1 -W 1 "$six"
}

@test "dual-stack.conflist: IPv6 crosses the tunnel" {
    local host conf
    start_consul
    add_host b
    conf=$(plugin_conf dual-stack.conflist 0)
    for host in a b; do
        write_node_config "$host"
        start_weftd "$host"
        add_container "$host" box
        cni "$host" ADD box eth0 "$conf"
    done
    local six
    six=$(jq -r '.ips[1].address | sub("/.*"; "")' "$(cni_result_file b box eth0)")
    eventually 5 in_container a box busybox ping -6 -c 1 -W 1 "$six"
    ping_from a box "$(cni_ip b box)"
}

@test "name-only.conflist: asks for the network, and takes it as weftctl made it" {
    local conf
    conf=$(plugin_conf name-only.conflist 0)
    add_container a early
    run cni a ADD early eth0 "$conf"
    [[ $status != 0 ]]
    assert_json '.msg | contains("weftctl network create shared")' true
    weftctl a network create shared --subnet 10.14.0.0/16
    add_and_delete name-only.conflist
    cni a ADD box eth0 "$conf"
    [[ $(cni_ip a box) == 10.14.* ]]
    ping_from a box "$WEFT_OUTSIDE_IP"
}

@test "internal.conflist: connects neighbours and nothing else" {
    local conf
    add_and_delete internal.conflist
    conf=$(plugin_conf internal.conflist 0)
    cni a ADD box eth0 "$conf"
    add_container a second
    cni a ADD second eth0 "$conf"
    ping_from a second "$(cni_ip a box)"
    run ! ping_from a box "$WEFT_OUTSIDE_IP"
    run ! ping_from a - "$(cni_ip a box)"
}

@test "bridge-with-weft-ipam.conflist: gives the reference bridge addresses of weft's" {
    add_and_delete bridge-with-weft-ipam.conflist
    cni a ADD box eth0 "$(plugin_conf bridge-with-weft-ipam.conflist 0)"
    local ip
    ip=$(cni_ip a box)
    [[ $ip == 10.12.* && $ip != 10.12.0.* && $ip != 10.12.7.* ]]
    ping_from a box 10.12.0.1
}

@test "sticky-pods.conflist: a pod gets its address back, and no other container gets it meanwhile" {
    local conf ip
    export CNI_ARGS="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0"
    add_and_delete sticky-pods.conflist
    ip=$(cni_ip a box)
    conf=$(plugin_conf sticky-pods.conflist 0)
    add_container a other
    CNI_ARGS="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1" cni a ADD other eth0 "$conf"
    [[ $(cni_ip a other) != "$ip" ]]
    cni a ADD box eth0 "$conf"
    assert_equal "$(cni_ip a box)" "$ip"
    ping_from a box "$WEFT_OUTSIDE_IP"
}

@test "weft-with-portmap.conflist: a port of the host leads to the container, and is closed afterwards" {
    local weft portmap result mappings
    mappings='{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'
    weft=$(plugin_conf weft-with-portmap.conflist 0 '.runtimeConfig = {"ips": ["10.13.0.77"], "mac": "02:00:00:00:00:77"}')
    portmap=$(plugin_conf weft-with-portmap.conflist 1 ".runtimeConfig = $mappings")
    add_container a box
    result=$(cni a ADD box eth0 "$weft")
    assert_equal "$(cni_ip a box)" 10.13.0.77
    portmap=$(jq --argjson result "$result" '.prevResult = $result' <<<"$portmap")
    cni a ADD box eth0 "$portmap"
    run in_container a box ip -j link show eth0
    assert_json '.[0] | "\(.address) \(.mtu)"' "02:00:00:00:00:77 1400"
    in_host a ip link show wb4200

    echo "it works" >"$WEFT_TEST_DIR/index.html"
    start_daemon a httpd nsenter --net=/run/netns/box busybox httpd -f -p 80 -h "$WEFT_TEST_DIR"
    eventually 5 in_machine underlay curl --silent --fail --max-time 2 "http://$(underlay_ip a):8080/index.html"
    # hairpinMode: the container reaches itself by way of the host's port.
    in_container a box curl --silent --fail --max-time 5 "http://$(underlay_ip a):8080/index.html"

    cni a DEL box eth0 "$portmap"
    cni a DEL box eth0 "$(jq --argjson result "$result" '.prevResult = $result' <<<"$weft")"
    assert_equal "$(reservations web)" ""
    run ! in_machine underlay curl --silent --fail --max-time 2 "http://$(underlay_ip a):8080/index.html"
}

@test "weft.toml: all programs read it, and it names Consul" {
    use_node_config weft.toml
    run weftctl a --config /etc/weft/weft.toml network list
    # There is no Consul at the example's address: that it is asked for one shows that the file was understood.
    [[ $status != 0 && $output == *"Consul at http://127.0.0.1:8500 cannot be used now"* ]] || fail "$output"
    add_container a box
    run cni a ADD box eth0 "$(plugin_conf ovnet1.conflist 0)"
    assert_json .code 11
    start_weftd a
    eventually 5 grep -q 'Consul at http://127.0.0.1:8500' "$WEFT_TEST_DIR/logs/a.weftd.log"
    daemon_runs a weftd
}

@test "weft.toml: every key that is commented out is one that weft knows" {
    sed -E 's/^#([a-z_]+ = )/\1/; /^underlay = "198/d; s#/etc/weft/consul[^"]*#/nonexistent#' \
        "$EXAMPLES/weft.toml" >"$(node_config a)"
    run weftctl a network list
    # Not one of the keys is refused; the underlay is not looked at, nor TLS with an http address.
    [[ $output == *"Consul at http://127.0.0.1:8500 cannot be used now"* ]] || fail "$output"
}

@test "weft-single-host.toml: is the same as no file" {
    use_node_config weft-single-host.toml
    add_and_delete ovnet1.conflist
    run weftctl a network list
    [[ $output == *ovnet1* ]]
    in_host a test -e /var/lib/weft/store/store.json
    rm "$(node_config a)"
    run weftctl a network list
    [[ $output == *ovnet1* ]]
}

@test "consul-policy.hcl: is enough for a node, and no more than it needs" {
    local token url
    start_consul_with_acls
    url=$(consul_url acl)
    as_root acl policy create -name weft-node -rules "@$EXAMPLES/consul-policy.hcl"
    token=$(as_root acl token create -policy-name weft-node -format json | jq -r .SecretID)
    write_node_config a acl
    echo "token = \"$token\"" >>"$(node_config a)"
    start_weftd a
    add_and_delete ovnet1.conflist
    eventually 5 agent_is_alive
    weftctl a network create other --subnet 10.15.0.0/16
    weftctl a network remove other
    # A restarted agent takes its predecessor's heartbeat over.
    stop_weftd a KILL
    start_weftd a
    eventually 5 agent_is_alive
    run ! in_host a curl --silent --fail -X PUT -d x -H "X-Consul-Token: $token" "$url/v1/kv/elsewhere"

    sed -i '/^token/d' "$(node_config a)"
    local command
    for command in "inspect ovnet1" "create third --subnet 10.16.0.0/16"; do
        # shellcheck disable=SC2086
        run weftctl a network $command
        [[ $status != 0 && $output == *"check the token and its policies"* ]] || fail "$command: $output"
    done
}

start_consul_with_acls() {
    local ip
    mkdir -p "$WEFT_TEST_DIR/consul/acl"
    ip=$(underlay_address 250)
    echo "$ip" >"$WEFT_TEST_DIR/consul/acl/ip"
    in_machine underlay ip address add "$ip/32" dev br0
    start_daemon underlay acl "$WEFT_TEST_CONSUL" agent -server -bootstrap-expect=1 -node=acl -bind="$ip" \
        -client="$ip" -data-dir="$WEFT_TEST_DIR/consul/acl/data" -log-level=warn -hcl "
            performance { raft_multiplier = 1 }
            ports { dns = -1 }
            disable_update_check = true
            acl { enabled = true, default_policy = \"deny\", tokens { master = \"$ROOT_TOKEN\" } }"
    eventually 20 as_root acl token list
    eventually 20 in_machine underlay sh -c "curl --silent --fail -H 'X-Consul-Token: $ROOT_TOKEN' \
        '$(consul_url acl)/v1/health/node/acl' | jq --exit-status 'any(.Status == \"passing\")'"
}

# as_root ARGS...: the consul command line with the token that may do everything.
as_root() {
    CONSUL_HTTP_TOKEN=$ROOT_TOKEN CONSUL_NAME=acl consul_cmd "$@"
}

agent_is_alive() {
    weftctl a --output json node list | jq --exit-status 'any(.alive)'
}

@test "weftd.service: systemd accepts it, and weftd works with the rights that it leaves" {
    local unit=$WEFT_TEST_DIR/weftd.service bound
    sed "s#/usr/local/sbin/weftd#$WEFT_BIN_DIR/weftd#" "$EXAMPLES/weftd.service" >"$unit"
    if command -v systemd-analyze >/dev/null; then
        run systemd-analyze verify --man=no "$unit"
        assert_equal "$status $output" "0 "
    fi
    start_consul
    add_host b
    write_node_config a
    write_node_config b
    add_container a box
    cni a ADD box eth0 "$(plugin_conf ovnet1.conflist 0)"
    bound=$(sed -n 's/^CapabilityBoundingSet=CAP_//p' "$unit" | sed 's/ CAP_/,+/g')
    start_daemon a weftd setpriv --bounding-set "-all,+${bound,,}" --inh-caps "-all" --no-new-privs \
        "$WEFT_BIN_DIR/weftd"
    # A peer comes, and the bridge breaks: both are weftd's to notice.
    add_container b box
    cni b ADD box eth0 "$(plugin_conf ovnet1.conflist 0)"
    eventually 5 ping_from a box "$(cni_ip b box)"
    in_host a ip link delete "wx$(vni_of ovnet1)"
    eventually 5 ping_from a box "$(cni_ip b box)"
    in_host a grep -q "^CapBnd:.*0000000000081000$" "/proc/$(<"$WEFT_TEST_DIR/machines/a/weftd.pid")/status"
}

@test "docs/configuration.md: names every key of the examples" {
    local key missing=()
    while read -r key; do
        grep -q "\`[a-zA-Z_.]*\b$key\`" "$WEFT_REPO/docs/configuration.md" || missing+=("$key")
    done < <(
        jq -r '.plugins[] | select(.type == "weft"), {ipam: .ipam} |
            paths | map(select(type == "string")) | last' "$EXAMPLES"/*.conflist | sort -u
        sed -nE 's/^#?([a-z_]+) = .*/\1/p' "$EXAMPLES/weft.toml" | sort -u
    )
    [[ ${#missing[@]} == 0 ]] || fail "not in the documentation: ${missing[*]}"
}

@test "docs/configuration.md: a wrong value of each documented key is refused by name, so each key is known" {
    local section key value known=0
    add_container a box
    while read -r section key value; do
        run cni a ADD box eth0 "$(plugin_conf ovnet1.conflist 0 \
            "if \"$section\" == \"ipam\" then .ipam[\"$key\"] = $value else .[\"$key\"] = $value end")"
        [[ $status != 0 ]] || fail "$section $key $value was taken"
        assert_json .code 7
        [[ $(jq -r .msg <<<"$output") == "$key "* ]] || fail "$key: $output"
        known=$((known + 1))
    done < <(documented_keys)
    ((known >= 13)) || fail "only $known keys were found in the documentation"
}

# documented_keys: prints the section, the name and a value of a wrong type, `[[7]]`, for each row of the tables of
# network keys in the documentation.
documented_keys() {
    awk -F '`' '
        /^## / { wanted = /The network configuration/ }
        wanted && /^\| `/ && $2 !~ /^(cniVersion|name|type|ipam.type|dns.*|capabilities|ipam)$/ {
            key = $2
            section = sub(/^ipam\./, "", key) ? "ipam" : "main"
            print section, key, "[[7]]"
        }' "$WEFT_REPO/docs/configuration.md"
}

@test "docs/troubleshooting.md: every message is one that a program says" {
    local fragment known=0 unknown=()
    while read -r fragment; do
        if grep -aqF -- "$fragment" "$WEFT_BIN_DIR"/weft{,-ipam,d,ctl}; then
            known=$((known + 1))
        else
            unknown+=("$fragment")
        fi
    done < <(documented_messages)
    [[ ${#unknown[@]} == 0 ]] || fail "no program says: $(printf '\n  %s' "${unknown[@]}")"
    ((known >= 40)) || fail "only $known messages were found in the documentation"
}

# documented_messages: prints what stands between the places of values, one piece a line. Short pieces are left out:
# programs put some of them together from parts.
documented_messages() {
    # shellcheck disable=SC2016
    sed -n '/^## Error messages/,$ s/^| \(`[^|]*\) |.*/\1/p' "$WEFT_REPO/docs/troubleshooting.md" |
        cut -d '|' -f 1 | grep -o '`[^`]*`' | tr -d '`' | sed 's/…/\n/g; s/<[a-z]*>/\n/g' |
        sed 's/^ *//; s/ *$//' | grep -E '.{16}'
}
