#!/usr/bin/env bats
# What a plugin says to input that it cannot use: the code that the CNI specification has for it, as one JSON
# object on standard output, and nothing is left of the attempt. Each line of a test is one input and its code:
#
#   1 version   4 environment   5 input/output   6 no JSON   7 configuration   8 network namespace   11 try later

load helpers

# Complete and correct: each test breaks one thing of it.
GOOD='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'

setup_file() {
    setup_underlay
    add_host a
    printf '[store]\ntype = "local"\n' >"$(node_config a)"
    add_container a box
    # What a configuration may collide with.
    weftctl a network create other --subnet 10.8.0.0/16 --vni 5001
}

setup() {
    PLUGINS=(weft weft-ipam)
}

teardown() {
    dump_logs_of_failed_test
    # A test that found something left behind should not make the next ones find it too.
    CNI_NETNS='' cni a DEL box eth0 "$GOOD"
    CNI_NETNS='' cni a DEL holder eth0 "$GOOD"
    weftctl a network remove red --force 2>/dev/null || true
}

teardown_file() {
    teardown_underlay
}

# call PLUGIN INPUT [VARIABLE=VALUE...]: execs the plugin for an ADD to the container, unless the variables say
# otherwise, with the file INPUT on standard input. Leaves output, stderr and status, like `run`.
call() {
    local plugin=$1 input=$2
    shift 2
    run --separate-stderr in_machine a env CNI_COMMAND=ADD CNI_CONTAINERID=box CNI_IFNAME=eth0 \
        CNI_NETNS=/run/netns/box CNI_PATH=/opt/cni/bin "$@" "/opt/cni/bin/$plugin" <"$input"
}

# traces: prints all that an ADD can leave behind: networks, interfaces, reservations.
traces() {
    # shellcheck disable=SC2016
    in_host a sh -c '"$0" network list; ls /sys/class/net; ip -netns box -brief link show
        find /run/weft/networks/*/reservations 2>/dev/null' "$WEFT_BIN_DIR/weftctl" || true
}

# refuses CODE MSG INPUT [VARIABLE=VALUE...]: each of PLUGINS must answer the file INPUT with CODE, say MSG, and leave
# everything as it was.
refuses() {
    local code=$1 msg=$2 input=$3 plugin before case
    shift 3
    before=$(traces)
    for plugin in "${PLUGINS[@]}"; do
        case="$plugin $* <<<$(head -c 300 "$input" | tr -d '\0')"
        call "$plugin" "$input" "$@"
        [[ $status != 0 ]] || fail "$case succeeded:" "$output" || return 1
        ((status < 124)) || fail "$case ended with status $status" || return 1
        # shellcheck disable=SC2154 # `run` sets it
        [[ $stderr != *panicked* ]] || fail "$case:" "$stderr" || return 1
        jq -se 'length == 1 and (.[0] | (.cniVersion | strings | length > 0) and (.msg | strings | length > 0))' \
            <<<"$output" >/dev/null || fail "$case printed no error object:" "$output" || return 1
        assert_equal "$(jq .code <<<"$output")" "$code" "code of $case: ${output:0:600}" || return 1
        [[ $(jq -r '"\(.msg); \(.details)"' <<<"$output") == *"$msg"* ]] ||
            fail "$case does not say '$msg':" "$output" || return 1
        assert_equal "$(traces)" "$before" "what is there after $case" || return 1
    done
}

# refuses_env CODE MSG VARIABLE=VALUE...: the same, the configuration being in order.
refuses_env() {
    local code=$1 msg=$2
    shift 2
    printf '%s' "$GOOD" >"$BATS_TEST_TMPDIR/input"
    refuses "$code" "$msg" "$BATS_TEST_TMPDIR/input" "$@"
}

# refuses_text CODE MSG TEXT: the same for a text on standard input; printf's escapes are understood.
refuses_text() {
    printf '%b' "$3" >"$BATS_TEST_TMPDIR/input"
    refuses "$1" "$2" "$BATS_TEST_TMPDIR/input"
}

# refuses_conf CODE MSG CHANGE [VARIABLE=VALUE...]: the same for the good configuration after a change, written for jq.
refuses_conf() {
    local code=$1 msg=$2 change=$3
    shift 3
    jq "$change" <<<"$GOOD" >"$BATS_TEST_TMPDIR/input"
    refuses "$code" "$msg" "$BATS_TEST_TMPDIR/input" "$@"
}

@test "the good configuration is accepted" {
    cni a ADD box eth0 "$GOOD"
    cni a DEL box eth0 "$GOOD"
}

@test "a missing variable is named" {
    local verb
    for verb in ADD CHECK; do
        refuses_env 4 '[CNI_CONTAINERID] missing' CNI_COMMAND=$verb CNI_CONTAINERID=
        refuses_env 4 '[CNI_NETNS] missing' CNI_COMMAND=$verb CNI_NETNS=
        refuses_env 4 '[CNI_IFNAME] missing' CNI_COMMAND=$verb CNI_IFNAME=
    done
    refuses_env 4 '[CNI_CONTAINERID] missing' CNI_COMMAND=DEL CNI_CONTAINERID=
    refuses_env 4 '[CNI_IFNAME] missing' CNI_COMMAND=DEL CNI_IFNAME=
    refuses_env 4 '[CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing' CNI_CONTAINERID= CNI_NETNS= CNI_IFNAME=
    PLUGINS=(weft)
    for verb in ADD DEL CHECK; do
        refuses_env 4 CNI_PATH CNI_COMMAND=$verb CNI_PATH=
    done
}

@test "an unknown command is named" {
    refuses_env 4 'unknown CNI_COMMAND: add' CNI_COMMAND=add
    refuses_env 4 'unknown CNI_COMMAND: UPDATE' CNI_COMMAND=UPDATE
    refuses_env 4 'unknown CNI_COMMAND: ADD ' 'CNI_COMMAND=ADD '
}

@test "without any command a plugin tells a person what it is" {
    local plugin
    for plugin in weft weft-ipam; do
        call "$plugin" /dev/null CNI_COMMAND=
        assert_equal "$status:$output" 0:
        [[ $stderr == "CNI plugin $plugin v"*'0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0' ]]
    done
}

@test "container ids that break the rule are refused" {
    local id
    for id in ../etc -a .a a/b 'a b' a@b é $'a\nb' $'\xff'; do
        refuses_env 4 CNI_CONTAINERID "CNI_CONTAINERID=$id"
        refuses_env 4 CNI_CONTAINERID "CNI_CONTAINERID=$id" CNI_COMMAND=DEL
    done
}

@test "interface names that the kernel does not take, or takes for a pattern, are refused" {
    local name
    for name in . .. a/b a:b 'a b' $'a\tb' $'a\n' sixteen-letters- ééééééééé eth%d $'\xff'; do
        refuses_env 4 CNI_IFNAME "CNI_IFNAME=$name"
        refuses_env 4 CNI_IFNAME "CNI_IFNAME=$name" CNI_COMMAND=DEL
    done
}

@test "CNI_ARGS that cannot be read are refused" {
    refuses_env 4 CNI_ARGS CNI_ARGS=IP
    refuses_env 4 CNI_ARGS CNI_ARGS=A=B=C
    PLUGINS=(weft)
    refuses_env 4 02:42 CNI_ARGS=MAC=02:42
    refuses_env 4 00:00:00:00:00:00 CNI_ARGS=MAC=00:00:00:00:00:00
    refuses_env 4 01:00:5e:00:00:01 CNI_ARGS=MAC=01:00:5e:00:00:01
}

@test "a sandbox that is no network namespace, or the host's own, is refused" {
    PLUGINS=(weft)
    in_host a sh -c 'touch /run/file; mkfifo /run/fifo; ln -s /run/nowhere /run/dangling'
    refuses_env 8 /run/nowhere CNI_NETNS=/run/nowhere
    refuses_env 8 /run/dangling CNI_NETNS=/run/dangling
    refuses_env 8 /run/file CNI_NETNS=/run/file
    refuses_env 8 /run/fifo CNI_NETNS=/run/fifo
    refuses_env 8 /run CNI_NETNS=/run
    refuses_env 8 'namespace of another kind' CNI_NETNS=/proc/self/ns/mnt
    refuses_env 8 /proc/self/ns/net CNI_NETNS=/proc/self/ns/net
}

@test "standard input that is not a JSON object is refused" {
    refuses_text 6 '' ''
    refuses_text 6 '' ' \n'
    refuses_text 6 '' 'name = red'
    refuses_text 6 '' '{"name": "red"'
    refuses_text 6 '' '{"name": "red"} {}'
    refuses_text 6 '' '{"name": "red\0"}'
    refuses_text 6 '' '\0\0\0\0'
    refuses_text 6 '' '{"name": "\xff\xfe"}'
    refuses_text 6 object '[]'
    refuses_text 6 object '"red"'
    refuses_text 6 object 7
    refuses_text 6 object null
}

@test "too much on standard input is refused" {
    local input=$BATS_TEST_TMPDIR/input
    head -c 1M /dev/urandom >"$input"
    refuses 6 '' "$input"
    head -c 1M /dev/zero >"$input"
    refuses 6 '' "$input"
    head -c 1M /dev/zero | tr '\0' '[' >"$input"
    refuses 6 '' "$input"
    printf '{"name": "red", "deep": %s%s}' "$(printf '[%.0s' {1..5000})" "$(printf ']%.0s' {1..5000})" >"$input"
    refuses 6 '' "$input"
    printf '{"cniVersion": "1.0.0", "name": "%s"}' "$(head -c 1M /dev/zero | tr '\0' x)" >"$input"
    refuses 7 '' "$input"
}

@test "versions that weft does not speak are refused" {
    refuses_conf 1 'config is "9.9.9", plugin supports ["0.1.0"' '.cniVersion = "9.9.9"'
    refuses_conf 1 'config is "1.0"' '.cniVersion = "1.0"'
    refuses_conf 1 'config is "v1.0.0"' '.cniVersion = "v1.0.0"'
    refuses_conf 7 cniVersion '.cniVersion = 1'
}

@test "verbs that the configuration's version does not have are refused" {
    refuses_conf 1 CHECK '.cniVersion = "0.3.1"' CNI_COMMAND=CHECK
    refuses_conf 1 CHECK 'del(.cniVersion)' CNI_COMMAND=CHECK
    refuses_conf 1 GC '.cniVersion = "1.0.0"' CNI_COMMAND=GC
    refuses_conf 1 STATUS '.cniVersion = "1.0.0"' CNI_COMMAND=STATUS
}

@test "network names that break the rule are refused" {
    refuses_conf 7 name 'del(.name)'
    refuses_conf 7 name '.name = ""'
    refuses_conf 7 name '.name = null'
    refuses_conf 7 name '.name = 7'
    refuses_conf 7 ../red '.name = "../red"'
    refuses_conf 7 .red '.name = ".red"'
    refuses_conf 7 'red blue' '.name = "red blue"'
    refuses_conf 7 rød '.name = "rød"'
    refuses_conf 7 200 '.name = "x" * 201'
}

@test "a key whose value is of the wrong type is named with its value" {
    local key
    refuses_conf 7 'type 7' '.type = 7'
    refuses_conf 7 'vni "5"' '.vni = "5"'
    refuses_conf 7 'vni 5.5' '.vni = 5.5'
    refuses_conf 7 'vni -1' '.vni = -1'
    refuses_conf 7 'mtu "1400"' '.mtu = "1400"'
    refuses_conf 7 'isGateway "true"' '.isGateway = "true"'
    refuses_conf 7 'ipMasq 1' '.ipMasq = 1'
    refuses_conf 7 'hairpinMode []' '.hairpinMode = []'
    refuses_conf 7 'ipam "weft-ipam"' '.ipam = "weft-ipam"'
    refuses_conf 7 'ipam []' '.ipam = []'
    for key in subnet gateway rangeStart rangeEnd; do
        refuses_conf 7 "$key 7" ".ipam.$key = 7"
        refuses_conf 7 "$key {}" ".ipam.ranges = [[{subnet: \"10.9.0.0/24\", $key: {}}]] | del(.ipam.subnet)"
    done
    refuses_conf 7 'ranges "all"' '.ipam.ranges = "all"'
    refuses_conf 7 'ranges 7' '.ipam.ranges = [7]'
    refuses_conf 7 'ranges 7' '.ipam.ranges = [[7]]'
    refuses_conf 7 'ranges {}' '.ipam.ranges = [[{}]]'
    refuses_conf 7 'exclude "10.9.0.9"' '.ipam.exclude = "10.9.0.9"'
    refuses_conf 7 'exclude [9]' '.ipam.exclude = [9]'
    refuses_conf 7 'blockBits "4"' '.ipam.blockBits = "4"'
    refuses_conf 7 'routes "0.0.0.0/0"' '.ipam.routes = "0.0.0.0/0"'
    refuses_conf 7 'routes {}' '.ipam.routes = [{}]'
    refuses_conf 7 'routes [["0.0.0.0/0"]]' '.ipam.routes = [["0.0.0.0/0"]]'
    refuses_conf 7 'runtimeConfig 7' '.runtimeConfig = 7'
    refuses_conf 7 'runtimeConfig ["10.9.0.9"]' '.runtimeConfig = ["10.9.0.9"]'
    refuses_conf 7 'args 7' '.args = 7'
    refuses_conf 7 'args.cni []' '.args.cni = []'
    refuses_conf 7 'runtimeConfig.ips 7' '.runtimeConfig.ips = 7'
    refuses_conf 7 'args.cni.ips {}' '.args.cni.ips = {}'
    for key in 7 '[7]' '[{}]' '[{"containerID": 7}]'; do
        refuses_conf 7 cni.dev/valid-attachments \
            '.cniVersion = "1.1.0" | .["cni.dev/valid-attachments"] = '"$key" CNI_COMMAND=GC
    done
    PLUGINS=(weft)
    refuses_conf 7 'type 7' '.ipam.type = 7'
    refuses_conf 7 'dns "10.0.0.1"' '.dns = "10.0.0.1"'
    refuses_conf 7 'dns [["10.0.0.1"]]' '.dns = [["10.0.0.1"]]'
    refuses_conf 7 'dns {"nameservers":7}' '.dns.nameservers = 7'
    refuses_conf 7 'runtimeConfig.mac 7' '.runtimeConfig.mac = 7'
}

@test "numbers out of range are refused" {
    refuses_conf 7 'vni 0' '.vni = 0'
    refuses_conf 7 'vni 16777216' '.vni = 16777216'
    refuses_conf 7 'vni 99999999999' '.vni = 99999999999'
    refuses_conf 7 'mtu 1279' '.mtu = 1279'
    refuses_conf 7 'mtu 65536' '.mtu = 65536'
    refuses_conf 7 'blockBits 17' '.ipam.blockBits = 17'
    refuses_conf 7 'blockBits 9' '.ipam.blockBits = 9'
    refuses_conf 7 'ten years' '.ipam.stickySeconds = 315360001'
    PLUGINS=(weft)
    # The underlay carries 1500.
    refuses_conf 7 1451 '.mtu = 1451'
}

@test "subnets that cannot be used are refused" {
    refuses_conf 7 'subnet everything' '.ipam.subnet = "everything"'
    refuses_conf 7 'subnet 10.9.0.0' '.ipam.subnet = "10.9.0.0"'
    refuses_conf 7 'subnet 10.9.0.0/33' '.ipam.subnet = "10.9.0.0/33"'
    refuses_conf 7 'subnet 10.9.0.0/-1' '.ipam.subnet = "10.9.0.0/-1"'
    refuses_conf 7 'subnet 10.9.0.0/255.255.0.0' '.ipam.subnet = "10.9.0.0/255.255.0.0"'
    refuses_conf 7 'subnet 10.9.0.256/24' '.ipam.subnet = "10.9.0.256/24"'
    refuses_conf 7 'is 10.9.0.0/24' '.ipam.subnet = "10.9.0.1/24"'
    refuses_conf 7 'subnet 10.9.0.0/31' '.ipam.subnet = "10.9.0.0/31"'
    refuses_conf 7 'subnet fd00:9::/127' '.ipam.subnet = "fd00:9::/127"'
    refuses_conf 7 'overlaps 10.9.0.0/24' \
        '.ipam.ranges = [[{subnet: "10.9.0.0/24"}, {subnet: "10.9.0.0/25"}]] | del(.ipam.subnet)'
    refuses_conf 7 'overlaps 10.8.0.0/16 of network other' '.ipam.subnet = "10.8.7.0/24"'
    refuses_conf 7 'same family' '.ipam.ranges = [[{subnet: "10.7.0.0/24"}]]'
    refuses_conf 7 fd00::/64 \
        '.ipam.ranges = [[{subnet: "10.9.0.0/24"}, {subnet: "fd00::/64"}]] | del(.ipam.subnet)'
}

@test "addresses that do not go with their subnet are refused" {
    refuses_conf 7 'gateway here' '.ipam.gateway = "here"'
    refuses_conf 7 'gateway 10.7.0.1' '.ipam.gateway = "10.7.0.1"'
    refuses_conf 7 'gateway fd00::1' '.ipam.gateway = "fd00::1"'
    refuses_conf 7 'gateway 10.9.0.0' '.ipam.gateway = "10.9.0.0"'
    refuses_conf 7 'gateway 10.9.0.255' '.ipam.gateway = "10.9.0.255"'
    refuses_conf 7 'gateway 10.9.0.1: ' '.ipam = {type: "weft-ipam", gateway: "10.9.0.1"}'
    refuses_conf 7 'rangeStart 10.7.0.1' '.ipam.rangeStart = "10.7.0.1"'
    refuses_conf 7 'rangeEnd 10.10.0.1' '.ipam.rangeEnd = "10.10.0.1"'
    refuses_conf 7 'rangeStart 10.9.0.20' '.ipam.rangeStart = "10.9.0.20" | .ipam.rangeEnd = "10.9.0.10"'
    refuses_conf 7 'exclude here' '.ipam.exclude = ["here"]'
    refuses_conf 7 'exclude 10.7.0.0/24' '.ipam.exclude = ["10.7.0.0/24"]'
    refuses_conf 7 'exclude 10.9.0.0/33' '.ipam.exclude = ["10.9.0.0/33"]'
    refuses_conf 7 routes '.ipam.routes = [{dst: "everywhere"}]'
    refuses_conf 7 routes '.ipam.routes = [{dst: "0.0.0.0/0", gw: "there"}]'
}

@test "a network that neither exists nor can be made is refused" {
    refuses_conf 7 'network red does not exist' 'del(.ipam.subnet)'
    refuses_conf 7 'vni 5001 belongs to network other' '.vni = 5001'
    PLUGINS=(weft)
    refuses_conf 7 'network red does not exist' 'del(.ipam)'
}

@test "a version in which the result could not be said is refused before anything is made" {
    cni a ADD box eth0 "$GOOD"
    cni a DEL box eth0 "$GOOD"
    PLUGINS=(weft)
    refuses_conf 1 'must have an address' '.cniVersion = "0.2.0" | del(.ipam)'
    refuses_conf 1 'must have an address' 'del(.cniVersion, .ipam)'
}

@test "a node configuration with a relative directory or an empty underlay is refused" {
    local config
    config=$(<"$(node_config a)")
    local line
    for line in 'data_dir = "state"' 'data_dir = ""' 'underlay = ""'; do
        printf '%s\n%s\n' "$line" "$config" >"$(node_config a)"
        run cni a ADD box eth0 "$GOOD"
        echo "$config" >"$(node_config a)"
        [[ $status != 0 ]] || fail "$line: $output" || return 1
        assert_json .code 7
        [[ $output == *"${line%% *}"* ]] || fail "$line: $output" || return 1
    done
}

@test "IPAM plugins that cannot be run are named" {
    PLUGINS=(weft)
    refuses_conf 4 nonexistent '.ipam.type = "nonexistent"'
    refuses_conf 7 ../sh '.ipam.type = "../sh"'
}

@test "previous results that cannot be read are refused" {
    PLUGINS=(weft)
    local change verb
    for verb in ADD CHECK; do
        for change in 7 '"x"' '[]' '{cniVersion: "9.9.9"}' '{ips: 7}' '{ips: [{address: "here"}]}' \
            '{interfaces: [7]}' '{routes: [{dst: "there"}]}' '{cniVersion: "0.2.0", ip4: {ip: "here"}}'; do
            refuses_conf 7 prevResult ".prevResult = $change" CNI_COMMAND=$verb
        done
    done
    refuses_conf 7 prevResult . CNI_COMMAND=CHECK
}

@test "DEL does not need a previous result, so a broken one is no reason to keep anything" {
    cni a ADD box eth0 "$GOOD"
    cni a DEL box eth0 "$(jq '.prevResult = {cniVersion: "9.9.9"}' <<<"$GOOD")"
    run -0 in_host a ls /run/weft/networks/red/reservations
    [[ $output != *box* ]]
}

@test "addresses that the network cannot give are refused" {
    add_container a holder
    cni a ADD holder eth0 "$GOOD"
    refuses_env 4 10.9.0 CNI_ARGS=IP=10.9.0
    refuses_env 4 nonsense CNI_ARGS=IP=10.9.0.9,nonsense
    refuses_env 7 10.8.0.9 CNI_ARGS=IP=10.8.0.9
    refuses_env 7 fd00::9 CNI_ARGS=IP=fd00::9
    refuses_env 7 10.9.0.0 CNI_ARGS=IP=10.9.0.0
    refuses_env 7 10.9.0.255 CNI_ARGS=IP=10.9.0.255
    refuses_env 7 10.9.0.1 CNI_ARGS=IP=10.9.0.1
    refuses_env 7 'do not go together' CNI_ARGS=IP=10.9.0.9,10.9.0.10
    refuses_env 11 holder "CNI_ARGS=IP=$(cni_ip a holder)"
    refuses_conf 7 10.8.0.9 '.runtimeConfig.ips = ["10.8.0.9/16"]'
    refuses_conf 7 10.8.0.9 '.args.cni.ips = ["10.8.0.9"]'
}

@test "an interface that exists stays as it is, and so does its address" {
    PLUGINS=(weft)
    # The host gets what it has once for all containers.
    cni a ADD box eth0 "$GOOD"
    cni a DEL box eth0 "$GOOD"
    in_container a box ip link add eth0 type bridge
    refuses_env 5 'interface eth0 exists in the container, and weft has not made it'
    in_container a box ip link delete eth0
    refuses_env 5 lo CNI_IFNAME=lo

    cni a ADD box eth0 "$GOOD"
    refuses_env 5 'is attached already; DEL it first'
    ping_from a box 10.9.0.1

    # A link of another program, with the name of the host end.
    local host_end
    host_end=$(jq -r '.interfaces[1].name' "$(cni_result_file a box eth0)")
    cni a DEL box eth0 "$GOOD"
    in_host a ip link add "$host_end" type veth peer name others
    refuses_env 5 "link $host_end of this host has a name that weft needs"
    cni a DEL box eth0 "$GOOD"
    in_host a ip link delete "$host_end"
}
