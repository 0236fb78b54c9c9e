# Machines: private namespaces held open by a pid 1 (machine-init), the commands and daemons that run in them.

# create_test_dir: makes WEFT_TEST_DIR, the home of all state of the test's machines.
# In /tmp on purpose: machines share it, while their /run and /var are private.
create_test_dir() {
    WEFT_TEST_DIR=$(mktemp -d /tmp/weft-test.XXXXXX)
    export WEFT_TEST_DIR
    mkdir "$WEFT_TEST_DIR"/{machines,logs}
}

# spawn_machine NAME: starts a machine without any interface but lo, and waits until it is ready.
spawn_machine() {
    local dir=$WEFT_TEST_DIR/machines/$1
    mkdir "$dir"
    # bats waits for its file descriptors 3 and 4 to be closed by everyone before it goes on. A session of its
    # own keeps Ctrl-C away: it is for bats, which then tears down.
    setsid unshare --mount --net --pid --uts --ipc --fork --kill-child -- "$WEFT_HELPERS/machine-init" "$1" "$dir" \
        </dev/null >"$WEFT_TEST_DIR/logs/$1.init.log" 2>&1 3>&- 4>&- &
    disown
    eventually 10 test -e "$dir/pid" || fail "machine $1 did not start:" "$(<"$WEFT_TEST_DIR/logs/$1.init.log")"
}

# machine_pid NAME: prints the pid of the machine's pid 1 as seen from outside.
machine_pid() {
    cat "$WEFT_TEST_DIR/machines/$1/pid"
}

# in_machine NAME CMD...: runs a command in all namespaces of the machine, for WEFT_TEST_TIMEOUT seconds at most.
in_machine() {
    local pid
    pid=$(machine_pid "$1") || fail "no machine is called $1" || return 1
    shift
    timeout --kill-after=5 "$WEFT_TEST_TIMEOUT" nsenter --target "$pid" --mount --net --pid --uts --ipc -- "$@"
}

# in_netns_of NAME CMD...: the same for the network namespace alone: pids and files stay those of the caller.
in_netns_of() {
    local pid
    pid=$(machine_pid "$1") || fail "no machine is called $1" || return 1
    shift
    timeout --kill-after=5 "$WEFT_TEST_TIMEOUT" nsenter --target "$pid" --net -- "$@"
}

# start_daemon MACHINE DAEMON CMD...: leaves CMD running there; its output goes to logs/MACHINE.DAEMON.log.
start_daemon() {
    local machine=$1 daemon=$2 pid_file=$WEFT_TEST_DIR/machines/$1/$2.pid machine_pid
    shift 2
    machine_pid=$(machine_pid "$machine") || return 1
    rm -f "$pid_file"
    # $$ is the daemon's pid inside the machine, the only place from which it is ever signalled.
    # shellcheck disable=SC2016
    setsid nsenter --target "$machine_pid" --mount --net --pid --uts --ipc -- \
        bash -c 'echo $$ >"$1.new"; mv "$1.new" "$1"; shift; exec "$@"' daemon "$pid_file" "$@" \
        </dev/null >>"$WEFT_TEST_DIR/logs/$machine.$daemon.log" 2>&1 3>&- 4>&- &
    echo $! >"$pid_file.nsenter"
    # Else bash would report on standard error that it was killed, long after.
    disown
    eventually 10 test -e "$pid_file"
}

# signal_daemon MACHINE DAEMON SIGNAL
signal_daemon() {
    in_machine "$1" kill -s "$3" "$(<"$WEFT_TEST_DIR/machines/$1/$2.pid")"
}

# pause_daemon MACHINE DAEMON / resume_daemon MACHINE DAEMON: it stands still, and goes on.
pause_daemon() {
    signal_daemon "$1" "$2" STOP
}

resume_daemon() {
    # nsenter, its parent, stops when it does, and would not notice its death later on.
    kill -CONT "$(<"$WEFT_TEST_DIR/machines/$1/$2.pid.nsenter")"
    signal_daemon "$1" "$2" CONT
}

# daemon_runs MACHINE DAEMON: succeeds while it does.
daemon_runs() {
    signal_daemon "$1" "$2" 0 2>/dev/null
}

# stop_daemon MACHINE DAEMON [SIGNAL]: signals (TERM unless told) and waits until the process is gone.
stop_daemon() {
    signal_daemon "$1" "$2" "${3:-TERM}"
    eventually 15 daemon_stopped "$1" "$2"
}

daemon_stopped() {
    ! daemon_runs "$1" "$2"
}

# kill_machine NAME: as if its plug were pulled: every process dies at once, mounts and interfaces go with it.
kill_machine() {
    local pid dir=$WEFT_TEST_DIR/machines/$1
    if pid=$(cat "$dir/pid" 2>/dev/null) && is_machine "$pid" "$dir"; then
        kill -KILL "$pid"
        eventually 10 process_gone "$pid"
    fi
    rm -rf "$dir"
}

# is_machine PID STATE_DIR: guards against a pid that has meanwhile been given to another process.
is_machine() {
    tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -qF "$2"
}

process_gone() {
    [[ ! -e /proc/$1 ]]
}

# kill_all_machines: ends every machine of this test and removes WEFT_TEST_DIR. Harmless when repeated.
kill_all_machines() {
    [[ -d ${WEFT_TEST_DIR:-} ]] || return 0
    local dir status=0
    for dir in "$WEFT_TEST_DIR"/machines/*/; do
        [[ -d $dir ]] || continue
        kill_machine "$(basename "$dir")" || status=1
    done
    remove_cgroups
    rm -rf "$WEFT_TEST_DIR"
    return "$status"
}

# remove_cgroups: those of containers that died with their machine, where no runtime was left to do it.
remove_cgroups() {
    find /sys/fs/cgroup -depth -type d -path "*/${WEFT_TEST_DIR##*/}*" -exec rmdir {} + 2>/dev/null || true
}

# dump_logs_of_failed_test: for `teardown`: the ends of all daemons' logs, of interest only after a failure.
dump_logs_of_failed_test() {
    [[ -z ${BATS_TEST_COMPLETED:-} && -d ${WEFT_TEST_DIR:-} ]] || return 0
    local log
    for log in "$WEFT_TEST_DIR"/logs/*.log; do
        [[ -s $log ]] || continue
        echo "=== ${log##*/}"
        tail -n 40 "$log"
    done
}
