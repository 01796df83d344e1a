#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| virtio_fs_fuzz::wire::run(data));
