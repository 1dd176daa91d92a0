//! The parsers of files from strangers, each on bytes and without a file: what `fuzz/` feeds, and a test replays. They may
//! refuse, but not panic.

use crate::data::idx;
use crate::data::table::{Table, Target};
use crate::{Activation, Mlp, checkpoint, train::Position, train::Training};
use candle_core::Device;
use rand::{SeedableRng, rngs::StdRng};

/// What the checkpoints among the seeds were started with.
const PLAN: &str = r#"{"example":"PROGRAM","samples":3,"digest":0,"batch_size":1,"lr":0.1,"seed":1,"shuffle":false}"#;

/// Images, labels, and both in gzip: the first byte decides.
pub fn idx(bytes: &[u8]) {
    let Some((kind, file)) = bytes.split_first() else { return };
    let mut unpacked = flate2::bufread::MultiGzDecoder::new(file);
    let _ = match kind % 4 {
        0 => idx::labels(&mut &*file),
        1 => idx::images(&mut &*file, 2),
        2 => idx::labels(&mut unpacked),
        _ => idx::images(&mut unpacked, 2),
    };
}

/// A table, its first column the target and its second one of categories.
pub fn table(bytes: &[u8]) {
    let Ok(table) = Table::read("fuzz.csv", bytes) else { return };
    let categories = table.header().get(1).cloned().into_iter().collect::<Vec<_>>();
    let Some(target) = table.header().first() else { return };
    for kind in [Target::Number, Target::Class] {
        if let Ok((_, _, encoding)) = table.split((target, kind), &categories, 0.3, 1, None, &Device::Cpu) {
            let _ = table.inputs(&encoding, &[0], &Device::Cpu);
        }
    }
}

/// Weights, with what was learned of a table, and a checkpoint.
pub fn weights(bytes: &[u8]) {
    let model = Mlp::new(&[2, 3, 1], Activation::Linear, false, &mut StdRng::seed_from_u64(1), &Device::Cpu);
    let Ok(model) = model else { return };
    let context = || "fuzz".to_owned();
    let _ = model.load_from(bytes, &context);
    let _ = Mlp::encoding_in(bytes, &context);
    let training = Training { epochs: 1, batch_size: 1, lr: 0.1, seed: 1, shuffle: false };
    if let Ok(mut position) = Position::start(&training, &model) {
        let Ok(plan) = serde_json::from_str(PLAN) else { return };
        let _ = checkpoint::read_from(bytes, &plan, &model, &mut position, &context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, parse: fn(&[u8])) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
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
        replay("idx", idx);
    }

    #[test]
    fn tables_are_read_or_refused() {
        replay("table", table);
    }

    /// That the seeds get past the checks at the door.
    #[test]
    fn the_seeds_are_what_they_are_called() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let read = |seed: &str| std::fs::read(folder.join(seed)).unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let model = Mlp::new(&[2, 3, 1], Activation::Linear, false, &mut rng, &Device::Cpu).unwrap();
        let context = || "seed".to_owned();
        model.load_from(&read("weights/weights"), &context).unwrap();
        Mlp::encoding_in(&read("weights/table"), &context).unwrap();
        let training = Training { epochs: 1, batch_size: 1, lr: 0.1, seed: 1, shuffle: false };
        let plan = serde_json::from_str(PLAN).unwrap();
        let mut position = Position::start(&training, &model).unwrap();
        let losses = checkpoint::read_from(&read("weights/checkpoint"), &plan, &model, &mut position, &context);
        assert_eq!((losses.unwrap(), position.steps), (vec![1.0, 0.5], 2));
        assert_eq!(idx::labels(&mut &read("idx/labels")[1..]).unwrap(), [7, 9]);
        Table::read("seed", read("table/quotes").as_slice()).unwrap();
    }

    #[test]
    fn weights_are_read_or_refused() {
        replay("weights", weights);
    }
}
