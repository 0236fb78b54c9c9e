#!/usr/bin/env bats
# What an administrator sees and puts right with weftctl: use of addresses, differences, removal of a node.
#
# The agent of host a does not run: nothing else puts anything right there.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "vni": 4201, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'
DIR=/run/weft/networks/red

setup() {
    setup_underlay
    start_consul
    local host
    for host in a b; do
        add_host "$host"
        write_node_config "$host"
        add_container "$host" one
        cni "$host" ADD one eth0 "$NET"
    done
    start_weftd b
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# check HOST [ARGS...]: `run`s weftctl ipam check there, for JSON, without what it logs.
check() {
    local host=$1
    shift
    run --separate-stderr weftctl "$host" --output json ipam check "$@"
}

# assert_found KIND [STATE]: one difference of that kind is in $output, and nothing but notes besides.
assert_found() {
    assert_json '[.[] | select(.state != "note")] | length' 1
    assert_json '.[] | select(.state != "note") | .kind' "$1"
    assert_json '.[] | select(.state != "note") | .state' "${2:-left}"
}

# assert_fixed KIND: check finds it, --fix puts it right, and then there is none.
assert_fixed() {
    check a
    [[ $status == 1 ]]
    assert_found "$1"
    check a --fix
    [[ $status == 0 ]]
    assert_found "$1" fixed
    check a
    [[ $status == 0 ]]
    assert_equal "$output" "[]"
}

# block_of HOST: prints the block that the host claimed first.
block_of() {
    weftctl "$1" --output json block list | jq -r --arg node "$1" 'first(.[] | select(.node == $node)) | .block'
}

kv() {
    consul_cmd kv "$@"
}

# shows_report: succeeds if node a shows what node b reports.
shows_report() {
    run weftctl a ipam show --network red
    [[ $status == 0 && $output == *"b     1       16         2     0     0     14    0         current   [#"* ]] || fail "$output"
}

@test "ipam show: prints what is owned and in use in the cluster, and marks what a node does not report" {
    run weftctl a ipam show --network red
    [[ $status == 0 ]]
    [[ $output == *"pool 0  10.9.0.0/24  253        30     223      [#.........] 11 %"* ]] || fail "$output"
    # The host and one container.
    [[ $output == *"a     1       14         2     0     0     12    0         here "*" [#.........] 14 %"* ]] || fail "$output"
    eventually 13 shows_report
    run weftctl b ipam show --network red
    [[ $output == *"a     1       14         –     –     0     –     0         –         –"* ]] || fail "$output"
    run weftctl b --output json ipam show
    assert_json '.[0].network' red
    assert_json '.[0].nodes[] | select(.node == "b") | .held' 2
    assert_json '.[0].nodes[] | select(.node == "a") | .held' null
    assert_json '.[0].blocks[] | select(.node == "b") | .free' 14
}

@test "ipam check: finds nothing on two nodes in good order" {
    local host
    for host in a b; do
        run weftctl "$host" ipam check
        assert_equal "$status $output" "0 1 network checked: no difference"
    done
    # Nor on one that has nothing of the network.
    add_host c
    write_node_config c
    run weftctl c ipam check --network red
    assert_equal "$status" 0
    run ! in_host c test -e "$DIR"
}

@test "ipam check: containers that come and go meanwhile are no differences" {
    local i churn
    for i in {1..4}; do
        add_container a "c$i"
    done
    while :; do
        for i in {1..4}; do
            cni a ADD "c$i" eth0 "$NET"
        done
        for i in {1..4}; do
            cni a DEL "c$i" eth0 "$NET"
        done
    done >/dev/null 3>&- &
    churn=$!
    for i in {1..8}; do
        check a
        if [[ $status != 0 ]]; then
            kill "$churn"
            fail "$output"
        fi
    done
    kill "$churn"
    wait "$churn" || true
}

@test "ipam check: a container that was killed without DEL is found, and --fix frees its address" {
    local ip
    ip=$(cni_ip a one)
    remove_container a one
    # The kernel takes a moment to remove the namespace.
    eventually 5 in_host a bash -c '! ip link show | grep -q wv'
    run weftctl a ipam check
    [[ $status == 1 && $output == *"network red: $ip is held by one/eth0, whose network namespace"*"is gone"* ]]
    in_host a test -e "$DIR/reservations/one@eth0"
    assert_fixed sandboxGone
    run ! in_host a test -e "$DIR/reservations/one@eth0"
    add_container a two
    CNI_ARGS="IP=$ip" cni a ADD two eth0 "$NET"
    assert_equal "$(cni_ip a two)" "$ip"
}

# reserve_only HOST CONTAINER: holds an address for eth0, as an ADD does that is killed before it makes the interface.
reserve_only() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$(jq '.type = "weft-ipam"' <<<"$NET")"
}

# collect HOST VALID...: GC with a list of containers, each with eth0.
collect() {
    local host=$1 valid
    shift
    valid=$(jq -n '[$ARGS.positional[] | {containerID: ., ifname: "eth0"}]' --args "$@")
    CNI_NETNS='' cni "$host" GC '' '' "$(jq --argjson valid "$valid" \
        '.cniVersion = "1.1.0" | ."cni.dev/valid-attachments" = $valid' <<<"$NET")"
}

@test "ipam check: an address whose sandbox lives without the interface is found, and --fix frees it" {
    reserve_only a killed
    run weftctl a ipam check
    [[ $status == 1 && $output == *"is held by killed/eth0, whose network namespace /run/netns/killed has no interface"* ]] ||
        fail "$output"
    assert_fixed unwired
    run ! in_host a test -e "$DIR/reservations/killed@eth0"
    in_host a test -e "$DIR/reservations/one@eth0"
}

@test "GC: frees what killed calls left in living sandboxes at once, and nothing that is connected" {
    reserve_only a listed
    reserve_only a unlisted
    # The sandbox may have an interface of that name by another attachment.
    cni a ADD other eth0 "$(jq '.type = "weft-ipam"' <<<"$NET")" && in_host a test -e "$DIR/reservations/other@eth0"
    CNI_NETNS=/run/netns/one cni a ADD shares eth0 "$(jq '.type = "weft-ipam"' <<<"$NET")"
    collect a listed
    run in_host a ls "$DIR/reservations"
    # Nobody lists `one`, which is connected; the sandbox of `other` never existed.
    assert_equal "$output" $'@node\none@eth0'
    ping_from a one 10.9.0.2
}

@test "GC: a damaged reservation is reported by its name and stays, and stops no other" {
    local file
    in_host a sh -c "echo '{\"holder\":' >$DIR/reservations/junk@eth0; : >$DIR/reservations/empty@eth0"
    in_host a sh -c "jq -c '.addresses = [] | .holder.attachment.containerId = \"bare\" | .host = 9' \
        $DIR/reservations/one@eth0 >$DIR/reservations/bare@eth0"
    reserve_only a killed
    run --separate-stderr collect a one bare
    # shellcheck disable=SC2154 # `run` sets stderr
    [[ $status == 0 ]] || fail "$output $stderr"
    for file in junk empty; do
        [[ $stderr == *"/reservations/$file@eth0 is damaged"* ]] || fail "$stderr"
        in_host a test -e "$DIR/reservations/$file@eth0"
    done
    in_host a test -e "$DIR/reservations/one@eth0"
    run ! in_host a test -e "$DIR/reservations/killed@eth0"
    # It names no address of its own, and no interface is there for it.
    run ! in_host a test -e "$DIR/reservations/bare@eth0"
}

@test "GC: a half-made interface of a killed ADD goes with its address, unless the runtime lists it" {
    local files
    in_container a one ip link set eth0 down
    in_container a one ip address flush dev eth0
    collect a one
    in_host a test -e "$DIR/reservations/one@eth0"
    collect a
    files=$(in_host a ls "$DIR/reservations")
    assert_equal "$files" @node
    run ! in_container a one ip link show eth0
}

@test "GC: an ADD that is under way keeps its address" {
    # shellcheck disable=SC2016
    in_host a sh -euc '
        rm /opt/cni/bin/weft-ipam
        printf "#!/bin/sh\n%s/weft-ipam || exit\n[ \$CNI_COMMAND != ADD ] || sleep 3\n" "$1" >/opt/cni/bin/weft-ipam
        chmod +x /opt/cni/bin/weft-ipam' wrap "$WEFT_BIN_DIR"
    add_container a slow
    cni a ADD slow eth0 "$NET" 3>&- &
    local add=$!
    eventually 5 in_host a test -e "$DIR/reservations/slow@eth0"
    collect a
    in_host a test -e "$DIR/reservations/slow@eth0"
    wait "$add"
    ping_from a slow 10.9.0.2
    # The one that is connected is not touched later on either.
    collect a
    ping_from a slow 10.9.0.2
}

@test "GC: a pinned sandbox without a process is removed once it is old, interface and address" {
    local port
    add_container a two
    cni a ADD two eth0 "$NET"
    collect a
    in_host a test -e "$DIR/reservations/one@eth0"
    in_host a sed -i 's/"created":[0-9]*/"created":1/' "$DIR/reservations/one@eth0" "$DIR/reservations/two@eth0"
    check a
    [[ $status == 0 ]]
    assert_json '[.[] | select(.kind == "deserted" and .state == "note")] | length' 2
    # The one has a process, the other is listed.
    start_daemon a inside nsenter --net=/run/netns/one sleep 60
    collect a two
    in_host a ls "$DIR/reservations/one@eth0" "$DIR/reservations/two@eth0"
    ping_from a two 10.9.0.2
    collect a
    run in_host a ls "$DIR/reservations"
    assert_equal "$output" $'@node\none@eth0'
    run ! in_container a two ip link show eth0
    ping_from a one 10.9.0.2
    port=$(in_host a ip -o link show type veth | grep -c wv)
    assert_equal "$port" 1
}

@test "ipam check: a damaged reservation is listed, and removed only where its container is known to be gone" {
    local file=$DIR/reservations/one@eth0
    # The end is lost; what is left says which namespace it was.
    in_host a truncate -s -12 "$file"
    check a --fix
    [[ $status == 1 ]]
    assert_found damagedReservation
    assert_json '.[0].what | contains("one/eth0, which is alive")' true
    assert_json '.[0].addresses[0]' "$(cni_ip a one)"
    in_host a test -e "$file"
    run weftctl a ipam release "$(cni_ip a one)" --network red
    [[ $status == 1 && $output == *"is alive"* ]]
    remove_container a one
    eventually 5 in_host a bash -c '! ip link show | grep -q wv'
    assert_fixed damagedReservation
    run ! in_host a test -e "$file"

    # Nothing is left of it.
    add_container a two
    cni a ADD two eth0 "$NET"
    file=$DIR/reservations/two@eth0
    in_host a truncate -s 0 "$file"
    remove_container a two
    eventually 5 in_host a bash -c '! ip link show | grep -q wv'
    check a --fix
    [[ $status == 1 ]]
    assert_found damagedReservation
    in_host a test -e "$file"
    CNI_NETNS='' cni a DEL two eth0 "$NET"
    check a
    [[ $status == 0 ]]
}

@test "ipam release: refused while the container is alive, done by force, and then its address counts as used" {
    local ip
    ip=$(cni_ip a one)
    run weftctl a ipam release "$ip" --network red
    [[ $status == 1 && $output == *"is held by one/eth0"* && $output == *"is alive"*"/run/netns/one"* ]] || fail "$output"
    in_host a test -e "$DIR/reservations/one@eth0"
    run weftctl a ipam release "$ip" --network red --force
    [[ $status == 0 && $output == *"$ip of network red is free"* && $output == *"one/eth0 must not go on using it"* ]]
    run ! in_host a test -e "$DIR/reservations/one@eth0"
    check a --fix
    [[ $status == 1 ]]
    assert_found unreserved
    assert_json '.[0].addresses[0]' "$ip"
    cni a DEL one eth0 "$NET"
    check a
    [[ $status == 0 ]]
}

@test "ipam release: a container that is gone needs no force" {
    local ip
    ip=$(cni_ip a one)
    remove_container a one
    eventually 5 in_host a bash -c '! ip link show | grep -q wv'
    run weftctl a --output json ipam release "$ip" --network red
    [[ $status == 0 ]]
    assert_json '.[0].holder' one/eth0
    assert_json '.[0].alive' false
    run weftctl a ipam release "$ip" --network red
    [[ $status == 1 && $output == *"is not held by anybody on this node"* ]]
}

@test "ipam release: what an identity keeps is freed by a second release" {
    local ip conf
    conf=$(jq '.args.cni.sticky = "pod" | .ipam.stickySeconds = 3600' <<<"$NET")
    add_container a two
    cni a ADD two eth0 "$conf"
    ip=$(cni_ip a two)
    remove_container a two
    # The host end goes with the namespace, and that of the other container stays.
    eventually 5 in_host a bash -c 'ip -o link show type veth | grep -c wv | grep -qx 1'
    run weftctl a ipam release "$ip" --network red
    [[ $status == 0 && $output == *"is now held by pod@eth0, for which it is kept"* ]] || fail "$output"
    run weftctl a ipam release "$ip" --network red
    [[ $status == 0 && $output == *"$ip of network red is free"* ]] || fail "$output"
    check a
    [[ $status == 0 ]]
}

@test "ipam release: refuses an address of another node's, of the host's, of no subnet" {
    run weftctl a ipam release "$(cni_ip b one)" --network red --force
    [[ $status == 1 && $output == *"lies in a block of node b"* ]] || fail "$output"
    run weftctl a ipam release 10.9.0.2 --network red --force
    [[ $status == 1 && $output == *"this host's own"* ]] || fail "$output"
    run weftctl a ipam release 10.10.0.2 --network red
    [[ $status == 1 && $output == *"lies in no subnet of network red"* ]] || fail "$output"
    run weftctl a ipam release 10.9.0.200 --network red
    [[ $status == 1 && $output == *"no node owns its block"* ]] || fail "$output"
    run weftctl a ipam release 10.9.0.2 --network blue
    [[ $status == 1 && $output == *"there is no network blue in the Consul at "*"weftctl network list"* ]] || fail "$output"
}

@test "ipam check: finds a block that only the store gives to this node, and one that only the files do" {
    local block BLOCKS
    BLOCKS=weft/v1/blocks/$(network_id red)/0-0
    block=$(block_of a)
    kv put "$BLOCKS/0-240-4" '{"node": "a"}'
    # Nothing is lost: it is only to be taken up.
    check a
    [[ $status == 0 ]]
    assert_json '.[].kind' blockNotEntered
    assert_json '.[].state' note
    check a --fix
    [[ $status == 0 ]]
    assert_found blockNotEntered fixed
    check a
    assert_equal "$status $output" "0 []"
    in_host a test -e "$DIR/blocks/0-240-4"
    kv delete "$BLOCKS/$block"
    assert_fixed blockNotOwned
    assert_equal "$(kv get "$BLOCKS/$block" | jq -r .node)" a

    # Another node's: struck out, and the container that has an address of it is named.
    kv put "$BLOCKS/$block" '{"node": "c"}'
    check a
    [[ $status == 1 ]]
    assert_json 'any(.kind == "blockNotOwned" and (.what | contains("node c")))' true
    check a --fix
    [[ $status == 1 ]]
    assert_json 'any(.kind == "blockNotOwned" and .state == "fixed")' true
    assert_json 'any(.kind == "stranded" and .state == "left" and (.what | contains("one/eth0")))' true
    run ! in_host a test -e "$DIR/blocks/$block"
}

@test "ipam check: a definition that cannot be read is listed alone, and --fix reads it again and nothing else" {
    local definition
    definition=$(in_host a cat "$DIR/network.json")
    remove_container a one
    eventually 5 in_host a bash -c '! ip link show | grep -q wv'
    in_host a truncate -s 20 "$DIR/network.json"
    check a
    [[ $status == 1 ]]
    assert_json length 1
    assert_found damagedFile
    assert_json '.[0].what | contains("network.json is damaged")' true
    # What it hid comes to light, and is not told as done.
    check a --fix
    [[ $status == 1 ]]
    assert_json 'map("\(.kind) \(.state)") | join(", ")' "damagedFile fixed, sandboxGone left"
    assert_equal "$(in_host a cat "$DIR/network.json")" "$definition"
    in_host a rm "$DIR/network.json"
    check a
    [[ $status == 1 ]]
    assert_json length 1
    assert_json '.[0].what | contains("network.json is missing")' true
    check a --fix
    assert_fixed sandboxGone
}

@test "ipam check: devices that are missing are made again, and containers are connected to them again" {
    local port
    port=$(in_host a ip -j link show type veth | jq -r '.[] | select(.ifname | startswith("wv")) | .ifname')
    in_host a ip link delete wx4201
    assert_fixed devices
    ping_from a one "$(cni_ip b one)"
    in_host a ip link set "$port" nomaster
    assert_fixed disconnected
    ping_from a one "$(cni_ip b one)"
    in_host a ip link delete wb4201
    check a --fix
    [[ $status == 0 ]]
    assert_json 'map("\(.kind) \(.state)") | sort | join(", ")' "devices fixed, disconnected fixed"
    check a
    [[ $status == 0 ]]
    ping_from a one "$(cni_ip b one)"
}

@test "ipam check: an index that counts wrong is made again" {
    remove_container a one
    eventually 5 in_host a bash -c '! ip link show | grep -q wv'
    in_host a rm "$DIR/reservations/one@eth0"
    assert_fixed index
    run weftctl a --output json ipam show
    assert_json '.[0].nodes[] | select(.node == "a") | .held' 1
}

@test "ipam check: finds loans that only one side knows of" {
    local endpoints key loan=00000000000000ab mac=02:42:0a:09:00:09
    endpoints=weft/v1/endpoints/$(network_id red)/0-0
    key=$endpoints/0-0-4/10.9.0.9
    # Lent, says the store; free, says the lender.
    kv put "$key" "{\"node\": \"c\", \"mac\": \"$mac\", \"lender\": \"a\", \"loan\": \"$loan\"}"
    assert_fixed notSetAside
    run weftctl a --output json ipam show
    assert_json '.[0].nodes[] | select(.node == "a") | .lent' 1
    run weftctl a ipam release 10.9.0.9 --network red
    [[ $status == 1 && $output == *"is lent to node c"* ]] || fail "$output"
    # Set aside, says the lender; not lent, says the store.
    kv delete "$key"
    assert_fixed lentToNobody
    # Borrowed, says the store; unused, says the borrower. It is its lender's again.
    key=$endpoints/0-192-4/10.9.0.200
    kv put "$key" "{\"node\": \"a\", \"mac\": \"$mac\", \"lender\": \"c\", \"loan\": \"$loan\"}"
    assert_fixed endpointUnused
    run kv get "$key"
    [[ $status != 0 ]]
    # A reservation that names a loan of which the store knows nothing.
    in_host a sed -i 's/"created"/"loan":{"id":"00000000000000ab","lender":"b"},"created"/' "$DIR/reservations/one@eth0"
    check a
    [[ $status == 1 ]]
    assert_found loanUnknown
}

@test "ipam check: finds one address with two reservations" {
    in_host a sed 's/"one"/"other"/; s/"netns":"[^"]*"/"netns":"\/run\/netns\/one"/' "$DIR/reservations/one@eth0" \
        >"$WEFT_TEST_DIR/other"
    in_host a cp "$WEFT_TEST_DIR/other" "$DIR/reservations/other@eth0"
    check a
    [[ $status == 1 ]]
    assert_json 'any(.kind == "heldTwice" and (.what | contains("one/eth0") and contains("other/eth0")))' true
}

@test "node remove: refused while the agent is alive, then its blocks are free" {
    local ip session
    ip=$(cni_ip b one)
    run weftctl a node remove b
    [[ $status == 1 && $output == *"node b is alive"* ]] || fail "$output"
    run weftctl a node remove nobody
    [[ $status == 1 && $output == *"knows no node called nobody"* ]] || fail "$output"
    stop_weftd b KILL
    run weftctl a node remove b
    [[ $status == 1 && $output == *"node b is alive"* ]] || fail "$output"
    kill_machine b
    # Else it takes up to half a minute until the lease ends by itself.
    session=$(in_machine underlay curl --silent --fail "$(consul_url)/v1/session/list" |
        jq -r '.[] | select(.Name == "weftd on b") | .ID')
    in_machine underlay curl --silent --fail --request PUT "$(consul_url)/v1/session/destroy/$session"
    run weftctl a --output json node remove b
    [[ $status == 0 ]] || fail "$output"
    assert_json .blocks 1
    assert_json .endpoints 0
    run weftctl a --output json node list
    assert_json 'map(.name) | join(" ")' a
    add_container a two
    CNI_ARGS="IP=$ip" cni a ADD two eth0 "$NET"
    assert_equal "$(cni_ip a two)" "$ip"
    check a
    [[ $status == 0 ]]
}

@test "node remove: says in words how many blocks and endpoints it took" {
    stop_weftd b
    kill_machine b
    run weftctl a node remove b
    assert_equal "$status $output" "0 node b is removed; 1 block and 0 borrowed addresses came back"
}
