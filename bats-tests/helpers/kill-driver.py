#!/usr/bin/env python3
"""Calls a CNI plugin as a runtime does, many at a time, and kills calls at random moments.

It keeps a record of its own of who was told which address, and ends with exit code 1 as soon as an address has two
holders or something is left behind. What it did and found is the JSON object that it prints last.

A killed ADD is followed by a DEL, and a killed DEL by another, once nobody holds the call's output any more: that
is how runtimes go about it, and the IPAM plugin below a killed `weft` may still be at work until then.
"""

import argparse
import ipaddress
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time


# weft-ipam by itself touches no network namespace, but the specification wants one.
NO_NETNS = "/proc/self/ns/net"

# System calls to be killed at, each with how often one call of a plugin makes it, about. A plugin runs for less than
# a millisecond once it has a CPU, so a clock alone hardly ever kills it between two of them.
MOMENTS = {
    "close": 12,
    "exit_group": 1,
    "flock": 4,
    "fsync": 4,
    "openat": 20,
    "pread64": 8,
    "pwrite64": 8,
    "recvfrom": 10,
    "rename": 4,
    "sendto": 10,
    "sigaltstack": 3,
    "unlink": 1,
    "write": 4,
}


class Violation(Exception):
    """A rule was broken that must always hold."""


class Record:
    """The holders that were told each address."""

    def __init__(self):
        self.lock = threading.Lock()
        self.holders = {}
        self.counts = {}

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def hold(self, address, holder):
        with self.lock:
            other = self.holders.setdefault(address, holder)
        if other != holder:
            raise Violation(f"{holder} was told {address}, which {other} holds")

    def let_go(self, address):
        """To be called before the DEL is: from then on the address may be another's."""
        with self.lock:
            del self.holders[address]


class Call:
    """A finished call of the plugin."""

    def __init__(self, status, output, errors, killed):
        self.status, self.output, self.errors, self.killed = status, output, errors, killed

    def address(self):
        return json.loads(self.output)["ips"][0]["address"].split("/")[0]

    def __str__(self):
        return f"exit code {self.status}, output {self.output!r}, messages {self.errors!r}"


class Plugin:
    """The plugin, and how long its calls take."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        self.usual = {"ADD": 0.01, "DEL": 0.01}

    def conf(self, network, valid=None):
        name, subnet = network
        ipam = {"type": "weft-ipam", "subnet": str(subnet)}
        conf = {"cniVersion": "1.0.0", "name": name, "type": self.kind, "ipam": ipam}
        if self.kind == "weft":
            conf["isGateway"] = True
        if valid is not None:
            conf["cniVersion"] = "1.1.0"
            conf["cni.dev/valid-attachments"] = [{"containerID": holder, "ifname": ifname} for holder, ifname in valid]
        return json.dumps(conf).encode()

    def collect(self, network, valid):
        """Calls GC with the attachments that are valid."""
        environment = dict(os.environ, CNI_COMMAND="GC", CNI_PATH=self.folder)
        program = f"{self.folder}/{self.kind}"
        pipe = subprocess.PIPE
        conf = self.conf(network, valid)
        done = subprocess.run([program], input=conf, stdout=pipe, stderr=pipe, env=environment, check=False, timeout=30)
        if done.returncode != 0:
            raise Violation(f"GC failed: {done.stdout.decode()} {done.stderr.decode()}")

    def call(self, verb, network, holder, netns, kill=None, ifname="eth0"):
        environment = dict(
            os.environ,
            CNI_COMMAND=verb,
            CNI_CONTAINERID=holder,
            CNI_IFNAME=ifname,
            CNI_NETNS=netns,
            CNI_PATH=self.folder,
        )
        program = f"{self.folder}/{self.kind}"
        if kill == "moment":
            call = self.run(killed_at_a_moment(program), network, environment)
            # Who is left of weft and the IPAM plugin below it reports the death of the other.
            call.killed = call.status != 0
            return call
        if kill == "clock":
            return self.run([program], network, environment, random.uniform(0, 1.2 * self.usual[verb]))
        started = time.monotonic()
        call = self.run([program], network, environment)
        self.usual[verb] += 0.1 * (time.monotonic() - started - self.usual[verb])
        return call

    def run(self, command, network, environment, kill_after=None):
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        try:
            # It fits into the pipe.
            process.stdin.write(self.conf(network))
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.stdin = None
        killed = False
        if kill_after is not None:
            time.sleep(kill_after)
            killed = self.kill(process)
        output, errors = process.communicate(timeout=30)
        return Call(process.returncode, output.decode(), errors.decode(), killed)

    def kill(self, process):
        """Kills the plugin, the plugin that it started, or both; says whether anything was left to kill."""
        if process.poll() is not None:
            return False
        victims = [process.pid]
        if self.kind == "weft":
            below = children(process.pid) or victims
            victims = random.choice([victims, below, victims + below])
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return bool(victims)


def killed_at_a_moment(program):
    name = random.choice(list(MOMENTS))
    number = random.randint(1, MOMENTS[name])
    trace = f"--trace={name}", f"--inject={name}:signal=SIGKILL:when={number}"
    return ["strace", "-f", "-qq", "-o", "/dev/null", *trace, program]


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Slot:
    """A place for one container, used again and again."""

    def __init__(self, network, name, netns):
        self.network, self.name, self.netns = network, name, netns
        self.generation = 0
        self.address = None

    @property
    def holder(self):
        return f"{self.name}-{self.generation}"


class Driver:
    def __init__(self, options):
        self.options = options
        self.plugin = Plugin(options.plugins, options.plugin)
        self.record = Record()
        self.networks = [
            (f"kill{number}", subnet)
            for number, subnet in zip(range(options.networks), ipaddress.ip_network("10.9.0.0/16").subnets(new_prefix=26))
        ]
        self.calls_left = options.calls
        self.failure = None

    def reservations(self, network):
        return pathlib.Path(self.options.data_dir, "networks", network[0], "reservations")

    def work_on_each(self, portions):
        """Works on each portion in a thread of its own; the first failure of any is raised."""
        threads = [threading.Thread(target=self.work, args=(portion,)) for portion in portions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.failure:
            raise self.failure

    def run(self):
        slots = [
            [
                Slot(network, f"{network[0]}-{worker}-{number}", self.make_netns(f"{network[0]}-{worker}-{number}"))
                for network in self.networks
                for number in range(self.options.slots)
            ]
            for worker in range(self.options.parallel)
        ]
        self.work_on_each(slots)
        for network in self.networks:
            self.expect_empty(network)
            self.expect_all(network)
            self.expect_empty(network)
        return self.record.counts

    def make_netns(self, name):
        if self.plugin.kind != "weft":
            return NO_NETNS
        subprocess.run(["ip", "netns", "add", name], check=True)
        return f"/run/netns/{name}"

    def work(self, slots):
        try:
            while self.failure is None and self.take_call():
                slot = random.choice(slots)
                if slot.address is None:
                    self.add(slot)
                else:
                    self.delete(slot)
            for slot in slots:
                if self.failure is None and slot.address is not None:
                    self.delete(slot)
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def take_call(self):
        with self.record.lock:
            self.calls_left -= 1
            return self.calls_left >= 0

    def kill_by_chance(self):
        if random.random() < self.options.kill:
            return random.choice(["clock", "moment"])
        return None

    def add(self, slot):
        slot.generation += 1
        call = self.plugin.call("ADD", slot.network, slot.holder, slot.netns, self.kill_by_chance())
        if call.status == 0:
            # Killed too late, or not at all.
            self.record.count("adds")
            slot.address = call.address()
            self.record.hold(slot.address, slot.holder)
            return
        if not call.killed:
            raise Violation(f"ADD of {slot.holder} failed: {call}")
        self.record.count("killed_adds")
        if (self.reservations(slot.network) / f"{slot.holder}@eth0").exists():
            self.record.count("killed_adds_reserved")
        self.delete(slot)

    def delete(self, slot):
        if slot.address is not None:
            self.record.let_go(slot.address)
            slot.address = None
        file = self.reservations(slot.network) / f"{slot.holder}@eth0"
        while True:
            held_before = file.exists()
            call = self.plugin.call("DEL", slot.network, slot.holder, slot.netns, self.kill_by_chance())
            self.record.count("killed_dels" if call.status and call.killed else "dels")
            if call.status == 0:
                if file.exists():
                    raise Violation(f"{slot.holder} is reserved after its DEL")
                return
            if not call.killed:
                raise Violation(f"DEL of {slot.holder} failed: {call}")
            if held_before and not file.exists():
                self.record.count("killed_dels_freed")

    def expect_empty(self, network):
        left = {path.name for path in self.reservations(network).iterdir()} - {"@node"}
        if left:
            raise Violation(f"{network[0]} has reservations left: {sorted(left)}")

    def expect_all(self, network):
        """Every address can be given out, once."""
        name, subnet = network
        node = (self.reservations(network) / "@node").exists()
        # Without the network's, the broadcast, the gateway's and the node's address.
        expected = subnet.num_addresses - 3 - node
        slots = [Slot(network, f"{name}-last-{number}", NO_NETNS) for number in range(expected + 1)]
        ipam = Plugin(self.options.plugins, "weft-ipam")
        for slot in slots[:-1]:
            call = ipam.call("ADD", network, slot.holder, slot.netns)
            if call.status != 0:
                raise Violation(f"{name} has lost addresses: {len(self.record.holders)} of {expected}, then {call}")
            slot.address = call.address()
            self.record.hold(slot.address, slot.holder)
        call = ipam.call("ADD", network, slots[-1].holder, NO_NETNS)
        if call.status == 0:
            raise Violation(f"{name} gave out {call.address()} beyond its {expected} addresses")
        for slot in slots:
            if slot.address is not None:
                self.record.let_go(slot.address)
            call = ipam.call("DEL", network, slot.holder, slot.netns)
            if call.status != 0:
                raise Violation(f"DEL of {slot.holder} failed: {call}")


class Sandbox:
    """A sandbox that lives to the end, with interfaces that come and go. What a killed call leaves is forgotten."""

    def __init__(self, name, netns):
        self.name, self.netns = name, netns
        # Something of it runs, as in every sandbox of a runtime.
        self.process = subprocess.Popen(["nsenter", f"--net={netns}", "sleep", "600"])
        self.made = 0
        self.live = {}

    def has(self, ifname):
        command = ["nsenter", f"--net={self.netns}", "ip", "link", "show", "dev", ifname]
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


class LivingDriver(Driver):
    """Kills calls in sandboxes that live on, and calls GC once. No killed call is repeated."""

    # Each sandbox has fewer interfaces than this at a time.
    MOST = 12

    def __init__(self, options):
        super().__init__(options)
        self.networks = [("living", ipaddress.ip_network("10.9.0.0/24"))]
        self.sandboxes = []

    def run(self):
        network = self.networks[0]
        names = [f"living-{number}" for number in range(self.options.parallel)]
        self.sandboxes = [Sandbox(name, self.make_netns(name)) for name in names]
        try:
            self.work_on_each(self.sandboxes)
            self.record.counts["lost_before_gc"] = len(self.lost(network))
            valid = [attachment for sandbox in self.sandboxes for attachment in sandbox.live]
            self.plugin.collect(network, valid)
            if self.lost(network):
                raise Violation(f"lost after GC: {self.lost(network)}; {self.record.counts}")
            self.delete_all(network)
            self.expect_empty(network)
            self.expect_all(network)
            self.record.counts["usable_after_gc"] = network[1].num_addresses - 3
            return self.record.counts
        finally:
            for sandbox in self.sandboxes:
                sandbox.process.kill()
                sandbox.process.wait()

    def work(self, slots):
        sandbox, network = slots, self.networks[0]
        try:
            while self.failure is None and self.take_call():
                if len(sandbox.live) < self.MOST and random.random() < 0.6 or not sandbox.live:
                    self.add_interface(sandbox, network)
                else:
                    self.delete_interface(sandbox, network)
        except Exception as failure:  # pylint: disable=broad-except
            self.failure = failure

    def add_interface(self, sandbox, network):
        sandbox.made += 1
        holder, ifname = f"{sandbox.name}-{sandbox.made}", f"e{sandbox.made}"
        call = self.plugin.call("ADD", network, holder, sandbox.netns, self.kill_by_chance(), ifname)
        if call.status == 0:
            self.record.count("adds")
            self.record.hold(call.address(), holder)
            sandbox.live[holder, ifname] = call.address()
        elif call.killed:
            self.record.count("killed_adds")
        else:
            raise Violation(f"ADD of {holder} failed: {call}")

    def delete_interface(self, sandbox, network):
        holder, ifname = random.choice(list(sandbox.live))
        self.record.let_go(sandbox.live.pop((holder, ifname)))
        call = self.plugin.call("DEL", network, holder, sandbox.netns, self.kill_by_chance(), ifname)
        if call.status != 0 and not call.killed:
            raise Violation(f"DEL of {holder} failed: {call}")
        self.record.count("killed_dels" if call.status else "dels")

    def forgotten(self, network):
        """Reservations of killed calls, each with its sandbox."""
        live = {attachment for sandbox in self.sandboxes for attachment in sandbox.live}
        for path in self.reservations(network).iterdir():
            if path.name != "@node":
                holder, ifname = path.name.split("@")
                if (holder, ifname) not in live:
                    sandbox = next(one for one in self.sandboxes if holder.startswith(f"{one.name}-"))
                    yield holder, ifname, sandbox

    def lost(self, network):
        return [holder for holder, ifname, sandbox in self.forgotten(network) if not sandbox.has(ifname)]

    def delete_all(self, network):
        """The sandboxes end one interface after the other, those of killed calls that got one among them."""
        left = [(holder, ifname, sandbox) for holder, ifname, sandbox in self.forgotten(network)]
        self.record.counts["connected_by_killed_calls"] = len(left)
        for sandbox in self.sandboxes:
            left += [(holder, ifname, sandbox) for holder, ifname in sandbox.live]
            for address in sandbox.live.values():
                self.record.let_go(address)
        for holder, ifname, sandbox in left:
            call = self.plugin.call("DEL", network, holder, sandbox.netns, None, ifname)
            if call.status != 0:
                raise Violation(f"DEL of {holder} failed: {call}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", choices=["weft", "weft-ipam"], required=True)
    parser.add_argument("--plugins", default="/opt/cni/bin", help="folder of the plugins")
    parser.add_argument("--data-dir", default="/run/weft", help="where the node keeps its reservations")
    parser.add_argument("--networks", type=int, default=4, help="networks, each a /26")
    parser.add_argument("--slots", type=int, default=6, help="containers of each network and worker")
    parser.add_argument("--calls", type=int, required=True, help="ADD and DEL together, without repeated ones")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--kill", type=float, default=0.4, help="share of calls to kill")
    parser.add_argument("--living", action="store_true", help="sandboxes live on, killed calls are not repeated, GC is")
    options = parser.parse_args()
    driver = LivingDriver(options) if options.living else Driver(options)
    try:
        print(json.dumps(driver.run()))
    except Violation as violation:
        sys.exit(f"{violation}\nso far: {json.dumps(driver.record.counts)}")


if __name__ == "__main__":
    main()
