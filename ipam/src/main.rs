//! `weft-ipam`: what the main plugin execs.

use std::process::ExitCode;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("WEFT_LOG", "warn")).init();
    weft_cni::run(&weft_ipam::Ipam)
}
