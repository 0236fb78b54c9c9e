//! `weft`: what the container runtime execs.

#![no_main]

weft_cni::main!(
    || env_logger::Builder::from_env(env_logger::Env::new().filter_or("WEFT_LOG", "warn")).init(),
    weft::Weft
);
