//! libFuzzer's door to [`inhouse_fuzz::tree`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inhouse_fuzz::tree(data));
