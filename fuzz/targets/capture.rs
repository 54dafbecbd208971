//! Fuzzes `capture`: the function of that name, and nothing else.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| burst_fuzz::capture(data));
