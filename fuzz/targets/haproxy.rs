//! Fuzzes `haproxy`: the function of that name, and nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| burst_fuzz::haproxy(data));
