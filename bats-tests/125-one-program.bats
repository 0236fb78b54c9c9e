#!/usr/bin/env bats
# weft-ipam in weft's process and in its own do the same: two hosts that differ in nothing else get the same calls,
# and after each of them output, messages, exit code and the files below /run/weft are compared.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/28", "routes": [{"dst": "0.0.0.0/0"}], "stickySeconds": 3600}}'
BOTH_FAMILIES='{"cniVersion": "1.0.0", "name": "both", "type": "weft", "ipam": {"type": "weft-ipam", "ranges":
    [[{"subnet": "10.8.0.0/24"}], [{"subnet": "fd00:8::/64"}]], "routes": [{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]}}'

setup_file() {
    setup_underlay
    local host
    for host in link exec; do
        add_host "$host"
        use_ipam "$host" "$host"
        # The node's name and its underlay show in what is compared.
        printf 'node = "n"\n[store]\ntype = "local"\n' >"$(node_config "$host")"
        in_machine "$host" ip route delete default
        in_machine "$host" ip link set eth0 down
        in_machine "$host" sysctl -qe -w net.ipv6.conf.all.disable_ipv6=0
        local container
        for container in c1 c2 c3 taken; do
            add_container "$host" "$container"
        done
        in_container "$host" taken ip link add eth0 type bridge
    done
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# said_by HOST VERB CONTAINER CONF: all that a call says.
said_by() {
    local errors=$WEFT_TEST_DIR/errors status=0
    cni "$@" 2>"$errors" || status=$?
    echo "exit $status"
    cat "$errors"
}

# files_of HOST: prints the files below /run/weft, without clocks and numbers of the kernel.
files_of() {
    # shellcheck disable=SC2016
    in_machine "$1" bash -euc '
        shopt -s globstar nullglob dotglob
        cd /run/weft
        for file in **; do
            [[ -f $file ]] || continue
            echo "$file: $(jq -Sce "walk(if type == \"object\"
                then del(.created, .until, .identity, .netns, .bridge, .incarnation) else . end)" "$file" 2>/dev/null ||
                cksum <"$file")"
        done' files
}

# same VERB CONTAINER [JQ [NET]]: the call says the same on both hosts, and leaves the same; output has what it says.
same() {
    local verb=$1 container=$2 conf host
    conf=$(jq "${3:-.}" <<<"${4:-$NET}") || return 1
    local -A said files
    for host in link exec; do
        said[$host]=$(said_by "$host" "$verb" "$container" eth0 "$conf")
        files[$host]=$(files_of "$host")
    done
    assert_equal "${said[link]}" "${said[exec]}" "what $verb of $container says in one process, ${3:-}" || return 1
    assert_equal "${files[link]}" "${files[exec]}" "what $verb of $container leaves in one process, ${3:-}" || return 1
    output=${said[link]}
}

# says WORDS: the last call said this.
says() {
    [[ $output == *"$1"* ]] || fail "it does not say '$1':" "$output"
}

# previous CONTAINER [JQ]: the configuration with the container's result, which JQ may change.
previous() {
    jq --slurpfile result "$(cni_result_file link "$1" eth0)" ".prevResult = \$result[0] | ${2:-.}" <<<"$NET"
}

@test "runs weft-ipam in one process on one host, and in two on the other" {
    local weft ipam host
    for host in link exec; do
        weft=$(in_machine "$host" stat -Lc %d:%i /opt/cni/bin/weft)
        ipam=$(in_machine "$host" stat -Lc %d:%i /opt/cni/bin/weft-ipam)
        case $host in
        link) assert_equal "$ipam" "$weft" ;;
        exec) [[ $ipam != "$weft" ]] ;;
        esac
    done
}

@test "ADD, CHECK and DEL give the same in one process and in two, first and again" {
    same ADD c1
    says '"address":"10.9.0.3/28"'
    same CHECK c1 . "$(previous c1)"
    says 'exit 0'
    # It is there already and keeps its address.
    same ADD c1
    says 'DEL it first'
    same CHECK c1 . "$(previous c1 '.prevResult.ips[0].address = "10.9.0.9/28"')"
    says '"code":100'
    same CHECK c1
    says 'prevResult is missing'
    same STATUS c1 '.cniVersion = "1.1.0"'
    same DEL c1 . "$(previous c1)"
    same CHECK c1 . "$(previous c1)"
    says 'holds no address'
    same DEL c1
    says 'exit 0'
}

@test "results of every version are the same in one process and in two" {
    local version
    for version in 0.1.0 0.2.0 0.3.1 0.4.0 1.0.0 1.1.0; do
        same ADD c1 ".cniVersion = \"$version\"" "$BOTH_FAMILIES"
        says 'exit 0'
        same DEL c1 ".cniVersion = \"$version\"" "$BOTH_FAMILIES"
    done
    same ADD c1 '.cniVersion = "9.9.9"'
    says '"code":1'
    same CHECK c1 '.cniVersion = "0.3.1"'
    same STATUS c1
    same GC c1
    says '"code":1'
}

@test "requested addresses are given and refused alike" {
    local address
    same ADD c1 '.runtimeConfig.ips = ["10.9.0.10"]'
    says 10.9.0.10
    for address in 10.9.0.10 10.9.0.0 10.9.0.1 10.9.0.15 10.8.0.1 x; do
        same ADD c2 ".runtimeConfig.ips = [\"$address\"]"
        says '"code":'
    done
    same ADD c2 '.runtimeConfig.ips = ["10.9.0.11", "10.9.0.12"]'
    same ADD c2 '.runtimeConfig.ips = "10.9.0.11"'
    same ADD c2 '.args.cni.ips = [5]'
    CNI_ARGS='IP=10.9.0.11' same ADD c2
    says 10.9.0.11
    CNI_ARGS='IP' same DEL c2
    says '"code":4'
    same DEL c2
    same DEL c1
}

@test "identities keep their addresses alike" {
    same ADD c1 '.args.cni.sticky = "db-0"'
    same ADD c2 '.args.cni.sticky = "db-0"'
    same DEL c1 '.args.cni.sticky = "db-0"'
    same ADD c2 '.args.cni.sticky = "db-0"'
    same DEL c2 '.args.cni.sticky = "db-0"'
    same ADD c2 '.args.cni.sticky = 5'
    CNI_ARGS='K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0' same ADD c3 '.ipam.sticky = "pod"'
    CNI_ARGS='K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web-0' same DEL c3 '.ipam.sticky = "pod"'
    same ADD c3 '.ipam.sticky = "name"'
}

@test "configurations that cannot be are refused alike" {
    local jq
    for jq in '.ipam.subnet = "10.9.0.1/24"' '.ipam.subnet = 7' '.ipam.subnet = "10.7.0.0/24"' '.ipam.routes = 5' \
        '.ipam.exclude = ["x"]' '.ipam.gateway = "10.9.0.9"' '.name = "a/b"' '.name = "unknown" | del(.ipam.subnet)' \
        '.ipam.type = "no-such-plugin"' '.ipam = 5' 'del(.ipam)' '.vni = 0' '.mtu = "x"'; do
        same ADD c1 "$jq"
        same DEL c1 "$jq"
        same STATUS c1 "$jq | .cniVersion = \"1.1.0\""
    done
}

@test "an ADD that fails after it got an address gives it back" {
    same ADD taken
    says 'weft has not made it'
    [[ $(files_of link) != *reservations/taken* ]]
    same ADD c1 '.runtimeConfig.mac = "01:00:5e:00:00:01"'
    CNI_NETNS=/nonexistent same ADD c1
    says '"code":8'
    # The kernel refuses a route by a next hop that no subnet holds.
    same ADD c1 '.ipam.routes = [{"dst": "192.168.0.0/16", "gw": "172.16.0.1"}]'
    says '"code":5'
    [[ $(files_of link) != *reservations/c1@* ]]
    run in_container link c1 ip link show eth0
    [[ $status != 0 ]]
}

@test "a network without room is reported alike" {
    local i host
    # One of 16 is the network's, one broadcast, one the gateway's, one the node's; and one may be kept for db-0.
    for i in {1..12}; do
        for host in link exec; do
            add_container "$host" "full$i" 2>/dev/null || true
        done
        same ADD "full$i"
    done
    says '"code":11'
    same STATUS c1 '.cniVersion = "1.1.0"'
    same GC c1 '.cniVersion = "1.1.0" | ."cni.dev/valid-attachments" = 5'
    says '"code":7'
    same GC c1 '.cniVersion = "1.1.0"'
    same GC c1 '.cniVersion = "1.1.0" | ."cni.dev/valid-attachments" = [{"containerID": "full1", "ifname": "eth0"}]'
    for host in link exec; do
        for i in 2 3 4; do
            remove_container "$host" "full$i"
        done
    done
    same GC c1 '.cniVersion = "1.1.0" | ."cni.dev/valid-attachments" = [{"containerID": "full1", "ifname": "eth0"}]'
    [[ $(files_of link) == *full1@eth0* && $(files_of link) != *full3@eth0* ]]
    for i in {1..12}; do
        same DEL "full$i"
    done
}

@test "damaged files are reported alike" {
    local host
    damage() {
        for host in link exec; do
            # shellcheck disable=SC2016
            in_machine "$host" sh -euc 'cd /run/weft/networks/red; echo "$2" >"$1"' damage "$1" "$2"
        done
    }
    same ADD c1
    damage reservations/c1@eth0 '{"holder":'
    same ADD c1
    same CHECK c1 . "$(previous c1)"
    same DEL c1
    says 'exit 0'
    damage index junk
    same ADD c1
    says 'exit 0'
    damage network.json '{'
    same ADD c2
    says 'exit 0'
    damage network.json '{'
    same DEL c2
    same DEL c1
    for host in link exec; do
        echo 'node = 5' >>"$(node_config "$host")"
    done
    same ADD c1
    says '"code":7'
    same DEL c1
    for host in link exec; do
        sed -i '$d' "$(node_config "$host")"
    done
    same ADD c1
    same DEL c1
}
