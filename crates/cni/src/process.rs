//! The process of a plugin, from its first instruction to its exit status.
//!
//! A plugin starts for every container, so what the start costs, each container pays. Rust's own
//! start costs as much as that of the whole C library: to report a stack overflow in words, it reads
//! `/proc/self/maps` and installs signal handlers on a stack of their own. A plugin's `main` is
//! therefore the C library's, and this module does what Rust's start does for correctness.

use std::ffi::c_int;
use std::process::ExitCode;

use crate::dispatch::{self, Plugin};

/// Defines the `main` of a plugin's program, which must be `#![no_main]`: runs the first
/// expression, which sets up the log, and then the plugin.
#[macro_export]
macro_rules! main {
    ($set_up:expr, $plugin:expr) => {
        #[expect(unsafe_code, reason = "the C library calls a function of this name")]
        // SAFETY: there is no other `main` in a `no_main` program, and the C library calls it once.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> std::ffi::c_int {
            $crate::process::run($set_up, &$plugin)
        }
    };
}

/// Runs `plugin` as this process, after `set_up`, and returns the exit status.
pub fn run(set_up: impl FnOnce(), plugin: &dyn Plugin) -> c_int {
    prepare();
    set_up();
    c_int::from(dispatch::run(plugin) != ExitCode::SUCCESS)
}

/// Makes the process what Rust's start would have made it.
#[expect(unsafe_code, reason = "no safe crate opens a descriptor by its number or ignores signals")]
fn prepare() {
    // SAFETY: plain system calls on values, in a process of one thread; the string ends with NUL.
    unsafe {
        // A closed standard output would become the number of the next file that is opened, and the
        // result would be written to that file. open(2) takes the lowest number.
        for descriptor in 0..3 {
            if libc::fcntl(descriptor, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
        // Writing to a program that has ended is an error to report, and not the end.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}
