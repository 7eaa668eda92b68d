//! libFuzzer's door to [`inhouse_fuzz::report`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| inhouse_fuzz::report(data));
