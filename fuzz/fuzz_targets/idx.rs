#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| candle_losses::fuzzing::idx(bytes));
