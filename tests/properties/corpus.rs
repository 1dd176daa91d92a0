//! The corpus of the fuzzers, replayed: each file, cut anywhere in its first part, and with each byte there changed.

use own_table::{Encoding, ReadOptions, Table};

fn replay(target: &str, parse: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut seeds = 0;
    for seed in std::fs::read_dir(folder).unwrap() {
        let bytes = std::fs::read(seed.unwrap().path()).unwrap();
        // The seed itself, cut anywhere in its first part, and with each byte there another.
        parse(&bytes);
        for at in 0..bytes.len().min(400) {
            parse(&bytes[..at]);
            let mut changed = bytes.clone();
            for flip in [0x01, 0x80, 0xff] {
                changed[at] = bytes[at] ^ flip;
                parse(&changed);
            }
        }
        seeds += 1;
    }
    assert!(seeds >= 4, "{target} has {seeds} seeds");
}

#[test]
fn idx_files_are_read_or_refused() {
    replay("idx", properties::idx_file);
}

#[test]
fn tables_are_read_or_refused() {
    replay("table", properties::table_file);
}

/// That the seeds get past the checks at the door.
#[test]
fn corpus_seeds_parse() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let read = |seed: &str| std::fs::read(folder.join(seed)).unwrap();
    let (parameters, mut adam, plan) = properties::training().unwrap();
    parameters.load_safetensors(&read("weights/weights")).unwrap();
    Encoding::of_model(&read("weights/table")).unwrap();
    let losses =
        suite::checkpoint::from_bytes(&read("weights/checkpoint"), &plan, &parameters, &mut adam, None, |batches| {
            batches
        });
    assert_eq!(losses.unwrap(), [1.0, 0.5]);
    assert_eq!(suite::idx::labels(&mut &read("idx/labels")[1..]).unwrap(), [7, 9]);
    Table::read("seed", read("table/quotes").as_slice(), &ReadOptions::default()).unwrap();
}

#[test]
fn weights_are_read_or_refused() {
    replay("weights", properties::weights_file);
}
