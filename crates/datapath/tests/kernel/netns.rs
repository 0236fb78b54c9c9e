//! Work in another network namespace.

use weft_datapath::netlink::Netlink;
use weft_datapath::netns::{Entry, Netns};

use crate::ground::{container, on_a_host, sh};

fn links() -> usize {
    sh("ip -o link show").lines().count()
}

#[test]
#[ignore = "needs root"]
fn work_runs_in_the_namespace_and_the_caller_is_back_afterwards() {
    on_a_host(async |_| {
        let (home, c1) = (Netns::current().unwrap(), container());
        for entry in [Entry::CallingThread, Entry::NewThread] {
            let (there, links_there) =
                c1.run(entry, || (Netns::current().unwrap(), links())).unwrap();
            assert!(there == c1 && links_there == 1, "{entry:?}");
            assert_eq!(Netns::current().unwrap(), home, "{entry:?}");
            assert_eq!(links(), 3, "{entry:?}");
        }
    });
}

#[test]
#[ignore = "needs root"]
fn caller_is_back_after_a_panic() {
    on_a_host(async |_| {
        let (home, c1) = (Netns::current().unwrap(), container());
        let work = || c1.run(Entry::CallingThread, || panic!("as a test"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        assert!(panicked.is_err());
        assert_eq!(Netns::current().unwrap(), home);
        assert!(c1.run(Entry::NewThread, || panic!("as a test")).is_err());
    });
}

#[test]
#[ignore = "needs root"]
fn refuses_a_namespace_of_another_kind() {
    on_a_host(async |_| {
        let home = Netns::current().unwrap();
        let other = Netns::open("/proc/self/ns/uts").unwrap();
        for entry in [Entry::CallingThread, Entry::NewThread] {
            let error = other.run(entry, || ()).unwrap_err().to_string();
            assert!(error.contains("/proc/self/ns/uts is not a network namespace"), "{error}");
            assert_eq!(Netns::current().unwrap(), home);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn connection_stays_in_the_namespace() {
    on_a_host(async |netlink| {
        let c1 = container();
        for entry in [Entry::CallingThread, Entry::NewThread] {
            let inside = Netlink::open_in(&c1, entry).unwrap();
            assert_eq!(inside.links().await.unwrap().len(), 1);
            assert_eq!(netlink.links().await.unwrap().len(), 3);
        }
    });
}
