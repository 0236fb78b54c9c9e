//! Time and memory of large peer tables.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use weft_datapath::netlink::Netlink;
use weft_datapath::peers::PeerTable;

use crate::ground::on_a_host;
use crate::peers::{Host, blocks, network, report, vtep};

/// Blocks of 64, 65,536 addresses.
const BLOCKS: u32 = 1024;
const ADDRESSES: usize = 65_536;

/// Time that the process has spent on its processors.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let microseconds =
        usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(microseconds.try_into().unwrap())
}

/// A field of this process's status, in KiB.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs root; 65,536 addresses"]
fn programs_65536_addresses_within_two_seconds_and_a_block_within_three_milliseconds() {
    on_a_host(async |_| {
        let netlink = Netlink::open_offloaded().unwrap();
        let host = Host::new(netlink, network("10.8.0.0/15", None, 6)).await;
        let table = blocks(512, BLOCKS, 6);
        // Forgets the peak of what ran before (`clear_refs`, proc(5)).
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS");
        for (what, desired, expected) in
            [("made", &table, report(3 * ADDRESSES, 0)), ("compared", &table, report(0, 0))]
        {
            let (started, used) = (Instant::now(), cpu());
            assert_eq!(host.reconcile(desired).await, expected);
            let took = started.elapsed();
            println!(
                "{ADDRESSES} addresses {what} in {took:?}, {:?} of CPU",
                cpu().saturating_sub(used)
            );
            assert!(took < Duration::from_secs(2), "{what}: {took:?}");
        }
        let peak = status("VmHWM");
        println!("peak memory {peak} KiB, {} KiB of it for the tables", peak - before);
        // What ran before in this process is not counted.
        assert!(peak - before < 25 * 1024, "{} KiB for the tables", peak - before);

        let mut old = table;
        let mut times = vec![];
        for n in 0..101 {
            let mut new = old.clone();
            let moved = *new.blocks.keys().nth(n as usize).unwrap();
            match n % 2 {
                0 => drop(new.blocks.insert(moved, vtep(5000 + n))),
                _ => drop(new.blocks.remove(&moved)),
            }
            let used = cpu();
            assert_eq!(host.change(&old, &new).await.failed, 0);
            times.push(cpu().saturating_sub(used));
            old = new;
        }
        times.sort_unstable();
        println!("a block moved or removed: {:?} of CPU (median)", times[times.len() / 2]);
        assert!(times[times.len() / 2] < Duration::from_millis(3));
        host.check(&old, "after all changes").await;
        let started = Instant::now();
        host.reconcile(&PeerTable::default()).await;
        println!("all removed in {:?}", started.elapsed());
    });
}
