//! See `permcached::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| permcached::fuzzing::page_tokens(data));
