//! `weft` and `weft-ipam`, one program under two names: what the container runtime and other
//! plugins exec. The name that it is called by decides which of the two plugins it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or("WEFT_LOG", "warn")).init();
    if weft_cni::called_as(weft_ipam::NAME) {
        return weft_cni::run(&weft_ipam::Ipam);
    }
    weft_cni::run(&weft::Weft)
}
