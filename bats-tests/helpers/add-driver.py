#!/usr/bin/env python3
"""Makes containers without pause, each on a network without its own: only weft-ipam is called.

Every ADD must succeed, or say that it may be tried again later (code 11). Goes on until there is a file, then
prints the addresses that are held, by holder, and the counts as one JSON object. An ADD that failed is followed by
a DEL, and so is now and then one that succeeded.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import subprocess
import sys
import threading
import time

TRY_AGAIN_LATER = 11


def call(verb, network, holder):
    conf = {"cniVersion": "1.0.0", "name": network, "type": "weft-ipam"}
    environment = dict(
        os.environ,
        CNI_COMMAND=verb,
        CNI_CONTAINERID=holder,
        CNI_IFNAME="eth0",
        CNI_NETNS="/proc/self/ns/net",
        CNI_PATH="/opt/cni/bin",
    )
    return subprocess.run(
        ["/opt/cni/bin/weft-ipam"],
        input=json.dumps(conf).encode(),
        stdout=subprocess.PIPE,
        env=environment,
        timeout=60,
        check=False,
    )


class Driver:
    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.held = {}
        self.counts = collections.Counter()
        self.violations = []

    def work(self, worker):
        number = 0
        while not self.options.until.exists() and not self.violations:
            number += 1
            try:
                self.one(f"{self.options.name}-{worker}-{number}")
            except Exception as error:  # pylint: disable=broad-except
                self.violations.append(repr(error))
            time.sleep(self.options.pause)

    def one(self, holder):
        added = call("ADD", self.options.network, holder)
        result = json.loads(added.stdout)
        if added.returncode == 0:
            with self.lock:
                self.counts["added"] += 1
                self.held[holder] = result["ips"][0]["address"].split("/")[0]
            if random.random() > 0.2:
                return
        elif result["code"] == TRY_AGAIN_LATER:
            with self.lock:
                self.counts["later"] += 1
        else:
            self.violations.append(f"ADD of {holder}: {result}")
        with self.lock:
            self.held.pop(holder, None)
        deleted = call("DEL", self.options.network, holder)
        if deleted.returncode != 0:
            self.violations.append(f"DEL of {holder}: {deleted.stdout.decode()}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="what the names of its containers begin with")
    parser.add_argument("--network", required=True)
    parser.add_argument("--until", type=pathlib.Path, required=True, help="the file that ends it")
    parser.add_argument("--parallel", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two calls of a worker")
    options = parser.parse_args()
    driver = Driver(options)
    workers = [threading.Thread(target=driver.work, args=(worker,)) for worker in range(options.parallel)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(json.dumps({"held": driver.held, "violations": driver.violations, **driver.counts}))
    sys.exit(bool(driver.violations))


if __name__ == "__main__":
    main()
